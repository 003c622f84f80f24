"""TenSEAL as its tutorials use it, one secret key, ring 8192 with primes [60, 40, 40, 60]: a client, the server, an opening.

    python benchmarks/he_tenseal.py client FOLDER --output figures.json

No part of this package is imported here.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tenseal
from measuring import Figures, cpu_seconds, peak_mb, repeated, report

_DEGREE = 8192
_PRIME_BITS = (60, 40, 40, 60)
_SCALE = 2.0**40


def provision(folder: Path) -> None:
    """One key pair; the server's copy of the context has no secret key."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=_DEGREE, coeff_mod_bit_sizes=list(_PRIME_BITS))
    context.global_scale = _SCALE
    (folder / "client.ctx").write_bytes(context.serialize(save_secret_key=True))
    (folder / "server.ctx").write_bytes(context.serialize(save_secret_key=False))


def client(folder: Path, parameters: int) -> Figures:
    """Encrypt one update as a vector, and serialize it."""
    figures: Figures = {}
    context = tenseal.context_from((folder / "client.ctx").read_bytes())
    update = np.random.default_rng(1).normal(0, 0.05, parameters)
    with cpu_seconds(figures, "encrypt_s"):
        data = tenseal.ckks_vector(context, update).serialize()
    (folder / "update").write_bytes(data)
    return figures | {"upload_bytes": float(len(data))}


def server(folder: Path, sites: int) -> Figures:
    """Weighted mean, one update in memory at a time; serialized again."""
    figures: Figures = {}
    context = tenseal.context_from((folder / "server.ctx").read_bytes())
    total = None
    for _ in range(sites):
        data = (folder / "update").read_bytes()
        with cpu_seconds(figures, "aggregate_s"):
            vector = tenseal.ckks_vector_from(context, data)
            vector *= 1 / sites
            total = vector if total is None else total.add_(vector)
    with cpu_seconds(figures, "aggregate_s"):
        data = total.serialize()
    (folder / "sum").write_bytes(data)
    return figures | {"download_bytes": float(len(data))}


def opening(folder: Path) -> Figures:
    """Load and decrypt the mean with the one secret key."""
    figures: Figures = {}
    context = tenseal.context_from((folder / "client.ctx").read_bytes())
    data = (folder / "sum").read_bytes()
    with cpu_seconds(figures, "open_s"):
        tenseal.ckks_vector_from(context, data).decrypt()
    return figures


def main() -> None:
    """One role, measured in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["client", "server", "open"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    o = parser.parse_args()
    if not (o.folder / "client.ctx").exists():
        provision(o.folder)
    roles = {
        "client": lambda: client(o.folder, o.parameters),
        "server": lambda: server(o.folder, o.sites),
        "open": lambda: opening(o.folder),
    }
    figures = repeated(roles[o.role], o.repeats)
    report({**figures, "peak_mb": peak_mb(), "tenseal": version("tenseal")}, o.output)


if __name__ == "__main__":
    main()
