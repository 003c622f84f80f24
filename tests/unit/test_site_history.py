"""What a site remembers of accepted rounds: kept with the model it belongs to, and the same at every site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import StoreError
from bahefl_flwr.records import RoundOutcome
from bahefl_flwr.screening.history import History
from bahefl_flwr.site.history import Memory, first_memory, keep_model, load_memory
from bahefl_flwr.site.model import MODEL_FILE, Model, load_model

FIGURES = History(norm=5 << 20, alignment=None, spread=7, reputation={3: 1000}, garbage=0b1000, rounds=2)


def model(round: int, *values: float) -> Model:
    """A model of one array."""
    return Model(round=round, arrays=(np.array(values, np.float32),), names=("w",))


def test_the_first_memory_knows_no_direction() -> None:
    """Before the first accepted round there is nothing to compare an update with."""
    start = model(0, 1.0, 2.0)
    assert first_memory(start).references(start) == {}
    assert first_memory(start).figures == History.empty()


def test_the_recent_direction_is_an_exponential_mean() -> None:
    """The first accepted update is it; a later one counts a fifth."""
    start, one, two = model(0, 0.0, 0.0), model(1, 1.0, 0.0), model(2, 1.0, 1.0)
    after_one = first_memory(start).after(start, one, RoundOutcome.WHOLE, FIGURES)
    after_two = after_one.after(one, two, RoundOutcome.FIRST, FIGURES)
    np.testing.assert_array_equal(after_one.recent, [1, 0])
    np.testing.assert_allclose(after_two.recent, [0.8, 0.2])
    assert after_two.round == 2


def test_a_round_without_update_leaves_the_directions() -> None:
    """Only its figures change."""
    start = model(0, 1.0, 2.0)
    held = first_memory(start).after(start, model(1, 1.0, 2.0), RoundOutcome.NONE, FIGURES)
    assert not held.recent.any()
    assert (held.round, held.figures) == (1, FIGURES)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=20).filter(any), st.integers(-20, 20))
def test_references_keep_their_direction_whatever_their_size(values: list[float], exponent: int) -> None:
    """Scaled by a power of two to 20 bits: another power of two gives the same integers."""
    start = model(0, *[0.0] * len(values))
    first, second = (
        Memory(round=1, initial=start.vector(), recent=np.array(values, np.float32) * np.float32(scale), figures=FIGURES)
        for scale in (1.0, 2.0**exponent)
    )
    one, other = (m.references(start)["recent"] for m in (first, second))
    np.testing.assert_array_equal(one, other)
    assert 1 << 19 <= np.abs(one).max() <= 1 << 20


def test_model_and_memory_come_back_together(tmp_path: Path) -> None:
    """Written and read, bit for bit; the two newest rounds are kept, older ones go."""
    start, memory = model(0, 1.0, 2.0), first_memory(model(0, 1.0, 2.0))
    keep_model(tmp_path, start, memory)
    for number in (1, 2, 3):
        after = model(number, 1.0 + number, 2.0)
        memory = memory.after(start, after, RoundOutcome.WHOLE, FIGURES)
        keep_model(tmp_path, after, memory)
        start = after
    loaded = load_memory(tmp_path, load_model(tmp_path / MODEL_FILE))
    np.testing.assert_array_equal(loaded.recent, memory.recent)
    assert (loaded.round, loaded.figures) == (3, FIGURES)
    assert len(list(tmp_path.glob("history-*.npz"))) == 2


def test_a_crash_before_the_model_was_saved_leaves_the_pair_before(tmp_path: Path) -> None:
    """The memory of the next round is there already, and the old model still has its own."""
    start = model(0, 1.0, 2.0)
    keep_model(tmp_path, start, first_memory(start))
    newer = first_memory(start).after(start, model(1, 3.0, 2.0), RoundOutcome.WHOLE, FIGURES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    keep_model(elsewhere, model(1, 3.0, 2.0), newer)
    (elsewhere / "history-00001.npz").rename(tmp_path / "history-00001.npz")
    assert load_memory(tmp_path, load_model(tmp_path / MODEL_FILE)).round == 0


@pytest.mark.parametrize("damage", ["missing", "torn", "other model"])
def test_a_memory_that_cannot_be_used_says_what_to_do(tmp_path: Path, damage: str) -> None:
    """The site cannot judge without it, and is told to open its rounds again."""
    start = model(0, 1.0, 2.0)
    keep_model(tmp_path, start, first_memory(start))
    path = tmp_path / "history-00000.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match="opens all rounds again"):
        load_memory(tmp_path, model(0, 1.0) if damage == "other model" else start)
