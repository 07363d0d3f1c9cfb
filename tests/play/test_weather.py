"""Noise, other ground, and what is taken away: all of it is Python's."""

import base64
import csv
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import downslope
from downslope.walks.write import table

POINTS = "walkers.map(w => [...w.points])"


def check_call(playground):
    """The call that is shown makes the walk that is shown."""
    call = playground.locator("#python").inner_text()
    walk = eval(call, {"downslope": downslope})
    for path, theirs in zip(walk.paths, playground.evaluate(POINTS), strict=True):
        np.testing.assert_allclose(theirs, path.points.ravel(), rtol=1e-9, atol=1e-9 * np.nanmax(abs(path.points)))
    return walk


@pytest.mark.parametrize("seed", [0, 7, 4294967295])
def test_noise_is_numpys(playground, seed):
    drawn = playground.evaluate("seed => Array.from({ length: 3000 }, normals(seed))", seed)
    ours = np.random.default_rng(seed).standard_normal(3000)
    np.testing.assert_allclose(drawn, ours, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(np.float32(0.3 * np.array(drawn)), np.float32(0.3 * ours))


@pytest.mark.parametrize(
    "link",
    [
        "surface=valley&lr=0.1&steps=30",
        "surface=double_well&lr=best&steps=60&rules=sgd,keras.adam",
        "surface=valley&valley.kappa=10&lr=own&steps=30&rules=adam,adam.2&adam.lr=0.1&adam.2.bias_correction=0",
        "surface=rosenbrock&lr=0.001&steps=30&noise=0.3&seed=5",
        "surface=valley&turn=30&stretch=0.5&times=3&lr=0.01&steps=30&rules=torch.sgd_momentum,adam",
        "surface=bumps&stretch=2&times=10&lr=0.01&steps=30&rules=own,sgd&own=x -= lr * sign(dx)",
    ],
)
def test_the_call_that_is_shown_makes_this_walk(playground, opened, link):
    assert opened(link) == ""
    playground.evaluate("while (!isTried()) tryRates(50)")
    playground.evaluate("showShare()")
    check_call(playground)


def test_who_changes_his_way(playground, opened):
    """Turned ground is nothing to SGD and momentum, and a multiplied loss nothing to Adam but for its epsilon."""
    same = "walkers.filter(keepsWay).map(w => w.id)"
    rules = "rules=sgd,momentum,adam,lion&adam.eps=0"
    opened(f"surface=valley&lr=0.05&steps=40&turn=40&{rules}")
    assert playground.evaluate(same) == ["sgd", "momentum"]
    opened(f"surface=valley&lr=0.05&steps=40&times=10&{rules}")
    assert playground.evaluate(same) == ["adam", "lion"]
    playground.evaluate("draw()")
    assert "the same way as before: adam, lion." in playground.locator("#ways-say").inner_text()
    opened(f"surface=valley&lr=0.05&steps=40&stretch=2&{rules}")
    assert playground.evaluate(same) == []


def test_turning_keeps_the_place(playground, opened):
    opened("surface=valley&lr=0.05&steps=20&start=-4,2")
    playground.locator("#number-turn").fill("90")
    playground.locator("#number-turn").press("Enter")
    assert playground.evaluate("state.start") == pytest.approx([-2, -4])
    playground.get_by_role("button", name="As it was").click()
    assert playground.evaluate("state.start") == pytest.approx([-4, 2])


def test_a_cloud_is_of_other_seeds(playground, opened):
    opened("surface=valley&lr=0.05&steps=20&noise=0.5&cloud=1&rules=sgd")
    playground.evaluate("while (!isClouded()) workClouds(50)")
    ways = playground.evaluate("walkers[0].cloud.ways.map(way => [...way.points])")
    assert len(ways) == 50
    for seed in (1, 50):
        path = downslope.walk("valley", ["sgd"], lr=0.05, steps=20, noise=0.5, seed=seed).paths[0]
        np.testing.assert_allclose(ways[seed - 1], path.points.ravel(), rtol=1e-9)
    ends = sorted(way[-2] ** 2 / 10 + 5 * way[-1] ** 2 for way in ways)
    playground.evaluate("now.step = 20; draw()")
    assert f"{ends[round(0.5 * 49 + 0.01)]:.3g}" in playground.locator("#cloud-says").inner_text()


def test_numbers_and_pictures_are_taken_away(playground, opened):
    opened("surface=valley&lr=0.05&steps=20&noise=0.5&rules=momentum,nesterov&t=20")
    walk = downslope.walk("valley", ["momentum", "nesterov"], lr=0.05, steps=20, noise=0.5)
    with playground.expect_download() as download:
        playground.locator("#save-csv").click()
    ours, theirs = (
        list(csv.DictReader(io.StringIO(text))) for text in (table(walk), download.value.path().read_text())
    )
    assert list(ours[0]) == list(theirs[0])
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name, value in one.items():
            assert other[name] == value or float(other[name]) == pytest.approx(float(value), rel=1e-9)
    with playground.expect_download() as download:
        playground.locator("#save-svg").click()
    drawn = ElementTree.fromstring(download.value.path().read_text())
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("momentum: loss") for text in texts)
    with playground.expect_download() as download:
        playground.locator("#save-png").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    with playground.expect_download() as download:
        playground.locator("#save-gif").click()
    assert playground.locator("#save-gif").inner_text() == "Film (GIF)"
    film = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert (film.n_frames, film.info["loop"]) == (21, 0)
    assert playground.evaluate("now.step") == 20
    for step in (0, 12, 20):
        shown = playground.evaluate(
            """step => { now.step = step; const [width, height, all] = pictureSize();
            const context = make("canvas", { width, height: all }).getContext("2d");
            paintPicture({ context, width, height, ratio: 1 }, scene()); now.step = 20;
            return [[all, width], btoa(String.fromCharCode(...new Uint8Array(
              context.getImageData(0, 0, width, all).data.filter((_, k) => k % 4 === 0 || k % 4 === 1)
            ).filter((_, k) => k % 14 < 2)))]; }""",
            step,
        )
        size, reds_and_greens = shown[0], np.frombuffer(base64.b64decode(shown[1]), np.uint8).reshape(-1, 2)
        film.seek(step)
        pixels = np.array(film.convert("RGB"))
        assert list(pixels.shape[:2]) == size
        apart = abs(pixels.reshape(-1, 3)[::7, :2].astype(int) - reds_and_greens)
        assert (apart.max(axis=1) == 0).mean() > 0.95
        assert (apart.max(axis=1) > 60).mean() < 0.001


