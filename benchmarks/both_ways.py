"""The same updates averaged in the clear and under encryption, round by round: what the encryption costs in Dice, nothing else.

Two whole runs differ by more than that. Rounding changes a model in the fifth digit; by the next round the sites' training has
made another model of it, as good and not the same. So here every round has one set of updates and two means, and goes on from
the encrypted one. Real ciphertexts and a real quorum; no ledger, no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from he_ours import key_share
from numpy.typing import NDArray
from plain_fedavg import clients_of, evaluate_all

from bahefl_flwr.client import LesionClient, NDArrays
from bahefl_flwr.he import ceremony
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.keys import KeyShare, PublicKey
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.threshold import combine, partial_decrypt
from bahefl_flwr.settings import Settings
from bahefl_flwr.task import task_params

Vector = NDArray[np.float32]


def both_ways(settings: Settings) -> dict[str, Any]:
    """Train all rounds; in each, evaluate the plain and the encrypted mean of the same updates on the validation parts.

    Returns:
      `dice` and `recall`, largest difference over the rounds; `rounds`; `error`, largest of an opened parameter.
    """
    params = task_params(settings)
    key, shares = _keys(params)
    clients, rounds = clients_of(settings), settings.federation.rounds
    model, differences, error = clients[0].get_parameters({}), [], 0.0
    for number in range(1, rounds + 1):
        updates, weights = _trained(clients, model, {"server-round": number, "rounds": rounds})
        plain = sum(w * np.clip(u, -params.update_range, params.update_range) for u, w in zip(updates, weights, strict=True))
        opened = _encrypted_mean(updates, weights, params, key, shares)
        error = max(error, float(np.abs(opened - plain).max()))
        means = [evaluate_all(clients, _moved(model, mean), "validation")[0].pixels for mean in (plain, opened)]
        differences.append([abs(means[0].dice - means[1].dice), abs(means[0].recall - means[1].recall)])
        model = _moved(model, opened)
    dice, recall = np.max(differences, axis=0)
    return {"dice": float(dice), "recall": float(recall), "rounds": rounds, "error": error}


def _trained(clients: Sequence[LesionClient], model: NDArrays, config: dict[str, Any]) -> tuple[list[Vector], list[float]]:
    """Every site's update, flat, and its part of all examples."""
    results = [client.fit(model, dict(config)) for client in clients]
    updates = [np.concatenate([(a - b).ravel() for a, b in zip(new, model, strict=True)]) for new, _, _ in results]
    total = sum(examples for _, examples, _ in results)
    return updates, [examples / total for _, examples, _ in results]


def _keys(params: SecurityParams) -> tuple[PublicKey, dict[int, KeyShare]]:
    shares = {p: key_share(p, params) for p in range(params.committee)}
    return ceremony.collective_key({p: ceremony.public_parts(s) for p, s in shares.items()}, params, bytes(32)), shares


def _encrypted_mean(
    updates: Sequence[Vector], weights: Sequence[float], params: SecurityParams, key: PublicKey, shares: dict[int, KeyShare]
) -> Vector:
    seeds = [SecretSeed.random() for _ in updates]
    sent = [encrypt(pack(u, w, params, s), key, params) for u, w, s in zip(updates, weights, seeds, strict=True)]
    total, quorum = add(sent, [1] * len(sent), params), range(params.threshold)
    residues = {p: partial_decrypt(total[:, 1], shares[p], quorum).residues for p in quorum}
    return unpack(combine(total, residues, quorum, params), updates[0].size, sum(weights), params)


def _moved(model: NDArrays, update: Vector) -> NDArrays:
    ends = np.cumsum([a.size for a in model])[:-1]
    return [(a + u.reshape(a.shape)).astype(np.float32) for a, u in zip(model, np.split(update, ends), strict=True)]
