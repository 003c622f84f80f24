"""`report.html`: one self-contained page. Text and tables; pictures come drawn, and go in as data."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence

from bahefl_flwr.lesion.metrics import Evaluation, collapse
from bahefl_flwr.report.facts import Facts, Figure
from bahefl_flwr.report.progress import BYTES, PHASES, segments_lesions
from bahefl_flwr.report.screening import (
    CONFLICT_HEAD,
    ROUND_HEAD,
    SCREENING_HEAD,
    conflict_rows,
    is_screened,
    round_rows,
    screening_rows,
)
from bahefl_flwr.report.style import DPI
from bahefl_flwr.report.tables import SITES_HEAD, TABLE_1_HEAD, Row, counts_of, site_rows, table_1
from bahefl_flwr.run_folder import (
    RoundLine,
    abandoned_rounds,
    attack_told,
    best_told,
    fewer_told,
    lost_how,
    of_sites,
    outcome_told,
)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444; max-width: 46rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd } td { overflow-wrap: anywhere }
.note { background: #fff6e0; border-left: 4px solid #e69f00; padding: .5rem 1rem }
@media print { body { max-width: none } figure, table { break-inside: avoid } }
"""


def page(facts: Facts, figures: Sequence[Figure]) -> str:
    """The whole page."""
    title = f"Run {html.escape(facts.name)}"
    body = "".join(_sections(facts, {figure.name: figure for figure in figures}))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1>{body}</body></html>\n"
    )


def _sections(facts: Facts, figures: Mapping[str, Figure]) -> Iterator[str]:
    yield _table(("", ""), _facts(facts))
    yield from (f'<p class="note">{html.escape(note)}</p>' for note in _notes(facts))
    if test := _test(facts):
        yield f"<h2>The best round's model on the test parts, pooled over sites (table 1)</h2>{test}"
    yield from (_figure(figure) for name, figure in figures.items() if name not in ("sites", "figure6-samples"))
    if facts.lines:
        yield f"<h2>Time and bytes by phase</h2>{_costs(facts.lines)}"
    yield f"<h2>Keys</h2>{_keys(facts)}"
    yield f"<h2>Left out, disputed, abandoned, collapsed</h2>{_incidents(facts.lines)}"
    if is_screened(facts.lines):
        yield f"<h2>What screening saw</h2>{_screening(facts.lines)}"
    yield f"<h2>Per site</h2>{_sites(facts)}"
    yield from (_figure(figures[name]) for name in ("sites", "figure6-samples") if name in figures)
    if "figure6-samples" not in figures and facts.lines and segments_lesions(facts.lines):
        yield "<p>Slices with contours are added by <code>bahefl report RUN</code>: the driver of a run holds no model.</p>"


def _facts(facts: Facts) -> list[Row]:
    summary, settings, lines = facts.summary, facts.settings, facts.lines
    finalised = sum(bool(line["finalised"]) for line in lines)
    rows: list[Row] = [("experiment", summary["experiment"] if summary else settings.experiment if settings else "unknown")]
    if summary is None:
        wanted = f" of {settings.federation.rounds}" if settings else ""
        rows.append(("outcome", f"not ended: {finalised}{wanted} rounds finalised so far"))
    else:
        rows.append(("outcome", outcome_told(summary)))
    rows.append(("rounds finalised / abandoned", f"{finalised} / {abandoned_rounds(lines)}"))
    if summary:
        rows.append(("wall time", f"{summary['seconds']:.1f} s"))
        if (best := summary["best"]) is not None:
            rows.append(("best round on validation", f"round {best['round']}: {best_told(best)}"))
        if attack := summary.get("attack"):
            rows.append(("attack", attack_told(attack)))
        if (chosen := summary.get("chosen")) and chosen["model_digest"]:
            rows.append(("model, SHA-256", f"{chosen['model_digest']}, after round {chosen['round']}"))
        if ledger := summary.get("ledger"):
            where = f"contract {ledger['contract']} on chain {ledger['chain_id']}, block {ledger['block_number']}"
            rows.append(("ledger", where))
    if settings and segments_lesions(lines):
        d = settings.data
        rows.append(("data", f"{d.kind}, {d.image_size_px} px, split by {d.split}, Dirichlet alpha {d.alpha:g}"))
    return rows


