"""What a run prints: the same columns in a file and on a terminal."""

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from bahefl_flwr.live import LiveView
from bahefl_flwr.run_folder import summarise
from run_lines import line


def printed(*lines: dict[str, object], terminal: bool = False) -> list[str]:
    """The text that a view prints for these rounds."""
    file = io.StringIO()
    view = LiveView(Console(file=file, force_terminal=terminal, width=40))
    for each in lines:
        view.round(each)
    return file.getvalue().splitlines()


def test_a_row_a_round_in_aligned_columns() -> None:
    """The heading once, then a row a round of the same width."""
    heading, *rows = printed(line(1, score=0.25), line(12, attempt=1, included=[0, 1]))
    assert heading.split()[:3] == ["round", "coordinator", "updates"]
    assert rows[0].split() == ["1", "1", "4/4", "0.5000", "0.3000", "0.2500", "0.2500", "0.2500", "3.5", "1,234,567"]
    assert rows[1].split()[:3] == ["12", "0+1", "2/4"]
    assert {len(row) for row in rows} == {len(heading)}


def test_what_was_not_measured_is_a_dash() -> None:
    """A round whose model nobody could evaluate still has its row."""
    _, row = printed(line(1, validation={}, train_loss=None))
    assert row.split()[3:8] == ["-"] * 5


def test_exclusions_and_abandoned_rounds_are_explained() -> None:
    """The reason stands below the row; of a round that nobody had begun when the run was ended, that one's."""
    ended = line(3, abandoned="no more", begun=False)
    output = printed(line(1, excluded={"2": "malformed"}), line(2, abandoned="too few updates (2 of 3)"), ended)
    assert "site 2 left out: malformed" in output[2]
    assert "abandoned: too few updates (2 of 3)" in output[4]
    assert "not begun: no more" in output[6]


@pytest.mark.parametrize(
    ("counts", "answer"),
    [({"tp": 0, "fp": 0, "fn": 5, "tn": 95}, "no lesion"), ({"tp": 5, "fp": 95, "fn": 0, "tn": 0}, "lesion")],
)
def test_a_collapsed_round_is_said(counts: dict[str, int], answer: str) -> None:
    """A model that answers the same for every pixel is named as that, in whichever direction."""
    output = printed(line(1, validation={**counts, "dice": 0.0}), line(2))
    assert f"collapsed: the model answers {answer} for every pixel" in output[2]
    assert len(output) == 4


def test_figures_of_fewer_sites_say_so() -> None:
    """Below the row, of what and of how many; with all sites nothing is said."""
    whole = {"train": {"sites": 4, "of": 4}, "validation": {"sites": 4, "of": 4}}
    output = printed(
        line(1, pooled_over={**whole, "validation": {"sites": 1, "of": 4}}, restarted=True), line(2, pooled_over=whole)
    )
    assert [text.strip() for text in output[2:4]] == [
        "validation figures of 1 of 4 sites", "seconds, bytes and gas since a driver was restarted",
    ]  # fmt: skip
    assert len(output) == 5


def test_the_result_says_of_how_many_sites_it_is() -> None:
    """Best round and test, where sites were missing."""
    file = io.StringIO()
    best = line(1, score=0.7, pooled_over={"validation": {"sites": 2, "of": 3}})
    summary = summarise([best], experiment="x", seconds=1.0, test={"dice": 0.8})
    LiveView(Console(file=file)).finish({**summary, "tested": {"sites": 2, "of": 3}}, Path("/runs/x"), None)
    shown = file.getvalue()
    assert "round 1: score 0.7000, pooled Dice 0.7000, recall 0.7000, of 2 of 3 sites (validation)" in shown
    assert "test     dice 0.8000, of 2 of 3 sites" in shown


def test_colours_only_on_a_terminal() -> None:
    """A log file holds no escape sequences."""
    assert "\x1b" not in "".join(printed(line(1)))
    assert "\x1b" in "".join(printed(line(1), terminal=True))


def test_the_packages_warnings_are_shown_as_news() -> None:
    """What the driver logs while attached appears between the rows, and nothing stays attached."""
    file = io.StringIO()
    logger = logging.getLogger("bahefl_flwr.driver")
    with LiveView(Console(file=file)).attached():
        logger.warning("site %d is late", 3)
        logger.info("waiting")
    logger.warning("not shown")
    assert file.getvalue() == "site 3 is late\n"


def test_the_end_names_result_and_files() -> None:
    """Whoever comes back after a night finds the result and where everything lies."""
    file = io.StringIO()
    summary = summarise(
        [line(1, score=0.7)], experiment="x", seconds=61.04, test={"dice": 0.8, "loss": 0.2}, reason="early stopping"
    )
    LiveView(Console(file=file, width=40)).finish(
        summary, Path("/runs/a-very-long-name"), Path("/runs/a-very-long-name/report.html")
    )
    assert file.getvalue().splitlines() == [
        "run      completed: 1 rounds in 61.0 s; early stopping",
        "best     round 1: score 0.7000, pooled Dice 0.7000, recall 0.7000 (validation)",
        "test     dice 0.8000, loss 0.2000",
        "folder   /runs/a-very-long-name",
        "report   /runs/a-very-long-name/report.html",
    ]


@pytest.mark.parametrize(
    ("lines", "reason", "told"),
    [
        ([line(1), line(2)], "", "completed: 2 rounds in 9.0 s"),
        ([line(1), line(2, abandoned="late"), line(3)], "", "completed: 2 rounds in 9.0 s, 1 abandoned"),
        ([line(1), line(2, abandoned="late")], "given up", "completed: 1 of 2 rounds in 9.0 s, 1 abandoned; given up"),
        ([line(1)], "early stopping", "completed: 1 of 2 rounds in 9.0 s; early stopping"),
    ],
)
def test_the_end_tells_how_many_rounds_gave_a_model(lines: list[dict[str, object]], reason: str, told: str) -> None:
    """Two were asked for; whoever reads `completed` must see that fewer were."""
    file = io.StringIO()
    summary = summarise(lines, experiment="x", seconds=9.0, reason=reason)
    LiveView(Console(file=file)).finish({**summary, "asked": 2}, Path("/runs/x"), None)
    assert file.getvalue().splitlines()[0] == f"run      {told}"


def test_why_a_run_failed_is_left_to_the_error_that_ends_the_command() -> None:
    """Told once, there; early stopping has no error, and is told here."""
    file = io.StringIO()
    failed = summarise([], experiment="x", seconds=1.0, reason="no site could open the final model", failed=True)
    LiveView(Console(file=file)).finish(failed, Path("/runs/x"), None)
    assert file.getvalue().splitlines()[0] == "run      failed: 0 rounds in 1.0 s"


def test_a_quiet_view_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard error is a stream of JSON, the table is not in its way."""
    live = LiveView(quiet=True)
    live.say("run folder /runs/x")
    live.round(line(1))
    assert capsys.readouterr() == ("", "")


def test_another_applications_figures_have_the_columns() -> None:
    """Whatever its sites report, by its own names; Dice is ours."""
    heading, row = printed(line(1, validation={"loss": 0.3, "accuracy": 0.9, "num-examples": 40}))
    assert heading.split()[5:] == ["val", "loss", "accuracy", "seconds", "gas"]
    assert row.split()[3:6] == ["0.5000", "0.3000", "0.9000"]
