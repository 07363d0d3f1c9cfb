"""What the page for users of Optax and its example promise."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/optax.md").read_text()


def test_the_python_in_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/optax.md", "exec"), space)
    assert (tmp_path / "training.safetensors").is_file()
    assert space["state"].count == 1


def test_the_page_names_every_optimizer_of_optax():
    import optax

    import downslope.optax

    named = set(re.findall(r"`(\w+)`", PAGE))
    aliases = {name for name in dir(optax) if getattr(getattr(optax, name), "__module__", "") == "optax._src.alias"}
    assert aliases | {"nadam", "nadamw"} <= named
    for name in (*aliases, "nadam", "nadamw"):
        missing = f"`{name}`" in PAGE.partition("Not here:")[2]
        assert missing != hasattr(downslope.optax, name)


def test_links_of_the_page_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_the_example_learns(capsys):
    runpy.run_path(str(ROOT / "examples/optax_loop.py"), run_name="__main__")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("epoch 20: ")
    assert float(re.search(r"([\d.]+)% on new points", last)[1]) > 90
