"""This package's encryption on one update: ceremony, a site, the coordinator, and the opening by a quorum.

    python benchmarks/he_ours.py site FOLDER --output figures.json

Bytes go through files part by part, as they go through the store in a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measuring import Figures, cpu_seconds, peak_mb, repeated, report

from bahefl_flwr.he import ceremony
from bahefl_flwr.he.ckks import Ciphertexts, TenSealAdder, add, encrypt
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part, encode_part
from bahefl_flwr.he.share_format import encode_share
from bahefl_flwr.he.share_proof import verify_share
from bahefl_flwr.he.threshold import combine, partial_decrypt
from bahefl_flwr.he.update_proof import encrypt_with_proof, verify_update

_EPOCH = bytes(32)
_CONTEXT = b"run|round|site|epoch|key"
# A proof takes 1 to 15 tries, so that a mean needs many.
_PROOFS = 20
_COMMITTEE, _THRESHOLD = 5, 3
_QUORUM = range(_THRESHOLD)
_ADDED_WITH = {"numpy": lambda params: partial(add, params=params), "tenseal": TenSealAdder}


def parameters_of_run(sites: int) -> SecurityParams:
    """As runs have them: 3 of 5 members open, updates in [-0.25, 0.25]."""
    return SecurityParams(update_range=0.25, weight_bits=0, threshold=_THRESHOLD, committee=_COMMITTEE, sites=sites)


def member(position: int, params: SecurityParams) -> Figures:
    """Every step one committee member takes in a ceremony; what it receives is made before the clock starts."""
    figures: Figures = {}
    members = range(_COMMITTEE)
    others = [ceremony.contribute(p, params, _EPOCH, _entropy(p)) for p in members]
    received = [ceremony.opening_for(c, position) for c in others]
    committed = [ceremony.commitment(c) for c in others]
    parts = {p: ceremony.public_parts(key_share(p, params)) for p in members}
    with cpu_seconds(figures, "ceremony_s"):
        mine = ceremony.contribute(position, params, _EPOCH, _entropy(position))
        ceremony.commitment(mine)
        for holder in members:
            ceremony.opening_for(mine, holder)
        openings = {p: _opening(received[p], p, position, committed[p], params) for p in members}
        share = ceremony.derive_share(position, openings, params, _EPOCH)
        ceremony.public_parts(share)
        ceremony.contradicting_members(share, parts, openings, params)
        ceremony.collective_key(parts, params, _EPOCH)
    return figures


def site(folder: Path, count: int, params: SecurityParams) -> Figures:
    """Clip, weigh, pack, encrypt and encode one update; its parts stay in `folder` for the coordinator."""
    figures: Figures = {}
    key = ceremony.collective_key({p: ceremony.public_parts(key_share(p, params)) for p in range(_COMMITTEE)}, params, _EPOCH)
    with cpu_seconds(figures, "encrypt_s"):
        ciphertext = encrypt(pack(_update(count), 1 / params.sites, params, SecretSeed.random()), key, params)
        parts = [_encoded(ciphertext, at, params) for at in range(0, len(ciphertext), BLOCKS_PER_PART)]
    for index, data in enumerate(parts):
        (folder / f"update-{index:04d}").write_bytes(data)
    return figures | {"upload_bytes": float(sum(map(len, parts)))}


def proof(count: int, params: SecurityParams) -> Figures:
    """What an update costs besides: a site's proof, mean over many, and its verification by everybody else."""
    figures: Figures = {}
    key = ceremony.collective_key({p: ceremony.public_parts(key_share(p, params)) for p in range(_COMMITTEE)}, params, _EPOCH)
    packed = pack(_update(count), 1 / params.sites, params)
    with cpu_seconds(figures, "proven_s"):
        for _ in range(_PROOFS):
            ciphertext, data = encrypt_with_proof(packed, key, params, _CONTEXT)
    with cpu_seconds(figures, "plain_s"):
        for _ in range(_PROOFS):
            encrypt(packed, key, params)
    with cpu_seconds(figures, "verify_update_s"):
        parts = (ciphertext[at : at + BLOCKS_PER_PART, 1] for at in range(0, len(ciphertext), BLOCKS_PER_PART))
        verify_update(parts, len(ciphertext), data, key, params, _CONTEXT)
    prove = (figures["proven_s"] - figures["plain_s"]) / _PROOFS
    return {"prove_s": prove, "verify_update_s": figures["verify_update_s"], "proof_bytes": float(len(data))}


