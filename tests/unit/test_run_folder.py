"""The run folder: found from the run id, complete after a crash, readable while the run goes on."""

from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr.errors import RunFailed, StoreError
from bahefl_flwr.run_folder import attack_facts, create, find, summarise
from run_lines import line


def test_every_process_finds_the_folder_from_the_run_id(tmp_path: Path) -> None:
    """Root and Flower's run id are all a site knows."""
    created = create(tmp_path / "runs", "smoke", 2**64 - 1, "experiment: smoke\n")
    assert find(tmp_path / "runs", 2**64 - 1) == created
    assert (created.path / "config.yaml").read_text() == "experiment: smoke\n"
    assert created.path.name.endswith("Z-smoke")


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    """Names carry seconds; runs of a script may start faster."""
    folders = {create(tmp_path, "same", run_id, "").path for run_id in range(3)}
    assert len(folders) == 3


def test_a_restarted_driver_continues_in_its_folder(tmp_path: Path) -> None:
    """The same run id leads to the same folder, with the first settings."""
    first = create(tmp_path, "x", 7, "a: 1\n")
    assert create(tmp_path, "x", 7, "a: 2\n") == first
    assert (first.path / "config.yaml").read_text() == "a: 1\n"


def test_a_run_that_nobody_created_is_an_error_with_advice(tmp_path: Path) -> None:
    """A site started with another run.root learns why it finds nothing."""
    with pytest.raises(RunFailed, match=r"no folder of run 5 .* absolute path"):
        find(tmp_path, 5)


def test_a_root_that_cannot_be_written_is_an_error_with_advice(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match=r"choose another run\.root"):
        create(tmp_path / "file", "x", 1, "")


def test_lines_come_back_in_order_and_without_nan(tmp_path: Path) -> None:
    """A diverged loss is null, not a file that no reader accepts."""
    folder = create(tmp_path, "x", 1, "")
    folder.append_metrics(line(1, train_loss=float("nan")))
    folder.append_metrics(line(2))
    assert [(read["round"], read["train_loss"]) for read in folder.metrics()] == [(1, None), (2, 0.5)]


def test_a_line_torn_by_a_crash_is_left_out_and_written_over(tmp_path: Path) -> None:
    """Half a line at the end does not spoil the lines before it or the next one."""
    folder = create(tmp_path, "x", 1, "")
    folder.append_metrics(line(1))
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "tr')
    assert [read["round"] for read in folder.metrics()] == [1]
    folder.append_metrics(line(2))
    assert [read["round"] for read in folder.metrics()] == [1, 2]


def test_damage_elsewhere_is_named(tmp_path: Path) -> None:
    """A line that was complete and no longer parses was edited."""
    folder = create(tmp_path, "x", 1, "")
    (folder.path / "metrics.jsonl").write_text("{}\n{oops}\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2 is damaged"):
        folder.metrics()


def test_a_run_without_a_summary_has_not_ended(tmp_path: Path) -> None:
    """None, and an empty list of lines: both can be asked for at any time."""
    folder = create(tmp_path, "x", 1, "")
    assert folder.summary() is None
    assert folder.metrics() == ()


@pytest.mark.parametrize(
    ("lines", "outcome", "rounds", "abandoned", "best"),
    [
        ([], "failed", 0, 0, None),
        ([line(1, abandoned="too few updates")], "failed", 0, 1, None),
        ([line(1, score=0.4), line(2, score=0.6), line(3, score=0.5)], "completed", 3, 0, 2),
        ([line(1, score=0.4), line(2, abandoned="late"), line(3, validation={})], "completed", 2, 1, 1),
        ([*(line(n, abandoned="late") for n in (1, 2, 3)), line(4, abandoned="3 in a row", begun=False)], "failed", 0, 3, None),
    ],
)
def test_the_summary_counts_finalised_rounds(
    tmp_path: Path, lines: list[dict[str, Any]], outcome: str, rounds: int, abandoned: int, best: int | None
) -> None:
    """A run failed when no round was finalised; the best has the highest score. One that was not begun is not counted."""
    folder = create(tmp_path, "x", 1, "")
    folder.write_summary(summarise(lines, experiment="x", seconds=1.0))
    summary = folder.summary()
    assert summary is not None
    assert (summary["outcome"], summary["rounds"], summary["abandoned"]) == (outcome, rounds, abandoned)
    assert (summary["best"] and summary["best"]["round"]) == best


def test_exclusions_are_counted_over_the_attacked_rounds() -> None:
    """Mean sites a round, by what they were, over all rounds from the first attacked one."""
    lines = [
        line(1, excluded={"0": "conflict", "3": "norm"}),
        line(2, abandoned="late", excluded={"1": "corrupt"}),
        line(3, excluded={"0": "conflict", "2": "conflict"}),
        line(4, excluded={"2": "conflict"}),
    ]
    facts = attack_facts(lines, "zero", [2, 3], 2)
    assert facts == {"name": "zero", "members": [2, 3], "attackers_excluded": 2 / 3, "honest_excluded": 2 / 3}


def test_rounds_that_an_attack_brought_down_count() -> None:
    """Too few were left: the round was abandoned, and whom it left out is counted; one without any update is not."""
    lines = [
        line(1), line(2, abandoned="too few", excluded={"3": "zero"}), line(3, abandoned="3 in a row", committed=[]),
    ]  # fmt: skip
    facts = attack_facts(lines, "zero", [3], 2)
    assert (facts["attackers_excluded"], facts["honest_excluded"]) == (1, 0)


def test_an_attack_that_never_began_excluded_nobody() -> None:
    """The run ended before its first attacked round."""
    facts = attack_facts([line(1, excluded={"0": "norm"})], "zero", [0], 5)
    assert (facts["attackers_excluded"], facts["honest_excluded"]) == (0, 0)
