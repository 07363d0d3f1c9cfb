"""What the page for users of Optax and its example promise."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/optax.md").read_text()


def test_the_page_names_every_optimizer_of_optax():
    import optax

    import downslope.optax
    from downslope import dialects

    rules, _, missing = PAGE.partition("No functions of their own have")[2].partition("Not here:")
    named = set(re.findall(r"`(\w+)`", PAGE))
    aliases = {name for name in dir(optax) if getattr(getattr(optax, name), "__module__", "") == "optax._src.alias"}
    assert aliases | {"nadam", "nadamw"} <= named
    for name in (*aliases, "nadam", "nadamw"):
        has_none = f"`{name}`" in rules or f"`{name}`" in missing
        assert has_none != hasattr(downslope.optax, name)
        assert not has_none or hasattr(dialects.optax, name) == (f"`{name}`" in rules)


def test_the_example_learns(capsys):
    runpy.run_path(str(ROOT / "examples/optax_loop.py"), run_name="__main__")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("epoch 20: ")
    assert float(re.search(r"([\d.]+)% on new points", last)[1]) > 90
