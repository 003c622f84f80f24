"""Altered parts and TenSEAL containers in a long-lived process: it never dies, and does not grow (fault matrix, 25 and 26)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tenseal_under_fire


def under_fire(cases: int) -> dict[str, int]:
    """What is left of the process after so many cases."""
    command = [sys.executable, tenseal_under_fire.__file__, str(cases), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended with {done.returncode} (-11: killed by a bad pointer): {done.stderr[-2000:]}"
    return dict(json.loads(done.stdout))


def test_tenseal_survives_what_the_parser_lets_through() -> None:
    """A hundred parts and containers; most are refused, some are ciphertexts of something else, which only the digest tells."""
    told = under_fire(100)
    assert told["refused"] > told["added"] > 0
    assert told["containers refused"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tenseal_neither_dies_nor_grows() -> None:
    """Five thousand of each: unhardened, one in 430 killed the process, and single loads took hundreds of MB."""
    assert under_fire(5000)["grown_kib"] < 20_000
