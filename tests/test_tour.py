"""The notebook for a class: it runs from top to bottom in a kernel, and keeps nothing that could go stale."""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "examples/tour.ipynb"


def test_the_tour_runs_and_holds_what_it_claims(tmp_path):
    tour = nbformat.read(TOUR, as_version=4)
    NotebookClient(tour, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = ["".join(str(part) for part in cell.get("outputs", [])) for cell in tour.cells]
    assert any("<iframe" in text for text in said), "the film is shown"
    assert any("torch.optim" in text for text in said), "the last of the race is a line for PyTorch"


def test_the_tour_is_stored_without_what_it_prints():
    tour = nbformat.read(TOUR, as_version=4)
    nbformat.validate(tour)
    assert [cell.source for cell in tour.cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_links_of_the_tour_lead_somewhere():
    text = "\n".join(cell.source for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (TOUR.parent / link).exists(), link
