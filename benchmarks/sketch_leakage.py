"""What an opened sketch tells of a site's data, beside what the whole update would tell: two attacks by a curious site.

    python benchmarks/sketch_leakage.py           # two minutes of CPU
    python benchmarks/sketch_leakage.py --write   # also puts the table into docs/screening.md

The attacker knows the model, the sketch's seed and a candidate. *Membership*: was this example trained on? It compares the update
with the example's gradient; non-members have the same labels and come from other sites. *Labels*: does the site have much of this
class? It compares the update with the gradient of public examples of the class. 0.5 is guessing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from document import table, write_between_markers
from numpy.typing import NDArray
from robustness_task import CLASSES, SITES, Digits, Examples, digits
from torch import Tensor, nn
from torch.nn import functional as F

from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sketch import sketch_of_vector, sketch_plan

_SEEDS = (20, 21, 22)
_ROUNDS = 6
_STEPS, _BATCH, _RATE = 10, 32, 0.1
_CANDIDATES = 20
_GROUPS = 256
# Units per one: far finer than an encrypted update, so that rounding hides nothing.
_SCALE = 2.0**30
_PARAMS = SecurityParams(update_range=1.0, weight_bits=3, threshold=4, committee=7, sites=10)

View = Callable[[Tensor, int], NDArray[np.float64]]


def main() -> None:
    """Measure, print, and with --write put the table into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    written = parser.parse_args().write
    torch.set_num_threads(1)
    parameters = sum(p.numel() for p in _network(0).parameters())
    views: dict[str, View] = {"the whole update": _whole, f"the sketch, {3 * _GROUPS} numbers": _sketched}
    rows = []
    for name, view in views.items():
        members, labels = zip(*(_attacked(seed, view) for seed in _SEEDS), strict=True)
        rows.append((name, *(f"{np.mean(auc):.2f} ({min(auc):.2f} to {max(auc):.2f})" for auc in (members, labels))))
    text = table(("what the attacker has", "membership, AUC", "labels, AUC"), rows)
    text = (
        f"Measured on digits (ten sites, Dirichlet 0.5, a network of {parameters:,} parameters, {_ROUNDS} rounds, "
        f"{len(_SEEDS)} seeds; `python benchmarks/sketch_leakage.py --write`):\n\n{text}"
    )
    print(text)
    if written:
        write_between_markers(Path("docs/screening.md"), "leakage", text)


def _attacked(seed: int, view: View) -> tuple[float, float]:
    """Area under the curve of both attacks in one run of plain federated averaging."""
    data, network = digits(seed, 0.5), _network(seed)
    members: list[tuple[float, bool]] = []
    labels: list[tuple[float, bool]] = []
    for number in range(_ROUNDS):
        start = nn.utils.parameters_to_vector(network.parameters()).detach()
        updates = [_update(network, start, data, site, seed, number) for site in range(SITES)]
        nn.utils.vector_to_parameters(start.clone(), network.parameters())
        public = [_gradient(network, _of_class(data.anchor, c)) for c in range(CLASSES)]
        for site, update in enumerate(updates):
            seen = view(update, number)
            members += [
                (_cosine(seen, view(_gradient(network, x), number)), inside) for x, inside in _candidates(data, site, seed)
            ]
            shares = np.bincount(data.pool.labels[data.train[site]], minlength=CLASSES) / len(data.train[site])
            labels += [(_cosine(seen, view(g, number)), bool(s > 1 / CLASSES)) for g, s in zip(public, shares, strict=True)]
        nn.utils.vector_to_parameters(start + torch.stack(updates).mean(0), network.parameters())
    return _area(members), _area(labels)


def _network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES))


def _update(network: nn.Sequential, start: Tensor, data: Digits, site: int, seed: int, number: int) -> Tensor:
    nn.utils.vector_to_parameters(start.clone(), network.parameters())
    optimiser = torch.optim.SGD(network.parameters(), lr=_RATE)
    for batch in np.random.default_rng([seed, number, site]).choice(data.train[site], (_STEPS, _BATCH)):
        optimiser.zero_grad()
        F.cross_entropy(network(data.pool.images[batch]), data.pool.labels[batch]).backward()
        optimiser.step()
    return nn.utils.parameters_to_vector(network.parameters()).detach() - start


def _gradient(network: nn.Sequential, examples: Examples) -> Tensor:
    """Downhill: as an update that these examples alone would make."""
    network.zero_grad()
    F.cross_entropy(network(examples.images), examples.labels).backward()
    return -torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def _of_class(examples: Examples, label: int) -> Examples:
    return examples.at(np.flatnonzero(examples.labels == label))


def _candidates(data: Digits, site: int, seed: int) -> Iterator[tuple[Examples, bool]]:
    """Members of a site, and for each a non-member of the same label from another site."""
    rng = np.random.default_rng([seed, site])
    others = np.concatenate([part for s, part in enumerate(data.train) if s != site])
    for index in rng.choice(data.train[site], _CANDIDATES):
        alike = others[data.pool.labels[others] == data.pool.labels[index]]
        yield data.pool.at(np.array([index])), True
        yield data.pool.at(np.array([rng.choice(alike)])), False


def _whole(vector: Tensor, number: int) -> NDArray[np.float64]:  # noqa: ARG001  # one of the views
    return vector.double().numpy()


def _sketched(vector: Tensor, number: int) -> NDArray[np.float64]:
    values = np.rint(vector.double().numpy() * _SCALE).astype(np.int64)
    plan = sketch_plan(number.to_bytes(32, "big"), _PARAMS.blocks(values.size), _GROUPS, _PARAMS)
    return sketch_of_vector(values, plan).astype(np.float64).reshape(-1)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-300))


def _area(scored: Sequence[tuple[float, bool]]) -> float:
    """Chance that a random positive has a higher score than a random negative."""
    scores, truth = np.array([s for s, _ in scored]), np.array([t for _, t in scored])
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = int(truth.sum())
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (len(scores) - positives)))


if __name__ == "__main__":
    main()