def test_a_film_is_of_the_walk_as_it_was_and_may_be_stopped(playground, opened):
    """It is made in small parts: what is changed meanwhile is not in it, and everything else goes on."""
    opened("surface=valley&steps=30&t=30&rules=sgd")
    film = """new Promise(done => { const parts = gif(); change({ start: [9, -2], lang: "zh" });
        colours.set("page", "#14171c").set("ink", "#e9ebee").set("c0", "#5d84d8"); %s })"""
    read = """(function on() { const { done: all, value } = parts.next(); if (!all) return on();
        value.arrayBuffer().then(bytes => done(btoa(String.fromCharCode(...new Uint8Array(bytes))))); })();"""
    changed = playground.evaluate(film % read)
    assert playground.evaluate("[state.lang, words.language, colour('page')]") == ["zh", "zh", "#14171c"]
    opened("surface=valley&steps=30&t=30&rules=sgd")
    playground.evaluate("colours.clear()")
    assert playground.evaluate(f"new Promise(done => {{ const parts = gif(); {read} }})") == changed
    said = playground.evaluate(
        """() => { const button = find("save-gif"), said = [];
        window.saved = 0; window.save = saveAs; saveAs = () => saved++;
        for (let k = 0; k < 3; k++) { button.click(); said.push(button.textContent, find("said").textContent); }
        return said; }"""
    )
    assert said[0].startswith("Stop the film (")
    assert said[2:4] == ["Film (GIF)", "The film is stopped."]
    opened.until("saved")
    assert playground.evaluate("saveAs = save, [saved, filming, find('said').textContent]") == [
        1,
        None,
        "The film is saved.",
    ]


def test_a_film_is_packed_without_a_loss(playground):
    """Of any size, up to more codes than there is room for: what a reader of GIFs unpacks is what was packed."""
    drawn = playground.evaluate(
        """async () => { const random = randoms(1); const all = [];
        const whole = (parts) => { for (;;) { const { done, value } = parts.next(); if (done) return value; } };
        const sizes = [[1, 1], [97, 83], ...Array.from({ length: 40 }, (_, k) => [7 * k + 3, 1]), [256, 60], [600, 1]];
        for (const [width, height] of sizes) {
          const pictures = [0, 1, 2].map(() => Uint32Array.from({ length: width * height },
            () => (0xff000000 + 77777 * Math.floor(250 * random())) >>> 0));
          pictures[1] = pictures[0].map((pixel, k) => (k % 5 ? pixel : pictures[1][k]));
          const file = new Uint8Array(await whole(gifOf(k => pictures[k], 3, width, height)).arrayBuffer());
          all.push([width, height, [...file].map(byte => byte.toString(16).padStart(2, "0")).join(""),
            pictures.map(picture => [...picture])]); }
        return all; }"""
    )
    for width, height, file, pictures in drawn:
        film = Image.open(io.BytesIO(bytes.fromhex(file)))
        assert film.size == (width, height)
        for k, picture in enumerate(pictures):
            colours = np.array(picture, "<u4").view(np.uint8).reshape(height, width, 4)[:, :, :3]
            film.seek(min(k, film.n_frames - 1))
            found = np.array(film.convert("RGB"))
            if len(np.unique(np.concatenate(pictures))) <= 255:
                np.testing.assert_array_equal(found, colours, err_msg=f"{width} by {height}, picture {k}")
