"""Install a wheel beside the oldest and the newest of what it needs, on several Pythons, and try each; print a table.

    python .ci/matrix.py dist/*.whl --python python3.11 --python python3.13 --extra torch

Oldest is what `pyproject.toml` names, or the first release that has a wheel for that Python; `--pin NAME==RELEASE` says
another, for both. Nothing is compiled: only wheels are taken. Each combination has a fresh environment and runs
`.ci/smoke.py` in an empty folder.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST = {("numpy", "3.13"): "2.1", ("safetensors", "3.13"): "0.4.4"}
"""The first release with a wheel for a Python, where that is later than the oldest that is supported."""


def needed(extras):
    """The packages that are needed with these extras, each with its oldest release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = [re.match(r"([\w-]+)>=([\d.]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def tried(wheel, python, oldest, extras, pinned):
    """Try one combination; what the smoke test says, or the end of what went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="downslope-matrix-"))
    try:
        release = subprocess.run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], **CAPTURED)
        release = release.stdout.strip()
        first = {name: FIRST.get((name, release), least) for name, least in needed(extras).items()} if oldest else {}
        subprocess.run([python, "-m", "venv", folder / "venv"], **CAPTURED)
        own = folder / "venv" / "bin" / "python"
        asked = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
        install = [own, "-m", "pip", "install", "-q", "--only-binary", ":all:", asked]
        install += [f"{name}=={release}" for name, release in {**first, **pinned}.items()]
        subprocess.run(install, **CAPTURED)
        environment = {"PATH": "/nowhere", "HOME": str(folder), "KERAS_BACKEND": "jax" if "jax" in extras else "torch"}
        (folder / "away").mkdir()
        smoke = [own, "-I", ROOT / ".ci" / "smoke.py"]
        return json.loads(subprocess.run(smoke, cwd=folder / "away", env=environment, **CAPTURED).stdout)
    except subprocess.CalledProcessError as error:
        return {"failed": " ".join((error.stderr or error.stdout).split())[-300:]}
    finally:
        shutil.rmtree(folder)


CAPTURED = {"check": True, "capture_output": True, "text": True}


def main():
    """Try all combinations, and print them as a table of Markdown; end with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", action="append", help="an interpreter; repeat for more")
    parser.add_argument("--extra", action="append", default=[], help="an extra to install too; repeat for more")
    parser.add_argument("--pin", action="append", default=[], help="NAME==RELEASE to take; repeat for more")
    parser.add_argument("--only", choices=["oldest", "newest"], help="one of the two")
    asked = parser.parse_args()
    pinned = dict(pin.split("==") for pin in asked.pin)
    rows = []
    for python in asked.python or [sys.executable]:
        for which in [asked.only] if asked.only else ["oldest", "newest"]:
            rows.append(
                {"releases": which, **tried(asked.wheel.resolve(), python, which == "oldest", asked.extra, pinned)}
            )
            print(rows[-1], file=sys.stderr)
    head = list(dict.fromkeys(name for row in rows for name in row))
    for line in [head, ["---"] * len(head), *([str(row.get(name, "")) for name in head] for row in rows)]:
        print("| " + " | ".join(line) + " |")
    sys.exit(any("failed" in row for row in rows))


if __name__ == "__main__":
    main()
