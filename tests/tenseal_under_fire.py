"""A process that parses altered parts and has TenSEAL add whatever the parser lets through: run by test_tenseal_fuzz.py.

By itself, because TenSEAL dies of malformed input: the test sees how this process ended. Prints how many
parts were refused, how many were added, and by how many KiB its memory grew from the first third of the cases on.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from bahefl_flwr.errors import MalformedCiphertext
from bahefl_flwr.he.ckks import TenSealAdder, add
from bahefl_flwr.he.params import DATA_PRIMES, SecurityParams
from bahefl_flwr.he.seal_format import PartKind, build_vector, decode_part, encode_part, parse_vector

PARAMS = SecurityParams(update_range=0.25, weight_bits=3, threshold=2, committee=3, sites=4)
# Two blocks: fewer or more than the container says is what TenSEAL died of most.
_BLOCKS = 2


def main(cases: int, seed: int) -> None:
    """Run so many cases."""
    rng, counts, adder = random.Random(seed), Counter[str](), TenSealAdder(PARAMS)
    residues = np.random.default_rng(seed).integers(0, min(DATA_PRIMES), (_BLOCKS, 2, 3, PARAMS.ring_degree), dtype=np.uint32)
    honest = encode_part(residues, PartKind.CIPHERTEXT, PARAMS)
    vector = build_vector(residues, 1024.0, (4, 3), PARAMS)
    before = 0
    for case in range(cases):
        if case == cases // 3:
            before = memory_kib()
        counts[one(altered(honest, rng), residues, adder)] += 1
        counts[container(altered(vector, rng))] += 1
    print(json.dumps({**counts, "grown_kib": memory_kib() - before}))


def one(data: bytes, residues: np.ndarray, adder: TenSealAdder) -> str:
    """A part as a coordinator treats it."""
    try:
        found = decode_part(data, PartKind.CIPHERTEXT, PARAMS)
    except MalformedCiphertext:
        return "refused"
    if len(found) != _BLOCKS:
        return "refused"
    # What is let through is a ciphertext like any other: both adders come to the same bytes.
    assert np.array_equal(adder([found, residues], [8, 3]), add([found, residues], [8, 3], PARAMS))
    return "added"


def container(data: bytes) -> str:
    """A TenSEAL vector, as it comes back from TenSEAL."""
    try:
        parse_vector(data, _BLOCKS, PARAMS)
    except MalformedCiphertext:
        return "containers refused"
    return "containers read"


def altered(honest: bytes, rng: random.Random) -> bytes:
    """One to three changes; most of them at the beginning, where counts, sizes and lengths are."""
    data = bytearray(honest)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(1 + min(len(data), rng.choice((40, 200, len(data)))))
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), rng.randbytes(8)))
            case 2:
                del data[at : at + rng.choice((1, 8, 4096))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 8, 4096)))
            case _:
                del data[at:]
    return bytes(data)


def memory_kib() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
