"""Makes he_vectors.json, the known answers of the encryption.

python tests/vectors/make_he_vectors.py > tests/vectors/he_vectors.json

Made again only when the wire version changes: with other answers, sites of two releases do not understand each other.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bahefl_flwr.he import ceremony
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import ring
from bahefl_flwr.he.sampling import Generator, SecretSeed, centred_binomial, flooding, ternary, uniform
from bahefl_flwr.he.seal_format import PartKind, encode_part
from bahefl_flwr.he.share_format import encode_share
from bahefl_flwr.he.sketch import (
    combine_sketches,
    encode_sketch_share,
    open_sketches,
    plain_sketch,
    position_plan,
    sketch,
    sketch_plan,
)
from bahefl_flwr.he.spoiled_sum import positions_digest
from bahefl_flwr.he.threshold import combine, partial_decrypt
from bahefl_flwr.he.update_proof import encrypt_with_proof
from he_committee import committee, real_params, toy_params

QUORUM, WEIGHTS = (0, 2, 4), (1, 3, 2)


def vectors() -> dict[str, dict[str, object]]:
    """Every known answer, by name."""
    return {
        "samplers": _samplers(),
        "transform": _transform(),
        "sketch, toy ring of degree 16": _sketch(toy_params(degree=16), 4),
        "sketch, real ring": _sketch(real_params(), 256),
        "toy ring of degree 16, 3 of 5": _scheme(toy_params(degree=16, weight_bits=2)),
        "real ring, 3 of 5": _scheme(real_params(weight_bits=2)),
        "real ring, single key": _ceremony(real_params(5, 1)),
        "real ring, 2 of 2": _ceremony(real_params(2, 2)),
    }


def _samplers() -> dict[str, object]:
    seed = SecretSeed(bytes(range(32)))
    return {
        "derived": seed.derive("label", b"context", 7).secret_bytes().hex(),
        "bytes": Generator(seed).bytes(16).tobytes().hex(),
        "ternary": ternary(Generator(seed), 12).tolist(),
        "centred_binomial": centred_binomial(Generator(seed), 12).tolist(),
        "flooding": flooding(Generator(seed), 4, 30).tolist(),
        "uniform": uniform(Generator(seed), 1073651713, 4).tolist(),
    }


def _transform() -> dict[str, object]:
    """NTT of X and of a full polynomial: in SEAL's order, modulo every prime."""
    small, real = toy_params(degree=16), real_params()
    ramp = np.arange(1, real.ring_degree + 1)[None] * 262_139
    return {
        "X at degree 16": ring(small).forward_all(np.eye(16, dtype=np.int64)[1:2])[0].tolist(),
        "a ramp at degree 4096": _sha256(ring(real).forward_all(ramp).astype("<i8").tobytes()),
    }


def _ceremony(params: SecurityParams) -> dict[str, object]:
    members = committee(params)
    return {
        "params": params.digest().hex(),
        "commitment of 0": ceremony.commitment(members.contributions[0]).hex(),
        "opening of 0 to 1": _sha256(ceremony.opening_for(members.contributions[0], 1)),
        "key share of 1": _sha256(members.shares[1].secret_bytes()),
        "public key": members.key.digest().hex(),
        "subset secret": _sha256(next(iter(members.shares[1].keys.values())).secret.astype("<i8").tobytes()),
        "subset part": _sha256(next(iter(members.shares[1].keys.values())).public.astype("<u4").tobytes()),
    }


def _scheme(params: SecurityParams) -> dict[str, object]:
    members = committee(params)
    packed = [pack(_update(k), 1 / 3, params) for k in range(3)]
    ciphertexts = [encrypt(m, members.key, params, SecretSeed(bytes([k]) * 32)) for k, m in enumerate(packed)]
    total = add(ciphertexts, WEIGHTS, params)
    shares = {p: partial_decrypt(total[:, 1], members.shares[p], QUORUM) for p in QUORUM}
    residues = {p: share.residues for p, share in shares.items()}
    opened = combine(total, residues, QUORUM, params)
    proof = encrypt_with_proof(packed[0], members.key, params, b"run|round|site", SecretSeed(bytes(32)))[1]
    return _ceremony(params) | {
        "packed": _sha256(packed[0].astype("<i8").tobytes()),
        "ciphertext": _sha256(encode_part(ciphertexts[0], PartKind.CIPHERTEXT, params)),
        "first residues": ciphertexts[0][0, 1, :, :4].tolist(),
        "challenge of the proof": proof[12:44].hex(),
        "proof": _sha256(proof),
        "sum": _sha256(encode_part(total, PartKind.CIPHERTEXT, params)),
        "residues of 2": _sha256(encode_part(shares[2].residues, PartKind.SHARE, params)),
        "tags of 2": shares[2].tags[:, 0].tolist(),
        "share of 2": _sha256(encode_share(shares[2], params)),
        "opened": _sha256(opened.astype("<i8").tobytes()),
        "mean": _sha256(unpack(opened, _update(0).size, sum(WEIGHTS) / 3, params).astype("<f4").tobytes()),
    }


def _sketch(params: SecurityParams, groups: int) -> dict[str, object]:
    """The plan of a seed, what it makes of plain and encrypted blocks, one share and its opening; and a plan of positions."""
    members, plan = committee(params), sketch_plan(bytes(range(32)), 5, groups, params)
    packed = (np.arange(5 * params.ring_degree) * 7919 % 1009 - 504).reshape(5, -1)
    made = sketch([encrypt(packed, members.key, params, SecretSeed(bytes(32)))], plan)
    shares = {p: open_sketches(made[None, 1], plan, members.shares[p], QUORUM) for p in QUORUM}
    opened = combine_sketches(made[None], {p: share.values for p, share in shares.items()}, QUORUM, plan)
    positions = ((0, 3), (0, 9), (4, 1))
    return {
        "plan": plan.digest.hex(),
        "signs": plan.fold.signs.tolist(),
        "buckets": plan.fold.buckets.tolist(),
        "exponents": plan.fold.exponents.tolist(),
        "monomials": _sha256(ring(params).monomials(plan.fold.exponents).astype("<i8").tobytes()),
        "order": _sha256(plan.order.astype("<i8").tobytes()),
        "first coefficients": plan.order[0, :4].tolist(),
        "order signs": _sha256(plan.order_signs.astype("<i8").tobytes()),
        "sigma": plan.sigma_log2,
        "plain sums": plain_sketch(packed, plan)[:4].tolist(),
        "sketch": _sha256(made.astype("<u4").tobytes()),
        "share of 2": _sha256(encode_sketch_share(shares[2], [7], params)),
        "opened": opened.values[0, :4].tolist(),
        "positions": positions_digest(positions).hex(),
        "position plan": position_plan(positions, params).digest.hex(),
    }


def _update(site: int) -> np.ndarray:
    """40 parameters in [-0.3, 0.3], without any function that differs between machines."""
    return (((np.arange(40) + 1 + site) * 7919 % 1009) / 1009 * 0.6 - 0.3).astype(np.float32)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
