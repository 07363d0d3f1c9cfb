"""A link and a state are two forms of one thing: every state goes to a link and back, and hostile links do no harm."""

import math
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

READ = """link => { const left = readLink(link); const again = writeLink();
    const before = JSON.stringify(state); const leftAgain = readLink(again);
    const found = [left.map(([key]) => key), before, leftAgain, JSON.stringify(state), again, writeLink()];
    openLink(""); return found; }"""
PUT = """made => { readLink(made.own ? `own=${encodeURIComponent(made.own)}` : ''); Object.assign(state, made);
    const before = JSON.stringify(state); const link = writeLink();
    const found = [link, readLink(link), before, JSON.stringify(state)];
    openLink(""); return found; }"""
TYPED = {"x**2/4 + y**2 + sin(3*x)": [2, []], "where(x > 0 & x < 3, x, -x)": [1, []]}


@pytest.fixture(scope="module")
def known(opened):
    """What there is to choose, as the page has it."""
    return opened.page.evaluate(
        """() => ({ rules: Object.fromEntries(Object.entries(RULES).map(([name, { numbers, ranges, flags, forms }]) =>
            [name, { ranges: Object.fromEntries(Object.keys(numbers).map(key => [key, ranges[key]])),
            flags: Object.keys(flags).filter(flag => flagsKey({ ...flags, [flag]: !flags[flag] }) in forms),
            usual: flags }])),
        surfaces: Object.fromEntries(Object.values(SURFACES).map(({ name, variables, parameters }) =>
            [name, [variables.length, Object.keys(parameters)]])),
        parts: partsOf(), lessons: Object.keys(LESSONS), languages: Object.keys(PLAY.words),
        keys: Object.keys(KEYS) })"""
    )


def numbers(low, high):
    return st.floats(-1e300 if low is None else low, 1e300 if high is None else high, allow_nan=False)


@st.composite
def states(draw, known):
    """Any state that can be chosen in the page."""
    own = draw(st.sampled_from(["", "x -= lr*dx", "v = 0.9*v - lr*dx\nx += v"]))
    names = st.sampled_from(sorted(known["rules"]) + (["own"] if own else []))
    walkers = st.tuples(names, st.sampled_from(["", ".2", ".3"])).map("".join)
    ids = draw(st.lists(walkers, min_size=1, max_size=5, unique=True))
    surface = draw(st.sampled_from([*sorted(known["surfaces"]), *TYPED]))
    size, parameters = (TYPED | known["surfaces"])[surface]
    lows = draw(st.lists(st.integers(-999, 999), min_size=size, max_size=size)) if surface in TYPED else []
    chosen = {}
    for rule in ids:
        told = known["rules"].get(rule.partition(".2")[0].partition(".3")[0])
        if told is None:
            continue
        taken = draw(st.sets(st.sampled_from(sorted(told["ranges"])), max_size=3))
        chosen[rule] = {name: draw(numbers(*told["ranges"][name])) for name in sorted(taken)}
        if told["flags"] and draw(st.booleans()):
            flag = draw(st.sampled_from(told["flags"]))
            chosen[rule][flag] = not told["usual"][flag]
    return {
        "own": own,
        "surface": surface,
        "window": [end for low in lows for end in (low, low + draw(st.integers(1, 99)))],
        "shape": {name: draw(numbers(0, 1e6)) for name in parameters if draw(st.booleans())},
        "rules": ids,
        "settings": {rule: each for rule, each in chosen.items() if each},
        "start": draw(st.lists(numbers(-1e6, 1e6), min_size=size, max_size=size)),
        "lr": draw(st.sampled_from(["best", "own"]) | numbers(1e-9, 1e6)),
        "steps": draw(st.integers(1, 5000)),
        "t": draw(st.integers(0, 5000)),
        "speed": draw(st.sampled_from([0.125, 0.25, 0.5, 1, 2, 4])),
        "off": draw(st.lists(st.sampled_from(ids), unique=True)),
        "look": draw(st.sampled_from(ids)),
        "lang": draw(st.sampled_from(known["languages"])),
        "hide": draw(st.lists(st.sampled_from(known["parts"]), unique=True)),
        "noise": draw(numbers(0, 1e3)),
        "seed": draw(st.integers(0, 4294960000)),
        "cloud": draw(st.integers(0, 1)),
        "turn": draw(numbers(-180, 180)),
        "stretch": draw(numbers(0.01, 100)),
        "times": draw(numbers(1e-6, 1e6)),
        "net.batch": draw(st.sampled_from([[10], [1, 200], [1, 10, 50, 200]])),
        "net.lr": draw(st.sampled_from(["best", 0.1])),
        "net.seed": draw(st.integers(1, 9999)),
        "lesson": draw(st.sampled_from(["", *known["lessons"]])),
        "guess": draw(st.sampled_from(["", "0", "2"])),
    }


@few
@given(data=st.data())
def test_every_state_goes_to_a_link_and_back(opened, known, data):
    made = data.draw(states(known))
    link, left, before, after = opened.page.evaluate(PUT, made)
    assert left == [], link
    assert after == before, link
    assert len(link) < 8000
    assert not set(link[1:]) & set(' "<>`\n#')


WORDS = (
    "NaN -1 1e999 0x10 Infinity __proto__ toString constructor <b> % %zz a,b ,,, sgd,sgd best 0 1 2.5 zh valley adam"
)
ODD = [*WORDS.split(), "", "\u0000", "😀", "x**2", "x -= lr*dx", "x" * 300]


@few
@given(data=st.data())
def test_a_hostile_link_opens_and_what_it_cannot_say_is_named(opened, known, data):
    """Nothing is taken silently: each part is in the state that the page's own link says, or is named as left out."""
    rule = st.sampled_from(["sgd", "adam", "momentum", "rmsprop.2", "toString", "__proto__"])
    name = st.sampled_from(["lr", "mu", "beta1", "bias_correction", "constructor", "__proto__", "kappa"])
    dotted = st.tuples(rule | st.just("valley"), name).map(".".join)
    keys = st.sampled_from(known["keys"]) | dotted | st.text(max_size=8)
    values = st.sampled_from(ODD) | st.text(max_size=12) | st.floats().map(repr)
    pairs = data.draw(st.lists(st.tuples(keys, values), max_size=8, unique_by=lambda pair: pair[0]))
    pairs = [(key, value) for key, value in pairs if not any("\ud800" <= c <= "\udfff" for c in key + value)]
    raw = data.draw(st.booleans())
    link = "&".join(f"{key}={value}" if raw else f"{quote(key)}={quote(value)}" for key, value in pairs)
    left, state, left_again, state_again, written, written_again = opened.page.evaluate(READ, link)
    assert left_again == [], written
    assert state_again == state
    assert written_again == written
    said = {unquote(part.partition("=")[0]) for part in written[1:].split("&")}
    if not raw and len(link) <= 8000:
        taken = {key[:60] for key, _ in pairs} - set(left) - {"v"}
        assert taken <= said | set(known["keys"])
        assert all(key in known["keys"] or "." in key for key in taken)
        for key, value in pairs:
            if key in said and key in ("noise", "turn", "stretch", "times") and key not in left:
                assert math.isfinite(float(value))
