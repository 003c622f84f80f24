"""`report.html` of a run: one self-contained page of figures and tables. The only user of matplotlib.

Reads `metrics.jsonl` and `summary.json` and nothing else, so that it can be drawn again at any time, on any machine.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import StoreError
from bahefl_flwr.run_folder import RoundLine, RunFolder, RunSummary

# In the order of a round; a phase that a line does not have takes no time.
_PHASES = ("open", "evaluate", "train", "encrypt", "commit", "upload", "aggregate", "verify", "finalize")
_BYTES = ("update", "aggregate", "share")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
img { max-width: 100%; height: auto } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd } code { font-size: .9em }
"""


def write(folder: RunFolder) -> Path:
    """Draw the report of a run that has ended and return its path.

    Raises:
      StoreError: the folder has no summary yet, or its files are damaged.
    """
    summary = folder.summary()
    if summary is None:
        raise StoreError(f"{folder.path} has no summary.json: the run has not ended, or was killed")
    path = folder.path / "report.html"
    atomic_write(path, _page(folder.path.name, summary, folder.metrics()).encode(), mode=0o644)
    return path


def _page(name: str, summary: RunSummary, lines: Sequence[RoundLine]) -> str:
    title = f"Run {html.escape(name)}"
    figures = "".join(_section(heading, draw, lines) for heading, draw in _FIGURES) if lines else "<p>No round ended.</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1>{_table(('', ''), _facts(summary))}{figures}{_test(summary)}"
        f"<h2>Left out and abandoned</h2>{_incidents(lines)}</body></html>\n"
    )


def _facts(summary: RunSummary) -> list[tuple[str, str]]:
    facts = [
        ("experiment", summary["experiment"]),
        ("outcome", f"{summary['outcome']} {summary['reason']}".strip()),
        ("rounds finalised / abandoned", f"{summary['rounds']} / {summary['abandoned']}"),
        ("wall time", f"{summary['seconds']:.1f} s"),
    ]
    if (best := summary["best"]) is not None:
        figures = f"score {best['score']:.4f}, pooled Dice {best['dice']:.4f}, recall {best['recall']:.4f}"
        facts.append(("best round on validation", f"round {best['round']}: {figures}"))
    if ledger := summary.get("ledger"):
        facts += [
            ("keys", f"{ledger['key_mode']}; accounts: {ledger['account_keys']}"),
            ("ledger", f"contract {ledger['contract']} on chain {ledger['chain_id']}, block {ledger['block_number']}"),
            ("final model, SHA-256", ledger["model_digest"]),
        ]
    return facts


def _test(summary: RunSummary) -> str:
    if not summary["test"]:
        return ""
    # Counts are exact and shown so; ratios get four digits.
    rows = [(name, str(value) if isinstance(value, int) else f"{value:.4f}") for name, value in summary["test"].items()]
    return f"<h2>Final model on the test parts, pooled over sites</h2>{_table(('', ''), rows)}"


def _convergence(axes: Axes, lines: Sequence[RoundLine]) -> None:
    for name in ("dice", "recall", "score"):
        measured = [line for line in lines if name in line["validation"]]
        axes.plot([line["round"] for line in measured], [line["validation"][name] for line in measured], "o-", ms=3, label=name)
    axes.set_ylim(0, 1)
    axes.set_ylabel("validation, pooled over sites")
    axes.legend(loc="lower right")


def _loss(axes: Axes, lines: Sequence[RoundLine]) -> None:
    axes.plot(*_series(lines, lambda line: line["train_loss"]), marker="o", ms=3, label="training")
    axes.plot(*_series(lines, lambda line: line["validation"].get("loss")), marker="o", ms=3, label="validation")
    axes.set_ylabel("loss")
    axes.legend()


def _seconds(axes: Axes, lines: Sequence[RoundLine]) -> None:
    _stack(axes, lines, "seconds", _PHASES, scale=1.0)
    axes.set_ylabel("seconds")


def _bytes(axes: Axes, lines: Sequence[RoundLine]) -> None:
    _stack(axes, lines, "bytes", _BYTES, scale=1e6)
    axes.set_ylabel("MB, all sites")


def _coordinators(axes: Axes, lines: Sequence[RoundLine]) -> None:
    rounds, sites = _series(lines, lambda line: line["coordinator"]["index"])
    axes.scatter(rounds, sites, c=["tab:red" if line["attempt"] else "tab:blue" for line in lines])
    axes.set_ylabel("site (red: took over)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


_FIGURES: tuple[tuple[str, Callable[[Axes, Sequence[RoundLine]], None]], ...] = (
    ("Convergence", _convergence),
    ("Loss", _loss),
    ("Time per round", _seconds),
    ("Bytes per round", _bytes),
    ("Who coordinated", _coordinators),
)


def _section(heading: str, draw: Callable[[Axes, Sequence[RoundLine]], None], lines: Sequence[RoundLine]) -> str:
    # Figure without pyplot: no global state, no display, safe in the thread that Flower runs a ServerApp in.
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, lines)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    png = base64.b64encode(buffer.getvalue()).decode()
    return f'<h2>{heading}</h2><img alt="{heading}" src="data:image/png;base64,{png}">'


def _series(lines: Sequence[RoundLine], value: Callable[[RoundLine], float | None]) -> tuple[list[int], list[float]]:
    """Round numbers and values of the lines that have one."""
    pairs = [(line["round"], v) for line in lines if (v := value(line)) is not None]
    return [number for number, _ in pairs], [v for _, v in pairs]


def _stack(axes: Axes, lines: Sequence[RoundLine], field: str, known: Sequence[str], *, scale: float) -> None:
    found = {name for line in lines for name in line[field]} - {"total"}
    names = [name for name in known if name in found] + sorted(found.difference(known))
    rounds, bottom = [line["round"] for line in lines], [0.0] * len(lines)
    for name in names:
        heights = [line[field].get(name, 0) / scale for line in lines]
        axes.bar(rounds, heights, bottom=bottom, label=name)
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    if names:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _incidents(lines: Sequence[RoundLine]) -> str:
    rows = [(str(line["round"]), "whole round", line["abandoned"]) for line in lines if line["abandoned"]]
    rows += [(str(line["round"]), f"site {index}", reason) for line in lines for index, reason in line["excluded"].items()]
    return _table(("round", "what", "why"), sorted(rows, key=lambda row: int(row[0]))) if rows else "<p>Nothing.</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    heading = cells("th", head) if any(head) else ""
    return f"<table>{heading}{''.join(cells('td', row) for row in rows)}</table>"
