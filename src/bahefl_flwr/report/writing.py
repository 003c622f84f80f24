"""Writes the report of a run, ended or not: `report.html`, and `report/` with each figure as PNG and each table as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import StoreError
from bahefl_flwr.report import outcome, progress, tables
from bahefl_flwr.report.facts import Facts, Figure, read
from bahefl_flwr.report.outcome import ChosenModel
from bahefl_flwr.report.page import page
from bahefl_flwr.report.screening import (
    CONFLICT_HEAD,
    SCREENING_HEAD,
    conflict_rows,
    has_figures,
    screening_picture,
    screening_rows,
)
from bahefl_flwr.run_folder import RoundLine, RunFolder

Lines = Sequence[RoundLine]

_PUBLIC = 0o644
_SAMPLES = (
    "Test slices chosen by rule. Probabilities from 0 (black) to 1 (yellow), by depth of the head; contours of the prediction "
    "(blue) on the truth (red)."
)


def write(folder: RunFolder, chosen: ChosenModel | None = None) -> Path:
    """Draw the report of a run and return the path of its page. An earlier report is replaced.

    Args:
      chosen: the run's model, measured again (chosen_model.measure): adds samples and per-site results.

    Raises:
      StoreError: the run's files are damaged, or the report cannot be written.
    """
    facts = read(folder, chosen)
    figures = list(_figures(facts))
    files = {f"{figure.name}.png": figure.png for figure in figures} | _tables(facts)
    html = folder.path / "report.html"
    try:
        beside = folder.path / "report"
        beside.mkdir(exist_ok=True)
        for name, content in files.items():
            atomic_write(beside / name, content, mode=_PUBLIC)
        atomic_write(html, page(facts, figures).encode(), mode=_PUBLIC)
    except OSError as error:
        raise StoreError(f"the report cannot be written to {folder.path}: {error}") from error
    return html


def _figures(facts: Facts) -> Iterator[Figure]:
    """In the order of the page; numbers are those of the paper."""
    lines, test = facts.lines, facts.summary["test"] if facts.summary else {}
    if lines:
        yield _convergence(lines)
    if {"tp", "fp", "fn", "tn"} <= test.keys():
        yield _confusion(test)
    if lines:
        yield _costs(lines)
        yield from (_bytes(lines), _participation(lines))
    if has_figures(lines):
        yield _screening(lines)
    if facts.chosen:
        yield from _results(facts.chosen)


def _convergence(lines: Lines) -> Figure:
    if not progress.segments_lesions(lines):
        return Figure(
            name="figure3-convergence", heading="Convergence", png=progress.other_convergence(lines),
            caption="What the sites report of the model after each round, by their examples.",
        )  # fmt: skip
    return Figure(
        name="figure3-convergence", heading="Convergence (figure 3)", png=progress.convergence(lines),
        caption="The model after each round on the sites' validation parts, pixels pooled: (a) Dice, (b) loss, (c) recall.",
    )  # fmt: skip


def _confusion(test: Mapping[str, float]) -> Figure:
    return Figure(
        name="figure4-confusion", heading="Pixel confusion matrix (figure 4)", png=outcome.confusion(tables.counts_of(test)),
        caption="The best round's model on the test parts of all sites; pixels, and their share of the true class.",
    )  # fmt: skip


def _costs(lines: Lines) -> Figure:
    heading = "Time per round (figure 5)"
    return Figure(name="figure5-time", heading=heading, png=progress.time_per_round(lines), caption=_time(lines))


def _bytes(lines: Lines) -> Figure:
    return Figure(
        name="bytes", heading="Bytes per round", png=progress.bytes_per_round(lines),
        caption="Encrypted objects that the sites put into the store, summed over the sites.",
    )  # fmt: skip


def _participation(lines: Lines) -> Figure:
    return Figure(
        name="participation", heading="Who did what", png=progress.participation(lines),
        caption="A row a site, a column a round: whose update was added, who coordinated, and who opened the sum.",
    )  # fmt: skip


def _screening(lines: Lines) -> Figure:
    return Figure(
        name="screening", heading="Screening", png=screening_picture(lines),
        caption="From the opened sketches, a line a site: (a) norm of its update, as a multiple of the usual one; (b) its "
        "alignment with what was accepted so far; (c) its mean cosine to the other updates; a cross where it was left out. "
        "(d) How far the two camps of the best split lie apart; where the line is broken, no split was tested. Dashed: what the "
        "rules compare with. In (a) an update is left out below the lowest line and above the highest, and clipped above the one "
        "between; in (b) it is suspected below the line; in (d) the camps are a conflict above it.",
    )  # fmt: skip


def _results(chosen: ChosenModel) -> Iterator[Figure]:
    yield Figure(
        name="sites", heading="Results per site", png=outcome.per_site(chosen.sites),
        caption="The best round's model on each site's own test part.",
    )  # fmt: skip
    if chosen.samples:
        yield Figure(name="figure6-samples", heading="Samples (figure 6)", png=outcome.samples(chosen.samples), caption=_SAMPLES)


def _time(lines: Lines) -> str:
    learning = progress.share_of_learning(lines)
    if learning is None:
        return "No time was measured."
    return (
        f"Wall time by phase: {100 * learning:.0f} % is training and evaluation, {100 * (1 - learning):.0f} % encryption, "
        "ledger, store, verification and opening."
    )


def _tables(facts: Facts) -> dict[str, bytes]:
    files = {"rounds.csv": tables.rounds_csv(facts.lines)}
    if any(line.get("sites") for line in facts.lines):
        files["validation.csv"] = tables.validation_csv(facts.lines)
    if rows := screening_rows(facts.lines):
        files["screening.csv"] = tables.to_csv(SCREENING_HEAD, rows)
    if rows := conflict_rows(facts.lines):
        files["conflicts.csv"] = tables.to_csv(CONFLICT_HEAD, rows)
    if facts.summary and (rows := tables.table_1(facts.summary["test"])):
        files["table1.csv"] = tables.to_csv(tables.TABLE_1_HEAD, [[cell.replace(",", "") for cell in row] for row in rows])
    if facts.chosen:
        files["sites.csv"] = tables.to_csv(tables.SITES_HEAD, tables.site_rows(facts.chosen.sites))
    return files
