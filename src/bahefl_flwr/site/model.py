"""The plain model a site keeps: named float32 arrays, their digest, and their safetensors file.

Plain weights exist only here, in the site's own folder and memory; nothing in this file encrypts or sends.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import StoreError, UpdateError

Array = NDArray[np.float32]
MODEL_FILE = "model.safetensors"
CONFIRMED_FILE = "confirmed.safetensors"
"""The model after the open round, as this site confirmed it; the site's own once the round is finalised."""
BEST_FILE = "best.safetensors"
"""The model after the round with the best validation score, while that is not the newest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model after `round` (0: the initial one), in the order the NumPyClient gives its arrays."""

    round: int
    arrays: tuple[Array, ...]
    names: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of scalars."""
        return sum(a.size for a in self.arrays)

    def vector(self) -> Array:
        """All arrays flattened and joined, shape (parameters,)."""
        return np.concatenate([a.reshape(-1) for a in self.arrays])

    def digest(self) -> bytes:
        """SHA-256 over shapes and little-endian float32 bytes: equal exactly when the models are equal bit for bit."""
        h = hashlib.sha256(b"bahefl-model-1")
        for a in self.arrays:
            h.update(struct.pack(f"<I{a.ndim}Q", a.ndim, *a.shape))
            h.update(np.ascontiguousarray(a, dtype="<f4").tobytes())
        return h.digest()

    def plus(self, mean_update: Array, round: int) -> Model:
        """This model moved by the opened mean update of `round`, in float32: the same bits at every site."""
        moved, at = [], 0
        for a in self.arrays:
            moved.append(np.asarray(a + mean_update[at : at + a.size].reshape(a.shape)))
            at += a.size
        return Model(round=round, arrays=tuple(moved), names=self.names)

    def at(self, round: int) -> Model:
        """The same model after a round that changed nothing."""
        return Model(round=round, arrays=self.arrays, names=self.names)

    def update_towards(self, trained: Sequence[NDArray[np.generic]]) -> Array:
        """The update from this model to `trained`, shape (parameters,).

        Raises:
          UpdateError: `trained` has other shapes, or is not float32, or is not finite.
        """
        other = checked(trained, self.names, self.round)
        for name, mine, theirs in zip(self.names, self.arrays, other.arrays, strict=False):
            if mine.shape != theirs.shape:
                raise UpdateError(f"fit changed the shape of {name} from {mine.shape} to {theirs.shape}; shapes must stay")
        if len(other.arrays) != len(self.arrays):
            raise UpdateError(f"fit returned {len(other.arrays)} arrays, the model has {len(self.arrays)}")
        return other.vector() - self.vector()


def checked(arrays: Sequence[NDArray[np.generic]], names: Sequence[str], round: int) -> Model:
    """A `Model` of a NumPyClient's arrays.

    Raises:
      UpdateError: no arrays, or one that is not floating point or not finite; the message names it.
    """
    if not arrays:
        raise UpdateError("the NumPyClient returned no arrays; there is nothing to encrypt")
    if len(names) != len(arrays):
        names = [f"parameter_{i:03d}" for i in range(len(arrays))]
    for name, a in zip(names, arrays, strict=True):
        if not np.issubdtype(np.asarray(a).dtype, np.floating):
            dtype = np.asarray(a).dtype
            raise UpdateError(f"{name} has dtype {dtype}; only floating-point arrays can be averaged: keep counters out")
        if not np.isfinite(a).all():
            raise UpdateError(f"{name} holds NaN or infinity; lower the learning rate or look at the data of this site")
    return Model(round=round, arrays=tuple(np.array(a, dtype=np.float32, order="C") for a in arrays), names=tuple(names))


def save_model(model: Model, path: Path) -> None:
    """Write `model` as safetensors, atomically, with its round and digest as metadata."""
    stated = {"round": model.round, "sha256": model.digest().hex(), "order": list(model.names)}
    # One entry, because safetensors writes several in any order: equal models are to be equal files.
    metadata = {"bahefl": json.dumps(stated)}
    atomic_write(path, save(dict(zip(model.names, model.arrays, strict=True)), metadata=metadata))


def load_model(path: Path) -> Model:
    """Read what `save_model` wrote.

    Raises:
      StoreError: the file is damaged: its arrays do not have the digest it names.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            stated = json.loads(file.metadata()["bahefl"])
            names = tuple(stated["order"])
            digest = stated["sha256"]
            model = Model(round=int(stated["round"]), names=names, arrays=tuple(file.get_tensor(n) for n in names))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{path} is not a model file of bahefl ({error}); delete it and the site opens it again") from None
    if model.digest().hex() != digest:
        raise StoreError(f"{path} was altered: its arrays do not have the digest it names; delete it and the site opens it again")
    return model


def model_parameters(site_folder: Path) -> int:
    """Number of scalars of the model a site keeps.

    Raises:
      StoreError: the site has no model yet; it never trained in this run.
    """
    path = site_folder / MODEL_FILE
    if not path.exists():
        raise StoreError(f"{path} is not there: this site has not taken part in the run yet, so it cannot add or verify")
    with safe_open(path, framework="numpy") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
