import re

import numpy as np
import pytest

from downslope.pages import asset, theme

MAP = asset("downslope.walks", "ground.css")
STYLES = [("downslope.walks", "film.css"), ("downslope.play", "page.css"), ("downslope.lab.report", "page.css")]


def luminance(colour):
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def colours(style, dark):
    """The variables of the block for light or dark."""
    blocks = re.findall(r":root[^{]*\{(.*?)\}", style, re.DOTALL)
    return dict(re.findall(r"--(\w+): (#\w{6});", blocks[dark]))


@pytest.mark.parametrize("dark", [0, 1])
@pytest.mark.parametrize("ground", ["page", "low", "high"])
def test_colours_stand_out(ground, dark):
    """From the page, and from the lowest and the highest band of the map of a surface."""
    known = colours(theme(), dark)
    behind = luminance({**known, **colours(MAP, dark)}[ground])

    def contrast(name):
        light, dark = sorted((behind, luminance(known[name])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    low = {f"c{number}": contrast(f"c{number}") for number in range(7) if contrast(f"c{number}") < 3}
    assert not low
    assert contrast("ink") >= 7
    assert contrast("muted") >= 4.5


@pytest.mark.parametrize("style", [theme(), MAP, *(asset(*each) for each in STYLES)])
def test_the_dark_colours_are_for_screens_only(style):
    assert "@media (prefers-color-scheme" not in style


def test_paper_can_ask_for_the_light_colours():
    assert re.findall(r"@media ([^{]*)\{\s*:root:not\(\.printing\)", theme()) == [
        "screen and (prefers-color-scheme: dark) "
    ]
