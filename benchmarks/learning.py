"""What the lesion application learns: real slices and phantoms, federated and central, encrypted and plain.

    python benchmarks/learning.py measure NAME [--data FOLDER]   one row of the tables, kept as build/learning/NAME.json
    python benchmarks/learning.py measure                        all rows that are missing
    python benchmarks/learning.py tables [--write]               prints them, or puts them into docs/benchmarks.md

Training is counted in CPU seconds of `fit`, on one thread. The recipe was chosen on validation parts; a run's model is that of
its best round on the validation parts, and is tested once.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from both_ways import both_ways
from document import table, write_between_markers
from plain_fedavg import clients_of, evaluate_all, federated_round
from unets import cost_rows

from bahefl_flwr.client import LesionClient
from bahefl_flwr.lesion.data import Slices
from bahefl_flwr.lesion.metrics import Evaluation
from bahefl_flwr.lesion.partition import PARTS
from bahefl_flwr.lesion.sites import SiteData, site_data
from bahefl_flwr.settings import Settings, compose

Row = dict[str, Any]
SEEDS = (1, 2, 3)
# 5 sites, Dirichlet 0.5, 128 px: the default experiment, for longer and with an average after every epoch.
RECIPE = ("federation.rounds=50", "train.local_epochs=1", "train.device=cpu")
_ROOT = Path(__file__).parents[1]
_KEPT = _ROOT / "build" / "learning"
_DOCUMENT = _ROOT / "docs" / "benchmarks.md"
_SLICES = _ROOT.parents[1] / "shared" / "data" / "ct-slices"


def federated(settings: Settings) -> Row:
    """Plain FedAvg over all rounds: updates clipped as the encryption clips them, nothing encrypted."""
    clients = clients_of(settings)
    model, best, best_score, cpu_s = clients[0].get_parameters({}), clients[0].get_parameters({}), -1.0, 0.0
    curve = []
    for number in range(1, settings.federation.rounds + 1):
        model, figures = federated_round(clients, model, settings, number, settings.he.update_range, "validation")
        cpu_s += sum(figures.train_cpu_s)
        score = 0.6 * figures.dice + 0.4 * figures.recall
        curve.append(round(figures.dice, 4))
        if score > best_score:
            best, best_score = model, score
    total, _ = evaluate_all(clients, best, "test")
    return {**_tested(total), "train_cpu_s": cpu_s, "validation_dice": curve}


def central(settings: Settings) -> Row:
    """All sites' slices in one place: as many passes as the federated run, one optimiser throughout, the last model."""
    epochs = settings.federation.rounds * settings.train.local_epochs
    train = settings.train.model_copy(update={"local_epochs": epochs})
    client = LesionClient(settings.model_copy(update={"train": train}), _together(settings), site=0)
    started = time.process_time()
    model, _, _ = client.fit(client.get_parameters({}), {"server-round": 1, "rounds": 1})
    cpu_s = time.process_time() - started
    total, _ = evaluate_all([client], model, "test")
    return {**_tested(total), "train_cpu_s": cpu_s}


def _together(settings: Settings) -> SiteData:
    """The same parts as the sites have, joined."""
    sites, seed = settings.federation.sites, settings.run.seed
    shares = [site_data(settings.data, site=k, sites=sites, seed=seed) for k in range(sites)]
    return {part: _joined([share[part] for share in shares]) for part in PARTS}


def _joined(pieces: Sequence[Slices]) -> Slices:
    return Slices(
        images=np.concatenate([piece.images for piece in pieces]),
        masks=np.concatenate([piece.masks for piece in pieces]),
        names=tuple(name for piece in pieces for name in piece.names),
    )


def encrypted(settings: Settings) -> Row:
    """A whole run: threshold encryption, ledger, elected coordinators, on Flower's engine."""
    root = _KEPT / "runs"
    changed = [f"{key}={value}" for key, value in settings.flat().items() if _differs(key, value)]
    started = time.monotonic()
    command = [sys.executable, "-m", "bahefl_flwr", f"run.root={root}", *changed]
    subprocess.run(command, check=True)
    wall_s = time.monotonic() - started
    folder = max(path.parent for path in root.glob("*/summary.json"))
    test = json.loads((folder / "summary.json").read_text())["test"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "dice": test["dice"],
        "precision": test["precision"],
        "recall": test["recall"],
        "mean_dice_of_positive_slices": test["mean-dice-of-positive-slices"],
        "hd95_px": test["mean-hd95-px"],
        "missed": test["num-missed"],
        "spurious": test["num-spurious"],
        "slices": test["num-slices"],
        "train_cpu_s": sum(_fit_cpu_s(path) for path in folder.glob("sites/*/journal")),
        "wall_s": wall_s,
        "validation_dice": [round(line["validation"].get("dice", 0.0), 4) for line in lines if line["finalised"]],
    }


def _differs(key: str, value: object) -> bool:
    return compose([]).flat()[key] != value and key not in ("resolved", "run.root", "run.name")


def _fit_cpu_s(journal: Path) -> float:
    """CPU seconds of a site's trainings, from its own journal."""
    records = [json.loads(line[18:]) for line in journal.read_bytes().split(b"\n") if line]
    return sum(result["metrics"]["cpu-seconds"] for _, _, action, result in records if action == "commit")