def _notes(facts: Facts) -> Iterator[str]:
    """What a reader must know before the figures."""
    if facts.summary and (fewer := of_sites(facts.summary.get("tested"))):
        yield f"The figures on the test parts are of {fewer}: the others gave none that could be added."
    if not segments_lesions(facts.lines):
        return
    if facts.settings and facts.settings.data.kind == "phantom":
        yield "Generated phantoms, not patients: these figures say nothing about real CT."
    elif facts.settings and facts.settings.data.split == "slice":
        yield "Split by slice, as in the paper: neighbouring slices of a scan are in training and test; new patients are harder."
    if dead := [line["round"] for line in facts.lines if collapse(line["validation"])]:
        yield f"Collapsed in round(s) {', '.join(map(str, dead))}: the model gave the same answer for every pixel."


def _test(facts: Facts) -> str:
    test = facts.summary["test"] if facts.summary else {}
    if not test:
        return ""
    rows = [(name, str(v) if isinstance(v, int) else "" if v is None else f"{v:.4f}") for name, v in test.items()]
    named = f"<details><summary>all figures</summary>{_table(('', ''), rows)}</details>"
    if not (classes := table_1(test)):
        return _table(("", ""), rows)
    hd95 = (
        "<p>Pooled over all pixels. HD95: the larger of the two directed 95th percentiles, mean over the slices with lesion in "
        f"truth and prediction. {_one_empty(test)}</p>"
    )
    return _table(TABLE_1_HEAD, classes) + hd95 + named


def _one_empty(test: Mapping[str, float]) -> str:
    if not {"num-missed", "num-spurious", "mean-penalised-hd95-px"} <= test.keys():
        return ""
    figure = test["mean-penalised-hd95-px"]
    counted = "" if figure is None else f"; with the image diagonal for these it is {figure:.2f} px"
    return f"{test['num-missed']} missed and {test['num-spurious']} spurious slices have no distance{counted}."


def _costs(lines: Sequence[RoundLine]) -> str:
    """Mean per round and share of the whole."""
    total = sum(line["seconds"].get("total", 0.0) for line in lines)
    seconds = {name: sum(line["seconds"].get(name, 0.0) for line in lines) for name in _names(lines, "seconds", PHASES)}
    rows = [
        (PHASES.get(name, (name, ""))[0], f"{spent / len(lines):.2f}", f"{100 * spent / total:.1f} %" if total else "")
        for name, spent in seconds.items()
    ]
    sizes = {name: sum(line["bytes"].get(name, 0) for line in lines) for name in _names(lines, "bytes", BYTES)}
    sent = [
        (BYTES.get(name, (name, ""))[0], f"{size / len(lines) / 1e6:.2f}", f"{size / 1e6:.1f}") for name, size in sizes.items()
    ]
    gas = sum(line["gas"].get("total", 0) for line in lines)
    return (
        _table(("phase", "mean seconds per round", "share of all time"), [*rows, ("total", f"{total / len(lines):.2f}", "")])
        + _table(("objects", "mean MB per round, all sites", "MB in all"), sent)
        + f"<p>Gas: {gas:,}, {gas // len(lines):,} a round.</p>"
    )


def _names(lines: Sequence[RoundLine], field: str, known: Mapping[str, object]) -> list[str]:
    found = {name for line in lines for name in line[field]} - {"total"}
    return [name for name in known if name in found] + sorted(found.difference(known))


def _keys(facts: Facts) -> str:
    """Which keys opened which rounds, as far as the lines tell."""
    ledger = facts.summary.get("ledger") if facts.summary else None
    mode = f"<p>{html.escape(ledger['key_mode'])}; accounts: {html.escape(ledger['account_keys'])}</p>" if ledger else ""
    epochs: dict[int, list[RoundLine]] = {}
    for line in facts.lines:
        if "epoch" in line:
            epochs.setdefault(line["epoch"], []).append(line)
    rows = [
        (str(epoch), f"{lines[0]['round']} to {lines[-1]['round']}", _openers(lines)) for epoch, lines in sorted(epochs.items())
    ]
    return mode + (_table(("key epoch", "rounds", "sites that opened"), rows) if rows else "")


