"""How well models survive poisoning: attacks, known defences, and our screening, on a toy task that runs on one core.

    python benchmarks/robustness.py --results runs/robustness.jsonl           # ten minutes of CPU; goes on where it stopped
    python benchmarks/robustness.py --results runs/robustness.jsonl --write   # also puts the tables into docs/robustness.md
    python benchmarks/robustness.py --results runs/tuning.jsonl --seeds 0 1 2 3 --clean 0 1 --only "ours, anchor"

Ten sites, 25 rounds, a network of 5018 parameters; the attackers see everything and vote against the honest sites.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, product
from pathlib import Path

import numpy as np
import torch
from robustness_attacks import ATTACKS, BACKDOORS, Sight, poison, triggered
from robustness_defences import DEFENCES, OURS, Defence, Mask, Round, clipped
from robustness_tables import write_tables
from robustness_task import (
    PARAMETERS,
    SITES,
    Digits,
    Examples,
    accuracy,
    batches_of,
    digits,
    initial_model,
    train,
)
from torch import Tensor

ROUNDS = 25
LATE = 6
HELD_OUT = (41, 42, 43)
CLEAN_SEEDS = tuple(range(41, 51))
CLEAN_ALPHAS = (0.5, 0.3, 0.15)
ALPHA = 0.5
# (attackers, first attacked round)
CELLS = ((1, 0), (3, 0), (5, LATE), (5, 0))
_FEW = ("FedAvg", "FLAME", "ours, anchor")
_AT_ONCE = 16
_RUNS_AT_ONCE = 64
_LAST = 3
# Poisoned baselines diverge; numbers stay finite.
_LARGEST_UPDATE = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run: `hostile` sites attack from round `start` (from 0)."""

    attack: str
    hostile: int
    start: int
    defence: str
    seed: int
    alpha: float = ALPHA


@dataclass(slots=True, kw_only=True)
class Run:
    """A run under way."""

    scenario: Scenario
    data: Digits
    defence: Defence
    model: Tensor
    initial: Tensor
    recent: Tensor = field(default_factory=lambda: torch.zeros(PARAMETERS))
    accepted: int = 0
    accuracies: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))

    def hostile(self, number: int) -> Mask:
        """Who attacks in a round; which sites those are follows from the seed."""
        chosen = np.random.RandomState(1000 + self.scenario.seed).permutation(SITES)[: self.scenario.hostile]
        active = self.scenario.attack != "none" and number >= self.scenario.start
        return np.isin(np.arange(SITES), chosen) & active


_COUNTS = ("poisoned", "poisoned_out", "honest", "honest_out", "held", "conflicts")


def fresh(scenario: Scenario) -> Run:
    """A run before its first round."""
    model = initial_model(scenario.seed)
    data = digits(scenario.seed, scenario.alpha)
    return Run(scenario=scenario, data=data, defence=DEFENCES[scenario.defence](), model=model, initial=model.clone())


def advance(runs: Sequence[Run], number: int) -> None:
    """One round of every run."""
    for start in range(0, len(runs), _AT_ONCE):
        bunch = runs[start : start + _AT_ONCE]
        for run, updates in zip(bunch, _trained(bunch, number), strict=True):
            _aggregate(run, updates, number)


def _trained(runs: Sequence[Run], number: int) -> Tensor:
    """Every site's update as its data make it, poisoned or not, (runs, SITES, PARAMETERS)."""
    batches = [_batches(run, site, number) for run in runs for site in range(SITES)]
    together = Examples(images=torch.stack([b.images for b in batches]), labels=torch.stack([b.labels for b in batches]))
    models = torch.stack([run.model for run in runs]).repeat_interleave(SITES, 0)
    return train(models, together).reshape(len(runs), SITES, PARAMETERS)


def _batches(run: Run, site: int, number: int) -> Examples:
    drawn = run.data.pool.at(batches_of(run.data, site, run.scenario.seed, number))
    return poison(ATTACKS[run.scenario.attack].data, drawn) if run.hostile(number)[site] else drawn


def _aggregate(run: Run, updates: Tensor, number: int) -> None:
    hostile = run.hostile(number)
    seen = Round(
        updates=clipped(_attacked(run, updates, hostile, number)),
        model=run.model,
        number=number,
        data=run.data,
        hostile=hostile,
        recent=run.recent,
        drift=run.model - run.initial,
    )
    verdict = run.defence(seen)
    update = torch.nan_to_num(verdict.update)
    length = float(update.norm())
    update = update * min(1.0, _LARGEST_UPDATE / max(length, 1e-12))
    run.model = run.model + update
    if length > 0:
        run.recent = update if run.accepted == 0 else 0.8 * run.recent + 0.2 * update
        run.accepted += 1
    _count(run, verdict.taken, hostile, held=verdict.held, conflict=verdict.conflict)
    if number >= ROUNDS - _LAST:
        run.accuracies.append(accuracy(run.model, run.data.test))


