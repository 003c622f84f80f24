"""What sketching all updates of a round costs one committee member, beside encrypting them, in one run on one machine.

    python benchmarks/screening_cost.py --write

Medians over several repetitions of both, in one process, go to docs/benchmarks.md. The encryption is that of benchmarks/he.py.
"""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

# One thread, as a site's process in a simulation has it: BLAS threads that wait for each other would count as work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from document import table, write_between_markers
from he import machine
from measuring import Figures, cpu_seconds, repeated

from bahefl_flwr.he import ceremony
from bahefl_flwr.he.ckks import Ciphertexts, encrypt
from bahefl_flwr.he.keys import KeyShare, PublicKey
from bahefl_flwr.he.packing import pack
from bahefl_flwr.he.params import SecurityParams, sketch_error_std
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, encode_part
from bahefl_flwr.he.sketch import (
    SketchShare,
    combine_sketches,
    encode_sketch_share,
    open_sketches,
    plain_sketch,
    sketch,
    sketch_plan,
    verify_sketch_share,
)

_DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_EPOCH, _SEED = bytes(32), bytes(range(32))
_SITES, _GROUPS = 10, 256
_COMMITTEES = ((5, 3), (7, 4))
_STEPS = {
    "sketch_s": "sketches of ten updates",
    "share_s": "this member's share",
    "verify_s": "checking the others' shares",
    "combine_s": "combination",
}


def committee(params: SecurityParams) -> tuple[list[KeyShare], PublicKey]:
    """All members after an honest ceremony, with their keys derived: that happens once an epoch."""
    positions = range(params.committee)
    sent = [ceremony.contribute(p, params, _EPOCH, SecretSeed(bytes([p + 1]) * 32)) for p in positions]
    shares = [
        ceremony.derive_share(p, {s: _received(c, s, p, params) for s, c in enumerate(sent)}, params, _EPOCH) for p in positions
    ]
    return shares, ceremony.collective_key({p: ceremony.public_parts(share) for p, share in enumerate(shares)}, params, _EPOCH)


def _received(sent: ceremony.Contributions, sender: int, holder: int, params: SecurityParams) -> ceremony.Opening:
    committed, data = ceremony.commitment(sent), ceremony.opening_for(sent, holder)
    return ceremony.verify_opening(data, sender=sender, holder=holder, committed=committed, epoch_id=_EPOCH, params=params)


def encryption(update: np.ndarray, key: PublicKey, params: SecurityParams) -> tuple[Figures, np.ndarray, Ciphertexts]:
    """One site's work, from its update to the bytes it uploads."""
    figures: Figures = {}
    with cpu_seconds(figures, "encrypt_s"):
        packed = pack(update, 1 / _SITES, params)
        ciphertext = encrypt(packed, key, params)
        for at in range(0, len(ciphertext), BLOCKS_PER_PART):
            encode_part(ciphertext[at : at + BLOCKS_PER_PART], PartKind.CIPHERTEXT, params)
    return figures, packed, ciphertext


def round_of(updates: list[np.ndarray], shares: list[KeyShare], key: PublicKey, params: SecurityParams) -> Figures:
    """Ten encryptions, then all that the first member of the quorum does with them."""
    sites = [encryption(update, key, params) for update in updates]
    figures: Figures = {"encrypt_s": sum(f["encrypt_s"] for f, _, _ in sites)}
    quorum = range(params.threshold)
    with cpu_seconds(figures, "sketch_s"):
        plan = sketch_plan(_SEED, len(sites[0][1]), _GROUPS, params)
        sketches = np.stack([sketch(_parts(ciphertext), plan) for _, _, ciphertext in sites])
    c1 = sketches[:, 1]
    given = {p: open_sketches(c1, plan, shares[p], quorum) for p in quorum}
    with cpu_seconds(figures, "share_s"):
        data = encode_sketch_share(open_sketches(c1, plan, shares[0], quorum), range(_SITES), params)
    with cpu_seconds(figures, "verify_s"):
        for p in quorum[1:]:
            verify_sketch_share(c1, given[p], p, quorum, plan, shares[0])
    with cpu_seconds(figures, "combine_s"):
        opened = combine_sketches(sketches, _values(given), quorum, plan)
    error = opened.values - np.stack([plain_sketch(packed, plan) for _, packed, _ in sites])
    if error[..., 1:].any() or not opened.in_range.all():
        raise RuntimeError("the sketches did not open to what they are of: these figures mean nothing")
    return figures | {
        "bytes": len(data) / _SITES,
        "largest": float(np.abs(opened.values).max()),
        "error": float(error[..., 0].std()),
        "predicted": sketch_error_std(params, plan.blocks, _GROUPS),
    }


def _parts(ciphertext: Ciphertexts) -> list[Ciphertexts]:
    return [ciphertext[at : at + BLOCKS_PER_PART] for at in range(0, len(ciphertext), BLOCKS_PER_PART)]


def _values(shares: dict[int, SketchShare]) -> dict[int, np.ndarray]:
    return {p: share.values for p, share in shares.items()}


def measured(n_t: tuple[int, int], parameters: int, repeats: int) -> Figures:
    """Medians for one committee."""
    params = SecurityParams(update_range=0.25, weight_bits=3, threshold=n_t[1], committee=n_t[0], sites=_SITES)
    shares, key = committee(params)
    rng = np.random.default_rng(1)
    updates = [rng.normal(0, 0.05, parameters).astype(np.float32) for _ in range(_SITES)]
    return repeated(partial(round_of, updates, shares, key, params), repeats)


def text(figures: dict[tuple[int, int], Figures], parameters: int, repeats: int) -> str:
    """The section."""
    head = (
        f"{parameters:,} parameters, {_SITES} sites, {_GROUPS} groups, CPU seconds of one member of a quorum; medians "
        f"of {repeats}. {machine()}; load {os.getloadavg()[0]:.1f}; {datetime.now(UTC):%Y-%m-%d}."
    )
    names = [f"{t} of {n}" for n, t in figures]
    rows = [["encrypting ten updates", *(f"{f['encrypt_s']:.3f}" for f in figures.values())]]
    rows += [[label, *(f"{f[name]:.4f}" for f in figures.values())] for name, label in _STEPS.items()]
    rows += [
        ["**all steps, of the encryption**", *(f"**{_ratio(f):.1%}**" for f in figures.values())],
        ["bytes a member and site", *(f"{f['bytes']:.0f}" for f in figures.values())],
        ["noise in the lowest field, units (predicted)", *(f"{f['error']:.2f} ({f['predicted']:.2f})" for f in figures.values())],
    ]
    return head + "\n\n" + table(["", *names], rows)


def _ratio(figures: Figures) -> float:
    return sum(figures[name] for name in _STEPS) / figures["encrypt_s"]


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    figures = {n_t: measured(n_t, options.parameters, options.repeats) for n_t in _COMMITTEES}
    section = text(figures, options.parameters, options.repeats)
    if options.write:
        write_between_markers(_DOCUMENT, "screening", section)
    print(section)


if __name__ == "__main__":
    main()
