"""Screening in the report: lines that can be seen, gaps that are told, and claims of any form that end no report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from bahefl_flwr import console
from bahefl_flwr.report import screening
from bahefl_flwr.run_folder import RunFolder, create
from run_lines import line

SITES = ("0", "1", "2", "3")


def shown(**changes: Any) -> dict[str, Any]:
    """What the coordinator of a round of four sites says, as `screening.summary` writes it."""
    return {
        "weights": dict.fromkeys(SITES, 8), "reasons": {}, "norms": dict.fromkeys(SITES, 1.0),
        "alignments": {"recent": dict.fromkeys(SITES, 0.5)}, "cosines": dict.fromkeys(SITES, 0.25), "separation": 0.125,
        "threshold": 0.3, "halves": [], **changes,
    }  # fmt: skip


ODD = (
    "x", 3, [1], {"a": 1}, shown(separation="abc"), shown(threshold=None), shown(threshold=True), shown(norms={"0": "<script>"}),
    shown(norms={"x": 1.0}), shown(norms={"0": 10**400}), shown(cosines=[]), shown(reasons=None), shown(alignments={"recent": 7}),
    {k: v for k, v in shown().items() if k != "cosines"}, shown(separation=float("nan")), shown(weights={"999999": 1}),
    shown(limits=3), shown(limits={"zero": "x"}),
)  # fmt: skip


def run_of(tmp_path: Path, *lines: dict[str, Any]) -> RunFolder:
    """A run folder with these lines, written as they are."""
    folder = create(tmp_path, "x", 1, "")
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


@pytest.mark.parametrize("odd", ODD, ids=[f"{k}" for k in range(len(ODD))])
def test_a_claim_of_another_form_is_told_and_ends_no_report(tmp_path: Path, odd: object) -> None:
    """A coordinator writes what it likes: the other rounds are shown, and of this one that its figures cannot be read."""
    folder = run_of(tmp_path, line(1, screening=shown()), line(2, screening=odd, outcome="whole"))
    assert console.main(["report", str(folder.path), "--no-slices"]) == 0
    page = (folder.path / "report.html").read_text()
    assert "<td>2</td><td>figures cannot be read</td><td></td><td>whole</td>" in page
    assert "<script" not in page
    with (folder.path / "report" / "screening.csv").open() as file:
        assert {row["round"] for row in csv.DictReader(file)} == {"1"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SITES, "x", "recent"]), inner, max_size=3),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from(sorted(shown())), _JSON, max_size=3))
def test_any_figures_give_rows_of_text(changes: dict[str, Any]) -> None:
    """Whatever stands in the place of whichever figure."""
    lines = [line(1, screening=shown(**changes))]
    rows = screening.screening_rows(lines) + screening.round_rows(lines)
    assert all(isinstance(cell, str) for row in rows for cell in row)
    assert screening.is_screened(lines)


def panels(monkeypatch: pytest.MonkeyPatch, *lines: dict[str, Any]) -> list[Axes]:
    """The four panels of the picture."""
    axes = list(Figure().subplots(2, 2).flat)

    def draw(_titles: object, _height: float, paint: Callable[[list[Axes]], None], **_: object) -> bytes:
        paint(axes)
        return b""

    monkeypatch.setattr(screening, "draw", draw)
    screening.screening_picture(lines)
    return axes


def test_one_round_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of one point has no length: each site has a marker, and the threshold a line across the round."""
    norms, alignments, cosines, separation = panels(monkeypatch, line(1, screening=shown()))
    for axes in (norms, alignments, cosines):
        of_sites = [each for each in axes.lines if len(each.get_xdata()) == 1]  # type: ignore[arg-type]
        assert len(of_sites) == len(SITES)
        assert all(each.get_marker() == "." for each in of_sites)
    (threshold,) = (each for each in separation.collections if isinstance(each, LineCollection))
    np.testing.assert_array_equal(threshold.get_segments(), [[[0.5, 0.3], [1.5, 0.3]]])


def test_a_round_without_a_split_test_breaks_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn from the round before it to the one after it, and it says there that nothing was tested."""
    rounds = [shown(separation=0.1), shown(separation=None), shown(separation=None), {}, shown(separation=0.2)]
    separation = panels(monkeypatch, *(line(n, screening=each) for n, each in enumerate(rounds, 1)))[3]
    np.testing.assert_array_equal(separation.lines[0].get_ydata(), [0.1, np.nan, np.nan, np.nan, 0.2])
    assert [(text.get_text(), text.get_position()[0]) for text in separation.texts] == [("not tested", 3)]


def test_where_nothing_was_tested_the_panel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty panel would look like a mistake."""
    separation = panels(monkeypatch, line(1, screening=shown(separation=None)))[3]
    assert [text.get_text() for text in separation.texts] == ["not tested"]


def test_the_limits_of_the_rules_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dashed, round by round as they were; a run that did not record them is drawn without."""
    limits = [{"zero": 0.05, "clipped": 2.0, "oversized": 4.0, "alignment": -x} for x in (0.06, 0.1)]
    rounds = [line(n, screening=shown(limits=each)) for n, each in enumerate(limits, 1)]
    norms, alignments, *_ = panels(monkeypatch, *rounds, line(3, screening=shown()))
    dashed = [list(each.get_ydata()) for each in norms.lines if each.get_linestyle() == "--"]  # type: ignore[arg-type]
    np.testing.assert_array_equal(dashed, [[0.05, 0.05, np.nan], [2, 2, np.nan], [4, 4, np.nan]])
    (dashed,) = (list(each.get_ydata()) for each in alignments.lines if each.get_linestyle() == "--")  # type: ignore[arg-type]
    np.testing.assert_array_equal(dashed, [-0.06, -0.1, np.nan])


def test_a_conflict_tells_its_halves_and_who_voted_for_which(tmp_path: Path) -> None:
    """On the page and as a table beside it: what speaks for a half, its voters, and what came of it."""
    halves = [{"members": [0, 2], "prior": -0.3, "reputation": 0.6}, {"members": [1, 3], "prior": 0.46, "reputation": 1.0}]
    votes = {"0": "first", "1": "second", "2": "kept back", "3": "both"}
    conflict = {"halves": [[0, 2], [1, 3]], "votes": votes, "outcome": "second", "excluded": {"0": "outvoted", "2": "outvoted"}}
    folder = run_of(tmp_path, line(1, screening=shown(halves=halves), **conflict))
    assert console.main(["report", str(folder.path), "--no-slices"]) == 0
    with (folder.path / "report" / "conflicts.csv").open() as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("1", "first", "0 2", "-0.300", "0.600", "0", "3", "left out"),
        ("1", "second", "1 3", "0.460", "1.000", "1", "3", "taken"),
    ]
    assert "who voted for which half" in (folder.path / "report.html").read_text()


def test_the_caption_names_no_colour_that_the_mark_has_not(tmp_path: Path) -> None:
    """The cross has the colour-blind palette's vermilion, which many call orange."""
    folder = run_of(tmp_path, line(1, screening=shown(), excluded={"2": "undoing"}))
    assert console.main(["report", str(folder.path), "--no-slices"]) == 0
    page = (folder.path / "report.html").read_text()
    assert "a cross where it was left out" in page
    assert "red cross" not in page
