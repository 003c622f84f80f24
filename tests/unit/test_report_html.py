"""The report: one self-contained page with its figures and tables, drawn from the run folder at any time."""

import csv
import re
from pathlib import Path
from typing import Any

import cv2
import pytest

from bahefl_flwr import report
from bahefl_flwr.report import progress, tables
from bahefl_flwr.run_folder import RunFolder, attack_facts, create, summarise
from run_lines import line

PAPER = {"tp": 347_605, "fp": 89_140, "fn": 46_863, "tn": 26_386_152, "mean-hd95-px": 12.34}


def ended(tmp_path: Path, lines: list[dict[str, Any]], test: dict[str, Any] | None = None) -> RunFolder:
    """A run folder as a finished run leaves it."""
    folder = create(tmp_path, "x", 1, "")
    for each in lines:
        folder.append_metrics(each)
    folder.write_summary(summarise(lines, experiment="<x>", seconds=2.0, test=test or {"dice": 0.75, "tp": 201}))
    return folder


def written(folder: RunFolder) -> str:
    """The page's text."""
    return report.write(folder).read_text()


def test_the_page_is_self_contained_and_complete(tmp_path: Path) -> None:
    """Every figure inline, the facts, and nothing fetched from anywhere."""
    page = written(ended(tmp_path, [line(1), line(2, attempt=1), line(3)], {"dice": 0.8, **PAPER}))
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{2000,}"', page)) == 5
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", page)
    assert "round 1: score 0.5000" in page


def test_figures_and_tables_lie_beside_it_as_files(tmp_path: Path) -> None:
    """A PNG for each figure, wide enough for print, and CSV files that open."""
    folder = ended(tmp_path, [line(1), line(2)], PAPER)
    page = written(folder)
    pictures = sorted(path.name for path in (folder.path / "report").glob("*.png"))
    assert pictures == ["bytes.png", "figure3-convergence.png", "figure4-confusion.png", "figure5-time.png", "participation.png"]
    assert len(pictures) == page.count("<img")
    assert cv2.imread(str(folder.path / "report" / "figure3-convergence.png")).shape[1] == 1440
    with (folder.path / "report" / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["validation.dice"], row["included"]) for row in rows] == [
        ("1", "0.5", "0 1 2 3"),
        ("2", "0.5", "0 1 2 3"),
    ]


