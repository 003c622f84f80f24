"""The plain model a site keeps: named float32 arrays, their digest, and their safetensors file.

Plain weights exist only here, in the site's own folder and memory; nothing in this file encrypts or sends.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
class Counter:
    """A whole number of shape (), such as BatchNorm's `num_batches_tracked`, at `position` among the NumPyClient's arrays.

    No mean of updates can carry it, so it is never sent: every site gives its NumPyClient the value of the first weights.
    """

    position: int
    name: str
    dtype: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model after `round` (0: the initial one), in the order the NumPyClient gives its arrays.

    Attributes:
      arrays: all of it that is learned. names: of `arrays`.
      counters: what is not, by ascending position. Not part of the digest.
    """

    round: int
    arrays: tuple[Array, ...]
    names: tuple[str, ...]
    counters: tuple[Counter, ...] = ()

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
        return replace(self, round=round, arrays=tuple(moved))

    def at(self, round: int) -> Model:
        """The same model after a round that changed nothing."""
        return replace(self, round=round)

    def for_client(self) -> list[NDArray[np.generic]]:
        """Copies of all arrays as the NumPyClient's `get_parameters` orders them, its counters included."""
        arrays: list[NDArray[np.generic]] = [a.copy() for a in self.arrays]
        for counter in self.counters:
            arrays.insert(counter.position, np.array(counter.value, dtype=counter.dtype))
        return arrays

    def update_towards(self, trained: object, source: str = "fit") -> Array:
        """The update from this model to `trained`, shape (parameters,).

        Args:
          trained: what the NumPyClient's fit returned. source: who returned it, to begin a message with.

        Raises:
          UpdateError: `trained` is no list of arrays, has another number of them or other shapes, or `checked` refuses it.
        """
        given = _listed(trained, source)
        wanted = len(self.arrays) + len(self.counters)
        if len(given) != wanted:
            raise UpdateError(f"{source} gave {len(given)} arrays, get_parameters {wanted}; give the same ones in the same order")
        other = checked(given, _all_names(self), self.round, source)
        if [c.position for c in other.counters] != [c.position for c in self.counters]:
            raise UpdateError(
                f"{source} gave whole numbers at positions {[c.position for c in other.counters]}, get_parameters at "
                f"{[c.position for c in self.counters]}; give the same arrays in the same order"
            )
        for name, mine, theirs in zip(self.names, self.arrays, other.arrays, strict=True):
            if mine.shape != theirs.shape:
                raise UpdateError(f"{source} changed the shape of {name} from {mine.shape} to {theirs.shape}; shapes must stay")
        return other.vector() - self.vector()


def checked(arrays: object, names: Sequence[str], round: int, source: str = "get_parameters") -> Model:
    """A `Model` of a NumPyClient's arrays, in float32.

    Args:
      names: of all of them; where there are not as many, or one comes twice, arrays are numbered.
      source: who gave the arrays, to begin a message with.

    Raises:
      UpdateError: no list of arrays, or one that is neither floating point nor a counter, or not finite in float32; names it.
    """
    given = _listed(arrays, source)
    if len(set(names)) != len(given):
        names = [f"parameter_{i:03d}" for i in range(len(given))]
    floats: list[tuple[str, Array]] = []
    counters: list[Counter] = []
    for position, (name, a) in enumerate(zip(map(str, names), given, strict=True)):
        which = f"{source}: array {position} ({name})"
        if not isinstance(a, np.ndarray | np.generic) or isinstance(a, np.ma.MaskedArray):
            kind = f"{type(a).__module__}.{type(a).__qualname__}"
            raise UpdateError(f"{which} is a {kind}, not a numpy array; a tensor becomes one by .detach().cpu().numpy()")
        if a.ndim == 0 and a.dtype.kind in "iub":
            counters.append(Counter(position=position, name=name, dtype=str(a.dtype), value=int(a)))
        else:
            floats.append((name, _float32(a, which)))
    if not sum(a.size for _, a in floats):
        raise UpdateError(f"{source} gave arrays that hold no floating-point number; there is nothing to encrypt")
    return Model(
        round=round,
        arrays=tuple(a for _, a in floats),
        names=tuple(name for name, _ in floats),
        counters=tuple(counters),
    )


def _listed(arrays: object, source: str) -> Sequence[object]:
    if not isinstance(arrays, list | tuple):
        raise UpdateError(f"{source} gave a {type(arrays).__name__}, not a list of numpy arrays")
    if not arrays:
        raise UpdateError(f"{source} gave no arrays; there is nothing to encrypt: give the model's weights, as numpy arrays")
    return arrays


def _float32(a: NDArray[np.generic] | np.generic, which: str) -> Array:
    if not np.issubdtype(a.dtype, np.floating):
        raise UpdateError(
            f"{which} has dtype {a.dtype} and shape {a.shape}; only floating-point arrays can be averaged: leave it out of what "
            "the NumPyClient gives and takes, or convert it to float32"
        )
    with np.errstate(over="ignore"):
        single = np.array(a, dtype=np.float32, order="C")
    if not np.isfinite(single).all():
        if np.isfinite(np.asarray(a, np.float64)).all():
            raise UpdateError(f"{which} holds {float(np.abs(a).max()):g}, beyond the range of float32, in which models are kept")
        raise UpdateError(f"{which} holds NaN or infinity; lower the learning rate or look at the data of this site")
    return single


def _all_names(model: Model) -> list[str]:
    names = list(model.names)
    for counter in model.counters:
        names.insert(counter.position, counter.name)
    return names


def save_model(model: Model, path: Path) -> None:
    """Write `model` as safetensors, atomically, with its round and digest as metadata."""
    stated: dict[str, object] = {"round": model.round, "sha256": model.digest().hex(), "order": list(model.names)}
    if model.counters:
        stated["counters"] = [[c.position, c.name, c.dtype, c.value] for c in model.counters]
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
            counters = tuple(Counter(position=p, name=n, dtype=d, value=v) for p, n, d, v in stated.get("counters", ()))
            arrays = tuple(file.get_tensor(n) for n in names)
            model = Model(round=int(stated["round"]), names=names, arrays=arrays, counters=counters)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"{path} is not a model file of bahefl ({error}); while the run goes on: delete it, and the site opens it again"
        ) from None
    if model.digest().hex() != digest:
        raise StoreError(
            f"{path} was altered: its arrays do not have the digest it names; while the run goes on: delete it, and the site "
            "opens it again"
        )
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
