"""Known answers: the bytes of this release are those of every release with wire version 1."""

import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from make_he_vectors import vectors  # noqa: E402

KNOWN = json.loads((HERE / "he_vectors.json").read_text())
MADE = vectors()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_scheme_gives_the_known_answers(name: str) -> None:
    """Samplers, keys, ciphertexts, sums, shares and openings are those that were written down."""
    assert MADE[name] == KNOWN[name]


def test_no_vector_is_left_out() -> None:
    """The file holds everything the script makes."""
    assert set(MADE) == set(KNOWN)
