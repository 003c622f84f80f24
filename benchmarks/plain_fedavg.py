"""Plain FedAvg with the shipped LesionClient: no Flower, no encryption, no ledger. What a secured run is compared with.

    python benchmarks/plain_fedavg.py experiment=smoke
    python benchmarks/plain_fedavg.py train.lr=1e-3 --clip 0.05 --json curve.json

Prints one line per round: pooled Dice on the validation parts, the size of the updates, and CPU seconds per site.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bahefl_flwr.client import LesionClient, NDArrays
from bahefl_flwr.lesion.metrics import Evaluation, from_metrics
from bahefl_flwr.lesion.sites import site_data
from bahefl_flwr.settings import Settings, compose


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """One round; Dice and loss are of the model AFTER it.

    Attributes:
      update_p9999, update_max: 99.99th percentile and maximum of |update| over all parameters of all sites.
      train_cpu_s: CPU seconds of `fit`, per site.
    """

    round: int
    dice: float
    precision: float
    recall: float
    mean_dice_of_positive_slices: float
    hd95_px: float
    loss: float
    dead: bool
    update_p9999: float
    update_max: float
    clipped: float
    train_cpu_s: list[float]
    evaluate_cpu_s: float


def clients_of(settings: Settings) -> list[LesionClient]:
    """All sites of a simulation, in this process."""
    sites, seed = settings.federation.sites, settings.run.seed
    return [LesionClient(settings, site_data(settings.data, site=k, sites=sites, seed=seed), site=k) for k in range(sites)]


def federated_round(
    clients: list[LesionClient], model: NDArrays, settings: Settings, number: int, clip: float, part: str
) -> tuple[NDArrays, RoundFigures]:
    """One round of FedAvg: fit everywhere, clip, average by examples (or evenly), evaluate everywhere."""
    config = {"server-round": number, "rounds": settings.federation.rounds}
    updates, weights, seconds = [], [], []
    for client in clients:
        started = time.process_time()
        trained, examples, _ = client.fit(model, dict(config))
        seconds.append(time.process_time() - started)
        updates.append([new - old for new, old in zip(trained, model, strict=True)])
        weights.append(examples if settings.federation.weighting == "examples" else 1)
    sizes = np.abs(np.concatenate([_flat(update) for update in updates]))  # (sites * parameters,)
    shares = np.array(weights, np.float64) / sum(weights)
    model = [old + _mean(deltas, shares, clip) for old, *deltas in zip(model, *updates, strict=True)]
    started = time.process_time()
    evaluation, loss = evaluate_all(clients, model, part)
    figures = RoundFigures(
        round=number,
        dice=evaluation.pixels.dice,
        precision=evaluation.pixels.precision,
        recall=evaluation.pixels.recall,
        mean_dice_of_positive_slices=evaluation.mean_dice_of_positive_slices,
        hd95_px=evaluation.mean_hd95_px,
        loss=loss,
        dead=evaluation.pixels.dead,
        update_p9999=float(np.quantile(sizes, 0.9999)),
        update_max=float(sizes.max()),
        clipped=float((sizes > clip).mean()) if clip else 0.0,
        train_cpu_s=[round(s, 2) for s in seconds],
        evaluate_cpu_s=time.process_time() - started,
    )
    return model, figures


def evaluate_all(clients: list[LesionClient], model: NDArrays, part: str) -> tuple[Evaluation, float]:
    """The sites' evaluations added up, and the mean loss over all slices."""
    total, losses, slices = Evaluation(), 0.0, 0
    for client in clients:
        loss, count, metrics = client.evaluate(model, {"part": part})
        total, losses, slices = total + from_metrics(metrics), losses + loss * count, slices + count
    return total, losses / max(1, slices)


def _mean(deltas: list[npt.NDArray[np.float32]], shares: npt.NDArray[np.float64], clip: float) -> npt.NDArray[np.float32]:
    clipped = [np.clip(delta, -clip, clip) if clip else delta for delta in deltas]
    return np.asarray(sum(share * delta for share, delta in zip(shares, clipped, strict=True)), np.float32)


def _flat(update: NDArrays) -> npt.NDArray[np.float32]:
    return np.concatenate([values.ravel() for values in update])


def main(arguments: list[str]) -> None:
    """Run all rounds of the composed settings and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for flower-simulation")
    parser.add_argument("--clip", type=float, default=0.0, help="clip updates per parameter; 0 does not")
    parser.add_argument("--part", default="validation", choices=["validation", "test"])
    parser.add_argument("--json", type=Path, help="also write the curve here")
    options = parser.parse_intermixed_args(arguments)
    settings = compose(options.overrides)
    clients = clients_of(settings)
    print("slices:", [client.get_properties({})["num-examples"] for client in clients], "engine:", clients[0].engine, flush=True)
    model, curve = clients[0].get_parameters({}), []
    for number in range(1, settings.federation.rounds + 1):
        model, figures = federated_round(clients, model, settings, number, options.clip, options.part)
        curve.append(figures)
        print(_line(figures), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(figures) for figures in curve], indent=1))


def _line(f: RoundFigures) -> str:
    update = f"|update| p99.99 {f.update_p9999:.4f} max {f.update_max:.4f}"
    seconds = f"train {sum(f.train_cpu_s):.1f} s (largest {max(f.train_cpu_s):.1f}), evaluate {f.evaluate_cpu_s:.1f} s"
    pooled = f"Dice {f.dice:.4f} recall {f.recall:.3f} precision {f.precision:.3f} loss {f.loss:.3f}{' DEAD' if f.dead else ''}"
    slices = f"per positive slice: Dice {f.mean_dice_of_positive_slices:.3f} HD95 {f.hd95_px:.1f} px"
    return f"round {f.round:>3}  {pooled}  {slices}  {update}  {seconds}"


if __name__ == "__main__":
    main(sys.argv[1:])
