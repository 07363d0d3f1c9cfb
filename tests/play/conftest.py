import pytest

from downslope.play import page as written


@pytest.fixture(scope="session")
def playground_file(tmp_path_factory):
    """The playground, written once."""
    file = tmp_path_factory.mktemp("play") / "play.html"
    file.write_text(written.page())
    return file


@pytest.fixture(scope="module")
def playground(page, playground_file):
    """The playground, opened once, in which nothing moves by itself."""
    page.set_viewport_size({"width": 1300, "height": 2000})
    page.emulate_media(reduced_motion="reduce")
    page.goto(playground_file.as_uri())
    return page


@pytest.fixture(scope="module")
def opened(playground):
    """The playground; called with a link, it is in its state and says what of it was left out."""

    def opened(link):
        playground.evaluate("link => openLink(link)", link)
        return playground.locator("#left-list").inner_text()

    def until(condition):
        """Come back when a condition holds in the page, whose policy forbids Playwright's own way of waiting."""
        ask = f"const ask = () => ({condition}) ? done() : left-- ? setTimeout(ask, 20) : fail(Error('it never holds'))"
        playground.evaluate(f"() => new Promise((done, fail) => {{ let left = 3000; {ask}; ask(); }})")

    opened.page, opened.until = playground, until
    return opened