def _attacked(run: Run, updates: Tensor, hostile: Mask, number: int) -> Tensor:
    if not hostile.any():
        return updates
    generator = torch.Generator().manual_seed(1000 * run.scenario.seed + number)
    shape = (int(hostile.sum()), PARAMETERS)
    sight = Sight(
        own=updates[hostile],
        honest=updates[~hostile],
        recent=run.recent if run.accepted else None,
        noise=lambda: torch.randn(shape, generator=generator),
    )
    attacked = updates.clone()
    attacked[hostile] = ATTACKS[run.scenario.attack].craft(sight)
    return attacked


def _count(run: Run, taken: Mask | None, hostile: Mask, *, held: bool, conflict: bool) -> None:
    run.counts["held"] += held
    run.counts["conflicts"] += conflict
    if taken is not None:
        run.counts["poisoned"] += int(hostile.sum())
        run.counts["poisoned_out"] += int((hostile & ~taken).sum())
        run.counts["honest"] += int((~hostile).sum())
        run.counts["honest_out"] += int((~hostile & ~taken).sum())


def simulate(scenarios: Sequence[Scenario]) -> list[dict[str, object]]:
    """Run the scenarios to their end; the clean rounds before late attacks are run once for all attacks."""
    late = [s for s in scenarios if s.attack != "none" and s.start == LATE]
    clean = {replace(s, attack="none", hostile=0, start=0) for s in late}
    early = {s: fresh(s) for s in sorted(clean, key=str)}
    runs = [fresh(s) for s in scenarios if s not in set(late)]
    for number in range(LATE):
        advance([*early.values(), *runs], number)
    for s in late:
        run = deepcopy(early[replace(s, attack="none", hostile=0, start=0)])
        run.scenario = s
        run.counts = dict.fromkeys(_COUNTS, 0)
        runs.append(run)
    for number in range(LATE, ROUNDS):
        advance(runs, number)
    return [_result(run) for run in runs]


def _result(run: Run) -> dict[str, object]:
    figures: dict[str, object] = {**asdict(run.scenario), "accuracy": float(np.mean(run.accuracies)), **run.counts}
    if run.scenario.attack in BACKDOORS:
        others = run.data.test.at(np.flatnonzero(run.data.test.labels.numpy() != 0))
        marked = Examples(images=triggered(others.images), labels=torch.zeros_like(others.labels))
        figures["backdoor"] = accuracy(run.model, marked)
    return figures


def grid(attacks: Iterable[str], defences: Iterable[str], seeds: Sequence[int], clean: Sequence[int]) -> Iterator[Scenario]:
    """All runs of the tables: attacks on some seeds, and clean rounds on more of them and on less alike sites."""
    chosen = list(defences)
    for seed, alpha, defence in product(clean, CLEAN_ALPHAS, chosen):
        if alpha == ALPHA or defence in {"FedAvg", *OURS}:
            yield Scenario(attack="none", hostile=0, start=0, defence=defence, seed=seed, alpha=alpha)
    for seed, (hostile, start), defence, attack in product(seeds, CELLS, chosen, attacks):
        if hostile == 1 and defence not in _FEW:
            continue
        yield Scenario(attack=attack, hostile=hostile, start=start, defence=defence, seed=seed)


def _missing(wanted: Iterable[Scenario], results: Path) -> list[Scenario]:
    names = tuple(asdict(Scenario(attack="", hostile=0, start=0, defence="", seed=0)))
    lines = results.read_text().splitlines() if results.exists() else []
    done = {tuple(json.loads(line)[name] for name in names) for line in lines}
    return [s for s in wanted if tuple(asdict(s).values()) not in done]


def _run_all(missing: Sequence[Scenario], results: Path) -> None:
    """In bunches that share their clean rounds; every bunch is on disk before the next begins."""
    results.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(missing, key=lambda s: (s.seed, s.alpha, s.start, s.defence))
    bunches = [list(bunch) for _, bunch in groupby(ordered, key=lambda s: (s.seed, s.alpha, s.start))]
    for bunch in (b[k : k + _RUNS_AT_ONCE] for b in bunches for k in range(0, len(b), _RUNS_AT_ONCE)):
        started = time.process_time()
        lines = [json.dumps(figures) for figures in simulate(bunch)]
        with results.open("a") as file:
            file.write("\n".join(lines) + "\n")
        print(f"{len(bunch)} runs of seed {bunch[0].seed}: {time.process_time() - started:.0f} s of CPU", flush=True)


def main(arguments: list[str]) -> None:
    """Run what is missing, and write the tables if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="one line of JSON per run; what is there is not run again")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(HELD_OUT))
    parser.add_argument("--clean", type=int, nargs="*", default=list(CLEAN_SEEDS), help="seeds of the runs without attack")
    parser.add_argument("--only", nargs="*", default=list(DEFENCES), choices=list(DEFENCES), help="defences")
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--write", action="store_true", help="write the tables into docs/robustness.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wanted = list(grid(options.attacks, options.only, options.seeds, options.clean))
    _run_all(_missing(wanted, options.results), options.results)
    if options.write:
        write_tables(options.results, Path("docs/robustness.md"))


if __name__ == "__main__":
    main(sys.argv[1:])