def test_tables_hold_plain_columns(tmp_path: Path) -> None:
    """No cell is a Python object; what is by site has a file with a row for each."""
    sites = {"0": {"dice": 0.5, "tp": 3}, "2": {"dice": 0.75, "tp": 4}}
    folder = ended(tmp_path, [line(1, sites=sites, screening={"norms": {"0": 1.0}}, notes=["a b", "c"], halves=[[0, 1], [2]])])
    written(folder)
    with (folder.path / "report" / "rounds.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert not any(mark in cell for cell in row.values() for mark in "{[(")
    assert (row["seconds.train"], row["notes"], row["halves"]) == ("3.0", "a b; c", "0 1; 2")
    with (folder.path / "report" / "validation.csv").open() as file:
        assert [tuple(each.values()) for each in csv.DictReader(file)] == [("1", "0", "0.5", "3"), ("1", "2", "0.75", "4")]


def test_table_1_of_the_paper_comes_out_of_its_counts() -> None:
    """Precision, recall and F1 of both classes, accuracy and averages, to the paper's own rounding (research/lesion.md, B1)."""
    assert tables.table_1(PAPER) == [
        ("no lesion (0)", "0.9982", "0.9966", "0.9974", "", "26,475,292"),
        ("lesion (1)", "0.7959", "0.8812", "0.8364", "12.34", "394,468"),
        ("accuracy", "", "", "0.9949", "", "26,869,760"),
        ("macro average", "0.8971", "0.9389", "0.9169", "", "26,869,760"),
        ("weighted average", "0.9953", "0.9949", "0.9951", "", "26,869,760"),
    ]


def test_slices_without_a_distance_are_named_beside_hd95(tmp_path: Path) -> None:
    """A mean over the easy slices is never shown alone."""
    test = {**PAPER, "num-missed": 3, "num-spurious": 7, "mean-penalised-hd95-px": 40.0}
    page = written(ended(tmp_path, [line(1)], test))
    assert "3 missed and 7 spurious slices have no distance; with the image diagonal for these it is 40.00 px" in page


def test_figures_of_another_application_are_shown_as_they_are(tmp_path: Path) -> None:
    """Without pixel counts there is no table 1, but what was measured."""
    page = written(ended(tmp_path, [line(1)]))
    assert "<td>dice</td><td>0.7500</td>" in page
    assert "<td>tp</td><td>201</td>" in page


def test_incidents_are_listed_with_round_and_reason(tmp_path: Path) -> None:
    """Who was left out, declined, was disputed or took over, what collapsed, which round was abandoned."""
    dead = {"tp": 0, "fp": 0, "fn": 5, "tn": 95, "dice": 0.0, "score": 0.0, "recall": 0.0, "loss": 1.0}
    lines = [
        line(1, excluded={"3": "corrupt"}, declined=[1], disputed=[2], attempt=1, notes=["site 0: retried"]),
        line(2, validation=dead),
        line(3, abandoned="<late>"),
    ]
    page = written(ended(tmp_path, lines))
    for told in (
        "update of site 3 left out", "corrupt", "site 1 declined", "key holder 2 disputed", "site 1 took over as coordinator",
        "site 0: retried", "answers no lesion for every pixel", "Collapsed in round(s) 2", "&lt;late&gt;",
    ):  # fmt: skip
        assert told in page, told


def test_a_round_that_nobody_had_begun_has_an_empty_column() -> None:
    """No site was silent in it and none coordinated; what its line names does not show."""
    nothing = {"abandoned": "no more", "begun": False, "committed": [], "included": []}
    shown = progress.participation([line(1), line(2, **nothing, selected=[0, 1, 2, 3], quorum=[1], epoch=2)])
    assert shown == progress.participation([line(1), line(2, **nothing, attempt=1)])
    assert shown != progress.participation([line(1), line(2, **{**nothing, "begun": True}, selected=[0, 1, 2, 3])])


def test_key_epochs_and_who_opened_are_told(tmp_path: Path) -> None:
    """Which keys opened which rounds."""
    page = written(
        ended(tmp_path, [line(1, epoch=1, quorum=[0, 2]), line(2, epoch=1, quorum=[0, 1]), line(3, epoch=2, quorum=[1])])
    )
    assert "<td>1</td><td>1 to 2</td><td>site 0 (2x), site 1 (1x), site 2 (1x)</td>" in page
    assert "<td>2</td><td>3 to 3</td><td>site 1 (1x)</td>" in page


def test_time_and_bytes_by_phase_are_means_per_round(tmp_path: Path) -> None:
    """What security costs, in the unit that a reader compares."""
    page = written(ended(tmp_path, [line(1), line(2)]))
    assert "<td>train</td><td>3.00</td><td>85.7 %</td>" in page
    assert "<td>updates</td><td>2.80</td><td>5.6</td>" in page
    assert "86 % is training and evaluation" in page


@pytest.mark.parametrize(
    "lines", [[], [line(1, abandoned="too few")], [line(1, validation={}, train_loss=None, seconds={}, bytes={})]]
)
def test_a_poor_run_still_has_a_report(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    """No round, no finalised round, nothing measured: the page says so."""
    assert "&lt;x&gt;" in written(ended(tmp_path, lines))


def test_a_run_that_ended_early_says_how_many_rounds_gave_a_model(tmp_path: Path) -> None:
    """In its first lines, with the reason."""
    folder = ended(tmp_path, lines := [line(1), line(2, abandoned="late"), line(3)])
    folder.write_summary({**summarise(lines, experiment="x", seconds=2.0, reason="given up"), "asked": 10})
    assert "<td>completed: 2 of 10 rounds in 2.0 s, 1 abandoned; given up</td>" in written(folder)


def test_a_run_that_goes_on_has_a_report(tmp_path: Path) -> None:
    """Before there is a summary: the rounds so far, and that it has not ended."""
    folder = create(tmp_path, "x", 1, "")
    folder.append_metrics(line(1))
    page = written(folder)
    assert "not ended: 1 rounds finalised so far" in page
    assert "Convergence" in page


def test_results_of_single_sites_are_shown_where_lines_have_them(tmp_path: Path) -> None:
    """The newest line that holds `sites` counts."""
    page = written(
        ended(tmp_path, [line(1, sites={"0": {"dice": 0.25}}), line(2, sites={"0": {"dice": 0.5}, "2": {"dice": None}})])
    )
    assert "<p>Round 2:</p>" in page
    assert "<td>0</td><td>0.5000</td>" in page


def test_the_same_run_gives_the_same_pictures(tmp_path: Path) -> None:
    """Drawn twice, byte for byte: figures can be compared."""
    folder = ended(tmp_path, [line(1)], PAPER)
    assert written(folder) == written(folder)


def test_a_run_that_was_attacked_says_so(tmp_path: Path) -> None:
    """Its figures are no honest run's: the page names the attack, the attackers, and whom screening left out."""
    folder = ended(tmp_path, [line(1, excluded={"2": "conflict"})])
    summary = folder.summary()
    assert summary
    summary["attack"] = attack_facts(folder.metrics(), "zero", [2, 3], 1)
    folder.write_summary(summary)
    assert "simulated: zero by 2, 3; 1.00 of them and 0.00 honest ones left out a round" in written(folder)


@pytest.mark.parametrize("figures", [{"loss": 0.3, "score": 0.9, "accuracy": 0.8}, {"loss": 0.3}, {}])
def test_a_report_of_another_application_says_nothing_of_lesions(tmp_path: Path, figures: dict[str, float]) -> None:
    """Its own figures are drawn, as far as there are any."""
    page = written(ended(tmp_path, [line(1, validation=figures), line(2, validation=figures)], {"accuracy": 0.8}))
    assert "Convergence</h2>" in page
    assert not re.search("Dice|phantom|slices|pixel", page)
