import pytest

from downslope.play import page as written


@pytest.fixture(scope="session")
def playground_file(tmp_path_factory):
    """The playground, written once."""
    file = tmp_path_factory.mktemp("play") / "play.html"
    file.write_text(written.page())
    return file


@pytest.fixture(scope="module")
def opened(page, playground_file):
    """The playground, opened once, in which nothing moves by itself; called with a link, it says what that left out."""
    page.emulate_media(reduced_motion="reduce")
    page.goto(playground_file.as_uri())

    def opened(link):
        page.evaluate("link => openLink(link)", link)
        return page.locator("#left-list").inner_text()

    opened.page = page
    return opened
