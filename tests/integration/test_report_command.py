"""`bahefl report` with the final model: samples and per-site results of a tiny run, measured again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bahefl_flwr import console
from bahefl_flwr.lesion.sites import site_data
from bahefl_flwr.trained import open_run
from lesion_run import slice_folder, tiny_run

Said = pytest.CaptureFixture[str]


def test_a_phantom_run_shows_slices_and_measures_each_site(tmp_path: Path) -> None:
    """The data come back from the settings: as many test slices per partition as the run had."""
    run = tiny_run(tmp_path).path

    assert console.main(["report", str(run)]) == 0

    with (run / "report" / "sites.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = open_run(run).settings.data
    assert [int(row["slices"]) for row in rows] == [len(site_data(data, site=k, sites=3, seed=1)["test"]) for k in range(3)]
    page = (run / "report.html").read_text()
    assert "Samples (figure 6)" in page
    assert "The sum differs from what the sites reported" in page, "the summary of this run is made up"
    assert "Generated phantoms, not patients" in page


def test_real_slices_are_shown_on_demand_only(tmp_path: Path) -> None:
    """A report of patients' slices holds no picture of them unless somebody asks."""
    data = slice_folder(tmp_path / "data", count=60)
    run = tiny_run(tmp_path, data={"kind": "folder", "root": str(data)}).path

    assert console.main(["report", str(run)]) == 0
    assert "Samples" not in (run / "report.html").read_text()
    assert console.main(["report", str(run), "--slices"]) == 0
    assert "Samples" in (run / "report.html").read_text()


def test_a_report_without_slices_says_how_to_add_them(tmp_path: Path) -> None:
    """As at the end of a run, whose driver holds no model."""
    run = tiny_run(tmp_path).path

    assert console.main(["report", str(run), "--no-slices"]) == 0

    page = (run / "report.html").read_text()
    assert "Samples" not in page
    assert "<code>bahefl report RUN</code>" in page


def test_a_run_whose_model_is_gone_still_has_a_report(tmp_path: Path, capsys: Said) -> None:
    """What cannot be shown is said; with --slices it is an error."""
    run = tiny_run(tmp_path).path
    for site in (run / "sites").iterdir():
        (site / "model.safetensors").unlink()

    assert console.main(["report", str(run)]) == 0
    assert "without slices: " in capsys.readouterr().err
    assert console.main(["report", str(run), "--slices"]) == 5


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path, capsys: Said) -> None:
    """Bad usage."""
    assert console.main(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
