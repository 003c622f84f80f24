"""The report: one self-contained page, drawn from the run folder alone."""

import re
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr import report
from bahefl_flwr.errors import StoreError
from bahefl_flwr.run_folder import RunFolder, create, summarise
from run_lines import line


def ended(tmp_path: Path, lines: list[dict[str, Any]]) -> RunFolder:
    """A run folder as a finished run leaves it."""
    folder = create(tmp_path, "x", 1, "")
    for each in lines:
        folder.append_metrics(each)
    folder.write_summary(summarise(lines, experiment="<x>", seconds=2.0, test={"dice": 0.75, "tp": 201}))
    return folder


def test_the_page_is_self_contained_and_complete(tmp_path: Path) -> None:
    """Five figures inline, the facts, and nothing fetched from anywhere."""
    page = report.write(ended(tmp_path, [line(1), line(2, attempt=1), line(3)])).read_text()
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{2000,}"', page)) == 5
    assert not re.search(r"https?://|<script|<link", page)
    assert "round 1: score 0.5000" in page
    assert "<td>dice</td><td>0.7500</td>" in page
    assert "<td>tp</td><td>201</td>" in page


def test_incidents_are_listed_in_order(tmp_path: Path) -> None:
    """Who was left out and which round was abandoned, each with its reason."""
    page = report.write(ended(tmp_path, [line(1, excluded={"3": "corrupt"}), line(2, abandoned="<late>")])).read_text()
    assert page.index("corrupt") < page.index("&lt;late&gt;")


@pytest.mark.parametrize(
    "lines", [[], [line(1, abandoned="too few")], [line(1, validation={}, train_loss=None, seconds={}, bytes={})]]
)
def test_a_poor_run_still_has_a_report(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    """No round, no finalised round, nothing measured: the page says so."""
    assert "&lt;x&gt;" in report.write(ended(tmp_path, lines)).read_text()


def test_a_run_that_has_not_ended_has_no_report(tmp_path: Path) -> None:
    """Asked too early, the error says what is missing."""
    with pytest.raises(StoreError, match=r"no summary\.json"):
        report.write(create(tmp_path, "x", 1, ""))
