"""Hydra's multirun without Hydra's own job folders: every combination in turn, each its own run, and one table at the end."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bahefl_flwr.composition import expand_sweep
from bahefl_flwr.errors import BaheflError
from bahefl_flwr.flower_project import FlowerProject
from bahefl_flwr.run_folder import RoundLine, RunFolder, RunSummary
from bahefl_flwr.settings import Settings, check_data_folder, compose
from bahefl_flwr.simulation import simulate

_RESULT = (
    "outcome", "asked", "rounds", "abandoned", "score", "dice", "recall", "test_dice", "test_loss", "seconds", "folder", "error",
)  # fmt: skip
# Only where a job attacks: best round and tested model may lie before the attack, and who was left out says what screening is
# worth.
_ATTACK = ("last_dice", "attackers_out", "honest_out")
# Only where a job plants one: Dice does not show it.
_BACKDOOR = "backdoor_success"


def run_sweep(app: FlowerProject, overrides: Sequence[str], *, verbose: bool = False) -> int:
    """Run every combination of the swept overrides and return 0, or the exit code of the first job that failed.

    All combinations are checked before the first one starts; a job that fails is noted and the next one runs. Results are
    appended to `<run.root>/<UTC time>-sweep.csv` job by job, so that stopping the sweep keeps them; docs/lesion.md and
    docs/attacks.md say what the columns are.

    Raises:
      SettingsError: a combination is not allowed. DataError: its data folder is missing.
    """
    jobs = [(job, compose(job)) for job in expand_sweep(overrides)]
    for _, settings in jobs:
        check_data_folder(settings.data)
    swept = _varying([job for job, _ in jobs])
    table = _Table(_new_file(jobs[0][1]), (*swept, *_attack_columns([settings for _, settings in jobs]), *_RESULT))
    code = 0
    try:
        for number, (job, settings) in enumerate(jobs, 1):
            print(f"job {number} of {len(jobs)}: {' '.join(job)}", flush=True)
            row, job_code = _run_job(app, settings, verbose=verbose)
            values = dict(text.split("=", 1) for text in job)
            table.add({**{key: values[key] for key in swept}, **row})
            code = code or job_code
    finally:
        print(f"\n{table.text()}\n\n{table.path}", flush=True)
    return code


def _run_job(app: FlowerProject, settings: Settings, *, verbose: bool) -> tuple[dict[str, str], int]:
    try:
        folder = simulate(app, settings, verbose=verbose).folder
    except BaheflError as error:
        print(f"error: {error}", flush=True)
        return {"outcome": "failed", "error": str(error).splitlines()[0]}, error.exit_code
    summary = folder.summary() if folder else None
    row = _result(summary, folder)
    if folder and _plants_backdoor(settings):
        row[_BACKDOOR] = _backdoor_success(folder)
    return row, 0


def _attack_columns(runs: Sequence[Settings]) -> tuple[str, ...]:
    shown = _ATTACK if any(settings.attack.name != "none" for settings in runs) else ()
    return (*shown, _BACKDOOR) if any(map(_plants_backdoor, runs)) else shown


def _plants_backdoor(settings: Settings) -> bool:
    return settings.attack.name.startswith("backdoor")


def _backdoor_success(folder: RunFolder) -> str:
    """Measured on the model that the run chose, which a simulation's sites keep; nothing where the run came to none."""
    # Both take seconds to import, torch among it.
    from bahefl_flwr.attack.measuring import backdoor_success
    from bahefl_flwr.trained import open_trained

    try:
        trained = open_trained(folder.path)
        return f"{backdoor_success(trained.network(), trained.run.settings):.2f}"
    except BaheflError as error:
        print(f"the backdoor cannot be measured: {error}", flush=True)
        return ""


def _result(summary: RunSummary | None, folder: RunFolder | None) -> dict[str, str]:
    row = {"outcome": "completed", "folder": str(folder.path if folder else "")}
    if summary is None or folder is None:
        return row
    row |= {"outcome": summary["outcome"], "rounds": str(summary["rounds"]), "abandoned": str(summary["abandoned"])}
    row["asked"] = str(summary.get("asked", ""))
    row["seconds"] = f"{summary['seconds']:.1f}"
    if (best := summary["best"]) is not None:
        row |= {name: f"{best[name]:.4f}" for name in ("score", "dice", "recall") if name in best}
    # A figure that is not finite is null in the file.
    row |= {f"test_{name}": f"{value:.4f}" for name in ("dice", "loss") if (value := summary["test"].get(name)) is not None}
    if (attack := summary.get("attack")) is not None:
        row |= {"attackers_out": f"{attack['attackers_excluded']:.2f}", "honest_out": f"{attack['honest_excluded']:.2f}"}
        row["last_dice"] = _last_dice(folder.metrics())
    return row


def _last_dice(lines: Sequence[RoundLine]) -> str:
    """On the validation parts, after the last round that was measured; nothing where none was."""
    measured = [line["validation"]["dice"] for line in lines if "dice" in line["validation"]]
    return f"{measured[-1]:.4f}" if measured else ""


def _varying(jobs: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Keys whose value is not the same in all jobs; with a single job, all of its keys."""
    columns = [[text.split("=", 1) for text in column] for column in zip(*jobs, strict=True)]
    return tuple(column[0][0] for column in columns if len(jobs) == 1 or len({value for _, value in column}) > 1)


def _new_file(settings: Settings) -> Path:
    root = Path(settings.run.root).expanduser().absolute()
    root.mkdir(parents=True, exist_ok=True)
    return root / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-sweep.csv"


class _Table:
    """Rows of text that are on disk as soon as they are added."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self._rows: list[list[str]] = []
        self._append(list(columns))

    def add(self, row: Mapping[str, str]) -> None:
        """Append a row to the file; a column that `row` lacks stays empty."""
        self._append([row.get(column, "") for column in self._rows[0]])

    def _append(self, row: list[str]) -> None:
        self._rows.append(row)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(row)

    def text(self) -> str:
        """Aligned columns; folders and errors are in the file."""
        kept = [index for index, name in enumerate(self._rows[0]) if name not in ("folder", "error")]
        shown = [[row[index] for index in kept] for row in self._rows]
        widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)
