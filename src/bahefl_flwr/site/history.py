"""What a site remembers of the accepted rounds, to judge the next one by: directions in the clear, and public figures.

It follows from the opened models and the ledger alone, so every site that opened the same rounds holds the same.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import ObjectCorrupt, StoreError
from bahefl_flwr.records import RoundOutcome
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.record import decode_history, encode_history
from bahefl_flwr.site.model import MODEL_FILE, Array, Model, save_model

# Weight of the newest accepted update in the running mean (FLDetector and centred clipping use similar memories).
_NEWEST = np.float32(0.2)
# References are scaled to this many bits: cosines do not depend on it, and their sketches stay far from overflow.
_REFERENCE_BITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The state after finalised round `round` (0: before the first).

    Attributes:
      initial: the model that the task started from, shape (parameters,).
      recent: exponential mean of the accepted mean updates, shape (parameters,); zero before the first.
      figures: public figures of the accepted rounds.
    """

    round: int
    initial: Array
    recent: Array
    figures: History

    def references(self, model: Model) -> dict[str, NDArray[np.int64]]:
        """Public directions to compare updates with, as integers; none before the first accepted round.

        Args:
          model: the one after this round.
        """
        directions = {"recent": self.recent, "drift": model.vector() - self.initial}
        return {name: _integers(vector) for name, vector in directions.items() if vector.any()}

    def after(self, base: Model, model: Model, outcome: RoundOutcome, figures: History) -> Memory:
        """The state after the next round, in which `base` became `model`. A round without an update leaves the directions."""
        recent = self.recent
        if outcome is not RoundOutcome.NONE:
            # Elementwise float32: the same bits on every machine.
            update = model.vector() - base.vector()
            recent = update if not recent.any() else recent + _NEWEST * (update - recent)
        return Memory(round=model.round, initial=self.initial, recent=recent, figures=figures)


def first_memory(model: Model) -> Memory:
    """The state before the first round."""
    vector = model.vector()
    return Memory(round=model.round, initial=vector, recent=np.zeros_like(vector), figures=History.empty())


def keep_model(folder: Path, model: Model, memory: Memory | None) -> None:
    """Save a site's model and what goes with it (None where updates are not screened).

    The memory first, and the one before it stays: a crash in between leaves the model a round behind, with its own memory.
    """
    if memory is not None:
        _save_memory(memory, folder)
    save_model(model, folder / MODEL_FILE)


def _save_memory(memory: Memory, folder: Path) -> None:
    buffer = io.BytesIO()
    figures = np.frombuffer(encode_history(memory.figures), np.uint8)
    np.savez(buffer, initial=memory.initial, recent=memory.recent, figures=figures)
    atomic_write(_path(folder, memory.round), buffer.getvalue())
    for path in sorted(folder.glob("history-*.npz"))[:-2]:
        path.unlink()


def load_memory(folder: Path, model: Model) -> Memory:
    """The state that belongs to a model this site holds.

    Raises:
      StoreError: it is not there or damaged.
    """
    path = _path(folder, model.round)
    try:
        with np.load(path, allow_pickle=False) as file:
            memory = Memory(
                round=model.round,
                initial=file["initial"],
                recent=file["recent"],
                figures=decode_history(file["figures"].tobytes()),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, ObjectCorrupt) as error:
        raise StoreError(
            f"{path} is missing or damaged ({error}), so this site cannot judge updates; delete it and the model, and the site "
            "opens all rounds again"
        ) from None
    if memory.initial.shape != (model.parameters,) or memory.recent.shape != (model.parameters,):
        raise StoreError(f"{path} is of another model; delete it and this site's model, and it opens all rounds again")
    return memory


def _path(folder: Path, round: int) -> Path:
    return folder / f"history-{round:05d}.npz"


def _integers(vector: Array) -> NDArray[np.int64]:
    """Scaled by the power of two that gives the largest entry `_REFERENCE_BITS` bits: exact, and equal at every site."""
    _, exponent = np.frexp(np.abs(vector).max())
    scaled = np.ldexp(vector.astype(np.float64), _REFERENCE_BITS - int(exponent))
    return np.rint(scaled).astype(np.int64)
