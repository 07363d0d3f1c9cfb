import contextlib
import dataclasses
import re
from xml.etree import ElementTree

from downslope.lab.engines.protocol import Entry, Progress, Run
from downslope.lab.live import EVERY, LivePage
from downslope.lab.races.look import DASHES
from downslope.lab.races.notebook import medians
from downslope.lab.races.stage import Stage
from downslope.lab.report.drawing import looks
from downslope.lab.underway import UnderWay
from race_fixture import make_race


class Screen:
    def __init__(self):
        self.said = []

    def watch(self, event):
        self.said.append(event)

    def times(self):
        return "1 min so far, about 2 min left"

    def say(self, text, style=""):
        self.said.append(text)


def test_a_page_of_a_race_that_runs_loads_itself_again_until_it_is_over(tmp_path):
    race, screen, now = make_race(("sgd", "adam"), tuning_seeds=2), Screen(), [0.0]
    runs = [run for result in race.rules for run in result.tuning]
    with LivePage(tmp_path / "my race.html", "<Digits>", ("sgd", "adam"), screen, "epochs", lambda: now[0]) as live:
        for run in runs:
            live.watch(Progress(run.rule, 1, 0, (run,)))
        assert list(tmp_path.iterdir()) == []  # it is as short as most
        now[0] = EVERY
        live.watch(Progress("sgd", 1, 0, ()))
        page = (tmp_path / "my race.live.html").read_text()
        assert f'http-equiv="refresh" content="{EVERY:.0f}"' in page
        assert "about 2 min left" in page
        assert f"{len(runs)} runs have ended, {sum(run.diverged_at is not None for run in runs)} of them" in page
        assert "&lt;Digits&gt;" in page
        assert "<script" not in page
        live.watch(Progress("sgd", 1, 0, race.rules[0].verdict))
        assert (tmp_path / "my race.live.html").read_text() == page  # not before its time
        live.over(tmp_path / "my race-interrupted.html")
    last = (tmp_path / "my race.live.html").read_text()
    assert "refresh" not in last
    assert '<a href="my%20race-interrupted.html">my race-interrupted.html</a>' in last
    assert "This race is over. What it found is in its report, above." in last
    assert f"{len(runs) + 10} runs have ended" in last
    table = ElementTree.fromstring(re.search("<table.*</table>", last)[0])
    for row, result in zip(table.iterfind("tbody/tr"), race.rules, strict=True):
        losses = medians((run.lr, run.final_loss) for run in result.tuning)
        best = min(losses, key=losses.get)
        assert [cell.text for cell in row][1:] == [f"{best:.3g}", f"{losses[best]:.3g}"]
    assert [said for said in screen.said if isinstance(said, str)] == [f"To watch in a browser: {live.path}"]
    assert len(screen.said) == len(runs) + 3


def test_a_page_shows_each_rule_in_its_best_setting_so_far(tmp_path):
    def run(lr, mu, loss):
        return Run("momentum", lr, 0, "tuning", (), (3.0, loss), None, setting=(("mu", mu),))

    now = [0.0]
    with LivePage(tmp_path / "report.html", "digits", ("momentum",), Screen(), "epochs", lambda: now[0]) as live:
        for now[0] in (0.0, EVERY):
            live.watch(Progress("momentum", 1, 0, (run(0.1, 0.5, 2.0), run(1.0, 0.5, 1.5), run(0.1, 0.9, 1.0))))
        table = ElementTree.fromstring(re.search("<table.*</table>", live.path.read_text())[0])
        (row,) = table.iterfind("tbody/tr")
        assert ["".join(cell.itertext()).strip() for cell in row] == ["momentum, mu=0.9", "0.1", "1"]


def test_a_page_of_a_race_without_a_report_leads_to_none(tmp_path):
    def last(race):
        now = [0.0]
        with (
            contextlib.suppress(RuntimeError),
            LivePage(tmp_path / "report.html", "digits", ("sgd",), Screen(), "epochs", lambda: now[0]) as live,
        ):
            for now[0] in (0.0, EVERY):
                live.watch(Progress("sgd", 1, 0, ()))
            race(live)
        page = live.path.read_text()
        assert "refresh" not in page
        assert "href" not in page
        return page

    def fails(live):
        raise RuntimeError

    assert "This race was stopped before its end; the terminal says why." in last(fails)
    assert "This race is over. The terminal says what became of its report." in last(LivePage.over)


