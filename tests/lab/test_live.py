import contextlib
import re
from xml.etree import ElementTree

from downslope.lab.engines.protocol import Progress, Run
from downslope.lab.live import EVERY, LivePage
from downslope.lab.races.notebook import medians
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
    with LivePage(tmp_path / "my race.html", "<Digits>", ("sgd", "adam"), screen, lambda: now[0]) as live:
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
    with LivePage(tmp_path / "report.html", "digits", ("momentum",), Screen(), lambda: now[0]) as live:
        for now[0] in (0.0, EVERY):
            live.watch(Progress("momentum", 1, 0, (run(0.1, 0.5, 2.0), run(1.0, 0.5, 1.5), run(0.1, 0.9, 1.0))))
        table = ElementTree.fromstring(re.search("<table.*</table>", live.path.read_text())[0])
        (row,) = table.iterfind("tbody/tr")
        assert ["".join(cell.itertext()) for cell in row] == ["● momentum, mu=0.9", "0.1", "1"]


def test_a_page_of_a_race_without_a_report_leads_to_none(tmp_path):
    def last(race):
        now = [0.0]
        with (
            contextlib.suppress(RuntimeError),
            LivePage(tmp_path / "report.html", "digits", ("sgd",), Screen(), lambda: now[0]) as live,
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
    with LivePage(tmp_path / "report.html", "digits", ("sgd",), screen, lambda: now[0]) as live:
        for now[0] in (0.0, 5.0, 10.0):
            live.watch(Progress("sgd", 1, 0, ()))
    (said,) = [said for said in screen.said if isinstance(said, str)]
    assert "report.live.html is not written any more" in said
