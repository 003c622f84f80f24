"""The noise budget in docs/security.md, computed by `bahefl_flwr.he.params`.

    python benchmarks/noise_budget.py --write
    python benchmarks/noise_budget.py --check

A test runs --check, so the document cannot fall behind the code.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from document import between_markers, table, write_between_markers

from bahefl_flwr.he import params as p
from bahefl_flwr.he.keys import held_subsets
from bahefl_flwr.he.params import SecurityParams

_DOCUMENT = Path(__file__).parents[1] / "docs" / "security.md"
_MARKER = "noise budget"
_SKETCHES = "sketch noise"
_CHEATS = "cheats"
_COMMITTEES = ((3, 2), (5, 3), (7, 4), (10, 6), (5, 1))
_WEIGHT_BITS = (0, 3)
_SITES = 16
_WORK = (0, 32, 48, 64, 80)
_PARAMETERS = 1_000_000
_HEAD = (
    "n, t", "weight bits", "subset keys", "held by one", "fresh noise", "noise of the sum", "flooding, one key",
    "noise of the opening", "noise bits", "field bits", "error / R", "failure", "divergence",
)  # fmt: skip


def text() -> str:
    """The table and the two lines that need no table."""
    modulus = math.log2(math.prod(p.DATA_PRIMES))
    with_special = modulus + math.log2(p.SPECIAL_PRIME)
    security = (
        f"Keys and ciphertexts: degree {p.RING_DEGREE}, modulus 2^{modulus:.0f}, estimated {_security(modulus)} bits. With the "
        f"special prime, of which no residue exists: 2^{with_special:.0f} and {_security(with_special)} bits. "
        f"For sums of up to {_SITES} ciphertexts and {_PARAMETERS:,} parameters:"
    )
    return security + "\n\n" + table(_HEAD, rows())


def sketches() -> str:
    """The same for the group sums of one update's sketch."""
    head = (
        "n, t",
        "groups",
        "noise of a sum",
        "flooding, one key",
        "noise in the lowest field, units",
        "a field holds",
        "divergence",
    )
    return f"For one update of {_PARAMETERS:,} parameters, weight bits 3:\n\n" + table(head, sketch_rows())


def sketch_rows() -> Iterator[list[str]]:
    """One row per committee and number of groups."""
    for committee, threshold in _COMMITTEES:
        params = SecurityParams(update_range=1.0, weight_bits=3, threshold=threshold, committee=committee, sites=_SITES)
        blocks = params.blocks(_PARAMETERS)
        for groups in (64, 256):
            yield [
                f"{committee}, {threshold}",
                str(groups),
                _power(p.sketch_noise_std(params, blocks, groups)),
                f"2^{p.sketch_sigma_log2(params, blocks, groups)}",
                f"{p.sketch_error_std(params, blocks, groups):.1f}",
                f"{p.largest_field_sum(params):,}",
                _power(p.sketch_divergence(params, blocks, groups)),
            ]


def cheats() -> str:
    """What sites that use the room of their proofs learn of the key in an epoch, by the work they spend."""
    head = (
        "sites",
        "weight bits",
        "in league",
        "flooding, one key",
        *(f"nats, {f'2^{work}' if work else 'no'} hashes" for work in _WORK),
        "of sketches, 2^32",
        "of sketches, 2^80",
        "estimate after 2^80, bits",
    )
    return f"3 of 5 key holders, updates of {_PARAMETERS:,} parameters, 256 groups:\n\n" + table(head, cheat_rows())


def cheat_rows() -> Iterator[list[str]]:
    """One row per number of sites and weight bits."""
    for sites in (5, 10, 16):
        for weight_bits in _WEIGHT_BITS:
            params = SecurityParams(update_range=1.0, weight_bits=weight_bits, threshold=3, committee=5, sites=sites)
            blocks = params.blocks(_PARAMETERS)
            sums = [p.epoch_divergence(params, blocks, work) for work in _WORK]
            asked = [p.epoch_sketch_divergence(params, blocks, 256, work) for work in (32, 80)]
            yield [
                str(sites),
                str(weight_bits),
                str(p.colluding_sites(params)),
                f"2^{params.flooding_sigma_log2}",
                *(f"{nats:.2f}" for nats in (*sums, *asked)),
                f"{p.security_after(sums[-1] + asked[-1]):.1f}",
            ]


def rows() -> Iterator[list[str]]:
    """One row per committee and weight bits; logarithms to base 2, standard deviations."""
    for committee, threshold in _COMMITTEES:
        for weight_bits in _WEIGHT_BITS:
            yield row(
                SecurityParams(update_range=1.0, weight_bits=weight_bits, threshold=threshold, committee=committee, sites=_SITES)
            )


def row(params: SecurityParams) -> list[str]:
    """The budget of one set of parameters."""
    keys = p.subset_count(params)
    opening = math.hypot(2.0**params.flooding_sigma_log2 * math.sqrt(keys), p.aggregate_noise_std(params))
    return [
        f"{params.committee}, {params.threshold}",
        str(params.weight_bits),
        str(keys),
        str(len(held_subsets(0, params.committee, params.threshold))),
        _power(p.fresh_noise_std(params)),
        _power(p.aggregate_noise_std(params)),
        f"2^{params.flooding_sigma_log2}",
        _power(opening),
        str(params.noise_bits),
        str(params.field_bits),
        f"{p.decoding_error_std(params):.1e}",
        # Smaller bounds say no more than "never".
        f"2^{p.decoding_failure_log2(params):.0f}" if p.decoding_failure_log2(params) > -1000 else "< 2^-1000",
        _power(p.opening_divergence(params, params.blocks(_PARAMETERS))),
    ]


def _power(value: float) -> str:
    return f"2^{math.log2(value):.1f}"


def _security(modulus_bits: float) -> str:
    return f"{p.security_bits(p.RING_DEGREE, modulus_bits):.0f}"


def main() -> None:
    """Print, write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.write:
        write_between_markers(_DOCUMENT, _MARKER, text())
        write_between_markers(_DOCUMENT, _SKETCHES, sketches())
        write_between_markers(_DOCUMENT, _CHEATS, cheats())
    elif options.check and [between_markers(_DOCUMENT, name) for name in (_MARKER, _SKETCHES, _CHEATS)] != [
        text(),
        sketches(),
        cheats(),
    ]:
        sys.exit("docs/security.md has another noise budget than the code: run python benchmarks/noise_budget.py --write")
    elif not options.check:
        print(text(), sketches(), cheats(), sep="\n\n")


if __name__ == "__main__":
    main()
