"""The plain model at a site: digest, update, file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bahefl_flwr.errors import StoreError, UpdateError
from bahefl_flwr.site.model import MODEL_FILE, Model, checked, load_model, model_parameters, save_model


def some_model(seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(3, 4)).astype(np.float32), np.array(rng.normal(), np.float32), rng.normal(size=5)]
    return checked(arrays, ("w", "scale", "b"), 2)


def test_saved_model_loads_with_equal_digest(tmp_path: Path) -> None:
    """Arrays (also 0-dimensional and Fortran-ordered ones), names, order and round survive the file bit for bit."""
    model = checked([np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), np.float32(2) * np.ones(())], ("z", "a"), 7)
    save_model(model, tmp_path / MODEL_FILE)
    loaded = load_model(tmp_path / MODEL_FILE)
    assert (loaded.digest(), loaded.names, loaded.round) == (model.digest(), ("z", "a"), 7)


def test_altered_model_file_is_refused(tmp_path: Path) -> None:
    """A model file with one exchanged byte is not loaded, and the message says what to do."""
    path = tmp_path / MODEL_FILE
    save_model(some_model(), path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="altered"):
        load_model(path)


def test_update_added_to_its_base_gives_the_trained_model() -> None:
    """base + (trained - base) is the trained model up to float32 rounding."""
    base, trained = some_model(0), some_model(1)
    moved = base.plus(base.update_towards(trained.arrays), 3)
    np.testing.assert_allclose(moved.vector(), trained.vector(), atol=1e-6)
    assert moved.round == 3


def test_digest_tells_shapes_apart() -> None:
    """Equal bytes in other shapes are another model."""
    a = checked([np.zeros((2, 3), np.float32)], ("w",), 0)
    b = checked([np.zeros((3, 2), np.float32)], ("w",), 0)
    assert a.digest() != b.digest()


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ([], "no arrays"),
        ([np.arange(3)], "int64"),
        ([np.array([1.0, np.nan])], "NaN"),
        ([np.array([np.inf], np.float32)], "NaN or infinity"),
    ],
)
def test_unfit_arrays_are_refused(arrays: list[np.ndarray], complaint: str) -> None:
    """Nothing, integers, NaN and infinity are refused before encryption, each by name."""
    with pytest.raises(UpdateError, match=complaint):
        checked(arrays, ("w",) * len(arrays), 0)


def test_changed_shape_is_refused() -> None:
    """A fit that returns another shape, or another number of arrays, is refused."""
    base = some_model()
    with pytest.raises(UpdateError, match="shape of w"):
        base.update_towards([np.zeros((4, 3), np.float32), *base.arrays[1:]])
    with pytest.raises(UpdateError, match="2 arrays"):
        base.update_towards(base.arrays[:2])


def test_parameter_count_is_read_from_the_file(tmp_path: Path) -> None:
    """A coordinator learns the size of an update from its own model file; without one it says why it cannot add."""
    with pytest.raises(StoreError, match="not taken part"):
        model_parameters(tmp_path)
    save_model(some_model(), tmp_path / MODEL_FILE)
    assert model_parameters(tmp_path) == 18
