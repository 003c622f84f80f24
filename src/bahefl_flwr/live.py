"""What a run shows while it runs: one row a round, and the result at the end. The only user of rich beside cli.py.

Reads the records of run_folder.py; measures and decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

from bahefl_flwr.lesion.metrics import collapse
from bahefl_flwr.run_folder import RoundLine, RunSummary, attack_told, best_told, fewer_told, lost_how, of_sites, outcome_told

# Heading and width; rows are printed one by one, so that a log file and a terminal show the same columns.
_COLUMNS = (
    ("round", 5),
    ("coordinator", 11),
    ("updates", 7),
    ("train loss", 10),
    ("val loss", 8),
)
_COSTS = (("seconds", 8), ("gas", 9))
# Our own application's; another one's are whatever its sites report.
_FIGURES = ("dice", "recall", "score")
_MOST_FIGURES = 4
_NO_FIGURES = ("loss", "num-examples", "model-round")
_NARROWEST = 6


class LiveView:
    """Prints a run's progress: a table that grows by a row a round; on a terminal in colour, with a line for the present step.

    Args:
      console: to print on, standard output if not given. quiet: print nothing there.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(highlight=False, quiet=quiet)
        self._status: Status | None = None
        self._figures: tuple[str, ...] | None = None
        self._best = float("-inf")

    def say(self, text: str) -> None:
        """Print one line of news, e.g. a replaced coordinator."""
        self._print(Text(text))

    def step(self, text: str) -> None:
        """Show what is being waited for, on a terminal only."""
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(Text(text))
            self._status.start()
        self._status.update(Text(text))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Show this package's log here meanwhile: warnings as lines of news, everything else as the present step."""
        logger, handler = logging.getLogger("bahefl_flwr"), _Handler(self)
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            self.close()
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate

    def round(self, line: RoundLine) -> None:
        """Add the row of a round that ended; below it, why an update was left out, and whether the model collapsed."""
        if self._figures is None:
            self._figures = shown_figures(line["validation"])
            self._print(Text("  ".join(name.rjust(width) for name, width in self._columns()), style="bold"))
        cells = "  ".join(c.rjust(w) for c, (_, w) in zip(_cells(line, self._figures), self._columns(), strict=True))
        self._print(Text(cells, style=self._style(line)))
        if line["abandoned"]:
            self._print(Text(f"       {lost_how(line)}: {line['abandoned']}", style="red"))
        for index, reason in line["excluded"].items():
            self._print(Text(f"       site {index} left out: {reason}", style="yellow"))
        for fewer in fewer_told(line):
            self._print(Text(f"       {fewer}", style="yellow"))
        if answer := collapse(line["validation"]):
            advice = "if the next rounds do so too, lower train.lr or train.dice_early"
            self._print(Text(f"       collapsed: the model answers {answer} for every pixel; {advice}", style="red"))

    def _columns(self) -> tuple[tuple[str, int], ...]:
        figures = [(name.replace("dice", "Dice"), max(_NARROWEST, len(name))) for name in self._figures or ()]
        return (*_COLUMNS, *figures, *_COSTS)

    def _style(self, line: RoundLine) -> str:
        score = line["validation"].get("score")
        if line["abandoned"] or score is None or score <= self._best:
            return ""
        self._best = score
        return "green"

    def finish(self, summary: RunSummary, folder: Path, report: Path | None) -> None:
        """Print the result and where everything lies."""
        self.close()
        for name, value in _result_rows(summary, folder, report):
            self._print(Text(f"{name:<9}", style="bold") + Text(value))

    def _print(self, text: Text) -> None:
        # A log file may claim to be 80 columns wide; a broken row or path is of no use to anybody.
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back. Idempotent."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class _Handler(logging.Handler):
    def __init__(self, view: LiveView) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._view.say(record.getMessage())
        else:
            self._view.step(record.getMessage())


def shown_figures(validation: Mapping[str, float]) -> tuple[str, ...]:
    """Names of the figures of a validation that have a column: our own application's, or the first few of another one's."""
    if not validation or set(_FIGURES) <= set(validation):
        return _FIGURES
    return tuple(name for name in validation if name not in _NO_FIGURES)[:_MOST_FIGURES]


def _cells(line: RoundLine, figures: Sequence[str]) -> list[str]:
    validation = line["validation"]
    # A replaced coordinator shows as 2+1: site 2, after one failed attempt.
    attempt = f"+{line['attempt']}" if line["attempt"] else ""
    return [
        str(line["round"]),
        f"{line['coordinator']['index']}{attempt}",
        f"{len(line['included'])}/{len(line['committed'])}",
        _number(line["train_loss"]),
        *(_number(validation.get(name)) for name in ("loss", *figures)),
        _number(line["seconds"].get("total"), digits=1),
        f"{line['gas'].get('total', 0):,}",
    ]


def _number(value: float | None, *, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _result_rows(summary: RunSummary, folder: Path, report: Path | None) -> list[tuple[str, str]]:
    # Why a run failed is the error that ends the command: said once, there.
    reason = summary["reason"] if summary["outcome"] == "completed" else ""
    rows = [("run", outcome_told({**summary, "reason": reason}))]
    if (best := summary["best"]) is not None:
        rows.append(("best", f"round {best['round']}: {best_told(best)} (validation)"))
    if test := summary["test"]:
        names = [name for name in ("dice", "precision", "recall", "loss") if name in test]
        if "dice" not in test:
            names = ["loss", *(name for name in test if name not in _NO_FIGURES)] if "loss" in test else []
        fewer = of_sites(summary.get("tested"))
        rows.append(("test", ", ".join([*(f"{name} {test[name]:.4f}" for name in names), *([f"of {fewer}"] if fewer else [])])))
    if attack := summary.get("attack"):
        rows.append(("attack", attack_told(attack)))
    if ledger := summary.get("ledger"):
        rows.append(("keys", f"{ledger['key_mode']}; {ledger['account_keys']}"))
        rows.append(("ledger", f"contract {ledger['contract']} on chain {ledger['chain_id']}"))
    rows.append(("folder", str(folder)))
    if report is not None:
        rows.append(("report", str(report)))
    return rows