def _tested(total: Evaluation) -> Row:
    return {
        "dice": total.pixels.dice,
        "precision": total.pixels.precision,
        "recall": total.pixels.recall,
        "mean_dice_of_positive_slices": total.mean_dice_of_positive_slices,
        "hd95_px": total.mean_hd95_px,
        "missed": total.missed,
        "spurious": total.spurious,
        "slices": total.slices,
    }


def rows(data: Path) -> dict[str, Callable[[], Row]]:
    """Every row of the tables by its name, with what measures it. In the order in which they matter."""

    def settings(seed: int, *more: str) -> Settings:
        return compose(["data=folder", f"data.root={data}", f"run.seed={seed}", *RECIPE, *more])

    by_slice = {f"federated-{seed}": lambda seed=seed: federated(settings(seed)) for seed in SEEDS}
    by_patient = {f"patient-{seed}": lambda seed=seed: federated(settings(seed, "data.split=patient")) for seed in SEEDS}
    return {
        **by_slice,
        **{f"encrypted-{seed}": lambda seed=seed: encrypted(settings(seed)) for seed in SEEDS},
        "same-updates-1": lambda: both_ways(settings(1, "federation.rounds=12")),
        "phantom-1": lambda: encrypted(compose([])),
        "cost": lambda: {"rows": cost_rows()},
        **{f"central-{seed}": lambda seed=seed: central(settings(seed)) for seed in SEEDS},
        **by_patient,
    }


def measure(names: Sequence[str], data: Path) -> None:
    """Measure these rows, or all that are missing, and keep each."""
    known = rows(data)
    _KEPT.mkdir(parents=True, exist_ok=True)
    for name in names or [name for name in known if not (_KEPT / f"{name}.json").exists()]:
        row = known[name]()
        (_KEPT / f"{name}.json").write_text(json.dumps(row, indent=1))
        print(name, {key: value for key, value in row.items() if key != "validation_dice"}, flush=True)


def tables(kept: Mapping[str, Row]) -> str:
    """The Markdown between the markers, from the rows that there are."""
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}; {datetime.now(UTC):%Y-%m-%d}."
    parts = [machine, "", table(_HEAD, _learning(kept))]
    pairs = [(kept[f"encrypted-{seed}"], kept[f"federated-{seed}"]) for seed in SEEDS if _both_measured(kept, seed)]
    if pairs:
        parts += ["", _comparison(pairs)]
    if "same-updates-1" in kept:
        parts += ["", _same_updates(kept["same-updates-1"])]
    if "cost" in kept:
        parts += ["", table(["network, 128 px", "parameters", "CPU ms per image", "times, at best"], kept["cost"]["rows"])]
    return "\n".join(parts)


_HEAD = (
    "run", "seeds", "pooled Dice", "pooled recall", "pooled precision", "mean Dice of positive slices", "HD95 px",
    "training, CPU s",
)  # fmt: skip
_TITLES = {
    "central": "central, same passes",
    "federated": "federated, plain FedAvg",
    "encrypted": "federated, encrypted, with ledger",
    "patient": "federated, plain FedAvg, split by patient",
    "phantom": "phantoms, the default run (encrypted)",
}


def _learning(kept: Mapping[str, Row]) -> Iterable[Sequence[str]]:
    for name, title in _TITLES.items():
        found = [kept[f"{name}-{seed}"] for seed in SEEDS if f"{name}-{seed}" in kept]
        if found:
            seeds = ", ".join(str(seed) for seed in SEEDS if f"{name}-{seed}" in kept)
            figures = ("dice", "recall", "precision", "mean_dice_of_positive_slices")
            yield (
                title, seeds, *(_spread([r[key] for r in found]) for key in figures), _spread([r["hd95_px"] for r in found], 1),
                _spread([r["train_cpu_s"] for r in found], 0),
            )  # fmt: skip


def _spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and all values where there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"**{mean}** ({', '.join(f'{v:.{digits}f}' for v in values)})"


def _both_measured(kept: Mapping[str, Row], seed: int) -> bool:
    return {f"encrypted-{seed}", f"federated-{seed}"} <= kept.keys()


def _comparison(pairs: Sequence[tuple[Row, Row]]) -> str:
    dice, recall = (", ".join(f"{secured[key] - plain[key]:+.4f}" for secured, plain in pairs) for key in ("dice", "recall"))
    wall = ", ".join(f"{secured['wall_s']:.0f}" for secured, _ in pairs)
    return f"Encrypted less plain, whole runs, seed by seed: Dice {dice}; recall {recall}. The encrypted ones took {wall} s."


def _same_updates(row: Row) -> str:
    return (
        f"The same updates averaged both ways, {row['rounds']} rounds, seed 1, validation parts: after no round did Dice differ "
        f"by more than {row['dice']:.4f}, recall by more than {row['recall']:.4f}, a parameter by more than {row['error']:.1e}."
    )


def main(arguments: Sequence[str]) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "tables"])
    parser.add_argument("names", nargs="*", help="rows to measure again; without any, those that are missing")
    parser.add_argument("--data", type=Path, default=_SLICES, help="folder with frames/ and masks/")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if options.what == "measure":
        measure(options.names, options.data)
        return
    text = tables({path.stem: json.loads(path.read_text()) for path in sorted(_KEPT.glob("*.json"))})
    print(text)
    if options.write:
        write_between_markers(_DOCUMENT, "learning", text)


if __name__ == "__main__":
    main(sys.argv[1:])