def _openers(lines: Sequence[RoundLine]) -> str:
    counts: dict[int, int] = {}
    for line in lines:
        for member in line.get("quorum", ()):
            counts[member] = counts.get(member, 0) + 1
    return ", ".join(f"site {member} ({count}x)" for member, count in sorted(counts.items()))


def _screening(lines: Sequence[RoundLine]) -> str:
    every = f"<details><summary>every update</summary>{_table(SCREENING_HEAD, screening_rows(lines))}</details>"
    conflicts = conflict_rows(lines)
    votes = f"<h3>Conflicts, and who voted for which half</h3>{_table(CONFLICT_HEAD, conflicts)}" if conflicts else ""
    return _table(ROUND_HEAD, round_rows(lines)) + votes + every


def _incidents(lines: Sequence[RoundLine]) -> str:
    rows = [row for line in lines for row in _incidents_of(line)]
    return _table(("round", "what", "why"), rows) if rows else "<p>Nothing.</p>"


def _incidents_of(line: RoundLine) -> Iterator[Row]:
    number = str(line["round"])
    for index, reason in line["excluded"].items():
        yield number, f"update of site {index} left out", reason
    for index in line.get("declined", ()):
        yield number, f"site {index} declined", "it could not train or encrypt"
    for index in line.get("disputed", ()):
        yield number, f"key holder {index} disputed", "its decryption share was found wrong"
    if line["attempt"]:
        yield (
            number,
            f"site {line['coordinator']['index']} took over as coordinator",
            f"after {line['attempt']} failed attempt(s)",
        )
    if answer := collapse(line["validation"]):
        yield (
            number,
            "collapsed",
            f"the model answers {answer} for every pixel; lower train.lr or train.dice_early",
        )
    if line["abandoned"]:
        yield number, f"whole round {lost_how(line)}", line["abandoned"]
    for fewer in fewer_told(line):
        yield number, fewer, "what sites had told an earlier driver, or did not tell, is not in them"
    for note in line.get("notes", ()):
        yield number, "note", note


def _sites(facts: Facts) -> str:
    """Test results where they were measured again, else the last validation of each site, where lines have it."""
    if facts.chosen:
        return f"<p>{_again(facts)}</p>{_table(SITES_HEAD, site_rows(facts.chosen.sites))}"
    measured = [line for line in facts.lines if line.get("sites")]
    if not measured:
        again = " <code>bahefl report RUN</code> measures the model on each partition of a simulation."
        return f"<p>Not recorded.{again if segments_lesions(facts.lines) else ''}</p>"
    last = measured[-1]
    names = list(dict.fromkeys(name for figures in last["sites"].values() for name in figures))
    rows = [(site, *(_number(figures.get(name)) for name in names)) for site, figures in last["sites"].items()]
    return f"<p>Round {last['round']}:</p>" + _table(("site", *names), rows)


def _again(facts: Facts) -> str:
    """Where the figures come from, and whether they add up to what the sites said."""
    assert facts.chosen
    test = facts.summary["test"] if facts.summary else {}
    text = (
        "The best round's model, measured again on this machine; numbered by data partition, which need not be the index on "
        "the ledger."
    )
    if not {"tp", "fp", "fn", "tn"} <= test.keys():
        return text
    same = sum(facts.chosen.sites.values(), Evaluation()).pixels == counts_of(test)
    more = "pixel by pixel the sum is what the sites reported" if same else "the sum differs from what the sites reported"
    return f"{text} {more.capitalize()}."


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _shown_width(png: bytes) -> int:
    """Every figure in the same scale, letters of equal size: 130 of its dots an inch. The width stands in the PNG's header."""
    return int.from_bytes(png[16:20], "big") * 130 // DPI


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    return (
        f"<h2>{html.escape(figure.heading)}</h2><figure>"
        f'<img alt="{html.escape(figure.heading)}" width="{_shown_width(figure.png)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    heading = cells("th", head) if any(head) else ""
    return f"<table>{heading}{''.join(cells('td', row) for row in rows)}</table>"
