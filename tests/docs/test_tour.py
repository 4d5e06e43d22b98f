"""The notebook examples/tour.ipynb runs from top to bottom, and its stored outputs are small."""

from __future__ import annotations

import pytest
from pages import ROOT

TOUR = ROOT / "examples" / "tour.ipynb"


def test_the_tour_is_small_and_was_run():
    nbformat = pytest.importorskip("nbformat")
    assert TOUR.stat().st_size < 300_000
    cells = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    assert len(figures) == 3
    share, same = printed.splitlines()[-1].split(", as in its summary: ")
    assert share == same  # run.model() is the tested network
