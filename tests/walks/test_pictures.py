import csv
import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

import downslope
from downslope.walks.pictures import animation, picture


@pytest.fixture(scope="module")
def walk():
    return downslope.walk("rosenbrock", ["sgd", "adam", "keras.rmsprop"], steps=40)


def test_a_picture_in_every_format(walk, tmp_path):
    for kind in ("png", "svg", "pdf"):
        walk.write(tmp_path / f"walk.{kind}")
    with Image.open(tmp_path / "walk.png") as picture:
        assert min(picture.size) > 400
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ("#003f94", "#b3370f", "#03716f"):  # all three rules are there
        wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        assert (abs(pixels.astype(int) - wanted).max(axis=1) < 4).any()
    assert ElementTree.parse(tmp_path / "walk.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "walk.pdf").read_bytes().startswith(b"%PDF")


def test_an_animation_moves_and_is_small(walk, tmp_path):
    walk.write(tmp_path / "walk.gif")
    with Image.open(tmp_path / "walk.gif") as film:
        assert film.n_frames == 41
        first = np.asarray(film.convert("RGB"))
        film.seek(40)
        assert (np.asarray(film.convert("RGB")) != first).any()
    assert (tmp_path / "walk.gif").stat().st_size < 1_000_000


def test_the_colours_of_an_animation_are_those_of_the_picture(walk):
    with Image.open(io.BytesIO(animation(walk, dots=60))) as film:
        film.seek(40)
        shown = np.asarray(film.convert("RGB")).astype(int)
    drawn = np.asarray(Image.open(io.BytesIO(picture(walk, "png", dots=60))).convert("RGB")).astype(int)
    away = abs(shown - drawn).max(axis=2)
    assert (away == 0).mean() > 0.8  # every band is its own, however near to the next
    assert (away < 40).mean() > 0.999


def test_one_weight_a_rule_that_diverges_and_no_lowest_place(tmp_path):
    for surface, given in (("bumps", {}), ("valley", {"lr": 5, "steps": 300}), ("x*y", {})):
        downslope.walk(surface, ["sgd", "momentum"], **given).write(tmp_path / "walk.png")


def test_the_numbers(walk, tmp_path):
    walk.write(tmp_path / "walk.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "walk.csv").read_text())))
    assert len(rows) == 3 * 41
    mine = [row for row in rows if row["rule"] == "adam"]
    np.testing.assert_array_equal([[float(row["x"]), float(row["y"])] for row in mine], walk["adam"].points)
    np.testing.assert_array_equal([float(row["m_y"]) for row in mine[1:]], walk["adam"].states["m"][1:, 1])
    assert (mine[0]["dx"], mine[0]["m_x"], rows[0]["m_x"]) == ("", "0.0", "")


def test_another_ending_is_refused_and_nothing_is_written(walk, tmp_path):
    with pytest.raises(ValueError, match=r"walk.mp4' should end with .html, .png, .svg, .pdf, .gif or .csv"):
        walk.write(tmp_path / "walk.mp4")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_the_film(walk):
    shown = walk._repr_html_()
    assert shown.startswith("<iframe")
    assert "&lt;script&gt;" in shown


def test_a_walk_draws_nothing_until_it_is_written():
    script = "import sys, downslope; downslope.walk('bowl', ['sgd']); print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", script], text=True).split())
    assert "downslope.walks.walking" in loaded
    assert not loaded & {"matplotlib", "latex2mathml", "llvmlite", "downslope.walks.film"}
