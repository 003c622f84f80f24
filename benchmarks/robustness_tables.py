"""The robustness benchmark's results as tables of docs/robustness.md. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from document import table, write_between_markers
from robustness_attacks import ADAPTIVE, ATTACKS, BACKDOORS
from robustness_defences import DEFENCES, OURS

Result = dict[str, Any]

ALPHA: Final = 0.5
_SHORT: Final = {(1, 0): "10 %", (3, 0): "30 %", (5, 6): "50 %, from round 6", (5, 0): "50 %, from round 0"}
_CLASSIC: Final = tuple(name for name in ATTACKS if name not in {*ADAPTIVE, *BACKDOORS})


def write_tables(results: Path, document: Path) -> None:
    """Replace the tables of the document."""
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    write_between_markers(document, "clean", clean_table(runs))
    write_between_markers(document, "summary", summary_table(runs))
    write_between_markers(document, "attacks", "\n\n".join(attack_tables(runs)))


def clean_table(runs: Sequence[Result]) -> str:
    """Without attack: accuracy, honest sites left out, rounds without update, and conflicts."""
    quiet = [r for r in runs if r["attack"] == "none"]
    rows = []
    for alpha in sorted({r["alpha"] for r in quiet}, reverse=True):
        for defence in DEFENCES:
            found = _of(quiet, alpha=alpha, defence=defence)
            if found:
                left_out = _part(found, "honest_out", "honest") if any(r["honest"] for r in found) else "-"
                cells = [
                    f"{_accuracy(found):.3f}",
                    left_out,
                    *(str(sum(r[name] for r in found)) for name in ("conflicts", "held")),
                ]
                rows.append([f"{alpha:g}", defence, str(len(found)), *cells])
    return table(("Dirichlet", "defence", "seeds", "accuracy", "honest updates left out", "conflicts", "rounds held"), rows)


def summary_table(runs: Sequence[Result]) -> str:
    """Mean and worst attack, as parts of what FedAvg reaches on the same seeds when nobody attacks."""
    head = ("hostile", "attacks", *DEFENCES)
    return table(head, _summary_rows(runs))


def _summary_rows(runs: Sequence[Result]) -> Iterator[list[str]]:
    seeds = {r["seed"] for r in runs if r["attack"] != "none"}
    clean = _accuracy([r for r in _of(runs, attack="none", alpha=ALPHA, defence="FedAvg") if r["seed"] in seeds])
    kinds = (("14 classic", _CLASSIC), ("4 adaptive", ADAPTIVE), ("3 backdoors", BACKDOORS))
    for cell, name in _SHORT.items():
        for kind, attacks in kinds:
            yield [name, kind, *(_mean_and_worst(_cell(runs, cell), defence, attacks, clean) for defence in DEFENCES)]


def _mean_and_worst(runs: Sequence[Result], defence: str, attacks: Iterable[str], clean: float) -> str:
    parts = [_accuracy(found) / clean for a in attacks if (found := _of(runs, attack=a, defence=defence))]
    return f"{100 * mean(parts):.0f} / {100 * min(parts):.0f} %" if parts else ""


def attack_tables(runs: Sequence[Result]) -> Iterator[str]:
    """One table per number of attackers; accuracy, and for ours the parts of attackers and of honest sites left out."""
    for cell, name in _SHORT.items():
        inside = _cell(runs, cell)
        shown = [d for d in DEFENCES if _of(inside, defence=d)]
        rows = [[attack, *(_entry(_of(inside, attack=attack, defence=d)) for d in shown)] for attack in ATTACKS]
        yield f"**{name} hostile**\n\n{table(('attack', *shown), rows)}"


def _entry(runs: Sequence[Result]) -> str:
    if not runs:
        return ""
    text = f"{_accuracy(runs):.2f}"
    if "backdoor" in runs[0]:
        text += f" (backdoor {mean(r['backdoor'] for r in runs):.2f})"
    if runs[0]["defence"] in OURS:
        held = sum(r["held"] for r in runs)
        out = [_part(runs, "poisoned_out", "poisoned"), _part(runs, "honest_out", "honest")]
        text += f"; {out[0]}, {out[1]}" + (f", {held} held" if held else "")
    return text


def _cell(runs: Iterable[Result], cell: tuple[int, int]) -> list[Result]:
    return [r for r in runs if r["attack"] != "none" and (r["hostile"], r["start"]) == cell]


def _of(runs: Iterable[Result], **values: object) -> list[Result]:
    return [r for r in runs if all(r[name] == value for name, value in values.items())]


def _accuracy(runs: Sequence[Result]) -> float:
    return mean(r["accuracy"] for r in runs)


def _part(runs: Sequence[Result], some: str, of: str) -> str:
    whole = sum(r[of] for r in runs)
    return f"{100 * sum(r[some] for r in runs) / whole:.1f} %" if whole else "-"
