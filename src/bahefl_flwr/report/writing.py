"""Writes the report of a run, ended or not: `report.html`, and `report/` with each figure as PNG and each table as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import StoreError
from bahefl_flwr.report import outcome, progress, tables
from bahefl_flwr.report.facts import Facts, Figure, read
from bahefl_flwr.report.outcome import ChosenModel
from bahefl_flwr.report.page import page
from bahefl_flwr.report.screening import SCREENING_HEAD, has_figures, screening_picture, screening_rows
from bahefl_flwr.run_folder import RunFolder

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
    if lines and not progress.segments_lesions(lines):
        yield Figure(
            name="figure3-convergence", heading="Convergence", png=progress.other_convergence(lines),
            caption="What the sites report of the model after each round, by their examples.",
        )  # fmt: skip
    elif lines:
        yield Figure(
            name="figure3-convergence", heading="Convergence (figure 3)", png=progress.convergence(lines),
            caption="The model after each round on the sites' validation parts, pixels pooled: (a) Dice, (b) loss, (c) recall.",
        )  # fmt: skip
    if {"tp", "fp", "fn", "tn"} <= test.keys():
        yield Figure(
            name="figure4-confusion", heading="Pixel confusion matrix (figure 4)", png=outcome.confusion(tables.counts_of(test)),
            caption="The best round's model on the test parts of all sites; pixels, and their share of the true class.",
        )  # fmt: skip
    if lines:
        yield Figure(
            name="figure5-time", heading="Time per round (figure 5)", png=progress.time_per_round(lines), caption=_time(facts)
        )
        yield Figure(
            name="bytes", heading="Bytes per round", png=progress.bytes_per_round(lines),
            caption="Encrypted objects that the sites put into the store, summed over the sites.",
        )  # fmt: skip
        yield Figure(
            name="participation", heading="Who did what", png=progress.participation(lines),
            caption="A row a site, a column a round: whose update was added, who coordinated, and who opened the sum.",
        )  # fmt: skip
        if has_figures(lines):
            yield Figure(
                name="screening", heading="Screening", png=screening_picture(lines),
                caption="From the opened sketches, a line a site: (a) norm of its update, as a multiple of the usual one; (b) "
                "mean cosine to the other updates; a cross where it was left out. (c) How far the two camps of the best "
                "split lie apart; above the dashed line they are a conflict. Where the line is broken, no split was tested.",
            )  # fmt: skip
    if facts.chosen:
        yield Figure(
            name="sites", heading="Results per site", png=outcome.per_site(facts.chosen.sites),
            caption="The best round's model on each site's own test part.",
        )  # fmt: skip
        if facts.chosen.samples:
            yield Figure(
                name="figure6-samples", heading="Samples (figure 6)", png=outcome.samples(facts.chosen.samples),
                caption=_SAMPLES,
            )  # fmt: skip


def _time(facts: Facts) -> str:
    learning = progress.share_of_learning(facts.lines)
    if learning is None:
        return "No time was measured."
    return (
        f"Wall time by phase: {100 * learning:.0f} % is training and evaluation, {100 * (1 - learning):.0f} % encryption, "
        "ledger, store, verification and opening."
    )


def _tables(facts: Facts) -> dict[str, bytes]:
    files = {"rounds.csv": tables.rounds_csv(facts.lines)}
    if rows := screening_rows(facts.lines):
        files["screening.csv"] = tables.to_csv(SCREENING_HEAD, rows)
    if facts.summary and (rows := tables.table_1(facts.summary["test"])):
        files["table1.csv"] = tables.to_csv(tables.TABLE_1_HEAD, [[cell.replace(",", "") for cell in row] for row in rows])
    if facts.chosen:
        files["sites.csv"] = tables.to_csv(tables.SITES_HEAD, tables.site_rows(facts.chosen.sites))
    return files