def coordinator(folder: Path, engine: str, params: SecurityParams) -> Figures:
    """Read, parse, add and encode part by part. All sites' updates are one here: memory does not care who wrote them."""
    figures: Figures = {}
    adder = _ADDED_WITH[engine](params)
    for index, path in enumerate(sorted(folder.glob("update-*"))):
        with cpu_seconds(figures, "aggregate_s"):
            total = adder((_decoded(path, params) for _ in range(params.sites)), [1] * params.sites)
            encoded = encode_part(total, PartKind.CIPHERTEXT, params)
        (folder / f"sum-{index:04d}").write_bytes(encoded)
    return figures


def opening(folder: Path, count: int, params: SecurityParams) -> Figures:
    """One member's partial decryption, its check of the other members' shares, and its combination and unpacking."""
    figures: Figures = {}
    shares = {p: key_share(p, params) for p in _QUORUM}
    for share in shares.values():
        ceremony.public_parts(share)  # keys are derived once an epoch
    packed, released = [], 0
    for path in sorted(folder.glob("sum-*")):
        aggregate = _decoded(path, params)
        partials = {p: partial_decrypt(aggregate[:, 1], shares[p], _QUORUM) for p in _QUORUM if p}
        with cpu_seconds(figures, "share_s"):
            partials[0] = partial_decrypt(aggregate[:, 1], shares[0], _QUORUM)
            released += len(encode_share(partials[0], params))
        with cpu_seconds(figures, "verify_s"):
            for p in _QUORUM[1:]:
                verify_share(aggregate[:, 1], partials[p], p, _QUORUM, params, shares[0])
        with cpu_seconds(figures, "open_s"):
            packed.append(combine(aggregate, {p: share.residues for p, share in partials.items()}, _QUORUM, params))
    with cpu_seconds(figures, "open_s"):
        opened = unpack(np.concatenate(packed), count, 1.0, params)
    error = np.abs(opened - np.clip(_update(count), -0.25, 0.25)).max()
    return figures | {"share_bytes": float(released), "largest_error": float(error)}


def _update(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.05, count).astype(np.float32)


def _entropy(position: int) -> SecretSeed:
    return SecretSeed(bytes([position + 1]) * 32)


def _opening(data: bytes, sender: int, holder: int, committed: bytes, params: SecurityParams) -> ceremony.Opening:
    return ceremony.verify_opening(data, sender=sender, holder=holder, committed=committed, epoch_id=_EPOCH, params=params)


def key_share(position: int, params: SecurityParams) -> KeyShare:
    """What a member of the committee of these parameters holds after an honest ceremony."""
    contributions = [ceremony.contribute(p, params, _EPOCH, _entropy(p)) for p in range(_COMMITTEE)]
    openings = {
        p: _opening(ceremony.opening_for(c, position), p, position, ceremony.commitment(c), params)
        for p, c in enumerate(contributions)
    }
    return ceremony.derive_share(position, openings, params, _EPOCH)


def _encoded(ciphertext: Ciphertexts, at: int, params: SecurityParams) -> bytes:
    return encode_part(ciphertext[at : at + BLOCKS_PER_PART], PartKind.CIPHERTEXT, params)


def _decoded(path: Path, params: SecurityParams) -> Ciphertexts:
    return decode_part(path.read_bytes(), PartKind.CIPHERTEXT, params)


def main() -> None:
    """One role, measured in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["member", "site", "proof", "coordinator", "open"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--engine", choices=sorted(_ADDED_WITH), default="numpy")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    o = parser.parse_args()
    params = parameters_of_run(o.sites)
    roles: dict[str, Callable[[], Figures]] = {
        "member": lambda: member(0, params),
        "site": lambda: site(o.folder, o.parameters, params),
        "proof": lambda: proof(o.parameters, params),
        "coordinator": lambda: coordinator(o.folder, o.engine, params),
        "open": lambda: opening(o.folder, o.parameters, params),
    }
    figures = repeated(roles[o.role], o.repeats)
    report({**figures, "peak_mb": peak_mb(), "tenseal": version("tenseal"), "numpy": np.__version__}, o.output)


if __name__ == "__main__":
    main()