def test_a_race_goes_on_where_its_page_cannot_be_written(tmp_path):
    screen, now = Screen(), [0.0]
    (tmp_path / "report.live.html").mkdir()
    with LivePage(tmp_path / "report.html", "digits", ("sgd",), screen, "epochs", lambda: now[0]) as live:
        for now[0] in (0.0, 5.0, 10.0):
            live.watch(Progress("sgd", 1, 0, ()))
    (said,) = [said for said in screen.said if isinstance(said, str)]
    assert "report.live.html is not written any more" in said


def test_a_page_tells_rules_apart_as_the_report_does_and_draws_the_runs_that_go_on(tmp_path):
    race, now = make_race(("sgd", "adam"), tuning_seeds=2), [0.0]
    going = Entry("adam", 0.1, 7, observed=True)
    heard = tuple((going, epoch, 2.0 / (1 + epoch)) for epoch in range(3))
    with LivePage(tmp_path / "report.html", "digits", ("sgd", "adam"), Screen(), "epochs", lambda: now[0]) as live:
        for now[0] in (0.0, EVERY):
            for result in race.rules:
                live.watch(Progress(result.rule, 1, 0, result.tuning))
            live.watch(Progress("adam", 1, 0, (), heard=heard))
        page = live.path.read_text()
        live.watch(Progress("adam", 1, 0, (dataclasses.replace(race.rules[1].tuning[0], lr=0.1, seed=7),)))
    canyon, curves = (ElementTree.fromstring(one) for one in re.findall("<svg viewBox.*?</svg>", page))
    look = looks(race)
    for picture in (canyon, curves):
        groups = picture.findall("g")
        assert [one.get("style") for one in groups][:2] == [
            f"color:var(--{look[r].colour[1:]})" for r in ("sgd", "adam")
        ]
        dashes = {one.find("title").text: one.findall("path")[-1].get("stroke-dasharray") for one in groups}
        assert dashes == {"sgd": None, "adam": DASHES[look["adam"].dash]}
        assert [one.find("g")[0].tag for one in groups][:2] == ["circle", "polygon"]
    thick = [one for one in curves.findall("g") if one.findall("path")[-1].get("stroke-width") == "3.2"]
    (line,) = [one.findall("path")[-1].get("d") for one in thick]
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", line)[1:]]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # downwards, as the loss
    assert 'stroke-width="3.2"' not in live.path.read_text()


def test_of_runs_that_go_on_each_rule_tells_the_lowest():
    under_way = UnderWay("steps")
    for step in range(1000):
        heard = [(Entry("sgd", lr, 0, setting=(("mu", 0.9),)), step, lr / (1 + step)) for lr in (1.0, 0.1)]
        under_way.watch(Progress("sgd", 0, 0, (), heard=tuple(heard)))
    (line,) = under_way.lines()
    assert re.fullmatch(r"█[▁-█]{22}▁ 0\.0001 after 999 steps  sgd, lr 0\.1, mu=0\.9", line)
    (curve,) = under_way.curves()
    assert (curve.points[0], curve.points[-1]) == ((0, 0.1), (999, 0.1 / 1000))
    assert len(curve.points) <= 400
    under_way.watch(Progress("sgd", 0, 0, (), heard=((Entry("sgd", 0.1, 0, setting=(("mu", 0.9),)), 0, 0.1),)))
    assert "lr 1, mu=0.9" in under_way.lines()[0]  # the other was begun anew
    under_way.watch(Stage("verdict", {}))
    assert under_way.lines() == []
    losses = tuple(1.0 / (1 + step) for step in range(1001))
    under_way.watch(Progress("sgd", 0, 0, (Run("sgd", 0.1, 0, "tuning", (), losses, None),)))
    (curve,) = under_way.curves()
    assert (curve.points[0], curve.points[-1]) == ((0, 1.0), (1000, 1 / 1001))
    assert len(curve.points) <= 400
