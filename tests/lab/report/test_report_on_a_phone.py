"""The report's parts on a phone."""

from downslope.lab.report.markup import segments
from downslope.pages import asset, theme

CURVES = ("Validation loss", "Validation loss over seconds", "Training loss", "Validation accuracy")


def test_the_choice_of_curves_does_not_widen_the_page(page):
    style = f"{theme()}{asset('downslope.lab.report', 'page.css')}"
    choices = segments("curves", [(name, name) for name in CURVES], True)
    page.set_viewport_size({"width": 390, "height": 800})
    page.set_content(f'<meta name="viewport" content="width=device-width"><style>{style}</style><main>{choices}</main>')
    assert page.locator("button").count() == len(CURVES)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
