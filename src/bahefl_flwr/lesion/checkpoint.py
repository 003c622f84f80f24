"""Where a local training stands after an epoch, so that a site that was killed goes on instead of starting again.

A file holds plain weights: it belongs into the site's own folder, and never travels.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bahefl_flwr.durable import atomic_write


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a training has come.

    Attributes:
      epochs, steps: finished. loss: mean over the last epoch's batches. lr: learning rate of the last step.
      states: `state_dict` of model, optimiser and gradient scaler.
    """

    epochs: int = 0
    steps: int = 0
    loss: float = float("nan")
    lr: float = 0.0
    states: dict[str, Any] = field(default_factory=dict)


def purpose(arrays: Iterable[npt.NDArray[Any]], *facts: object) -> str:
    """SHA-256 (hex) of everything that decides the outcome of a training: a file of another one is never continued.

    Args:
      arrays: weights at the start, images, masks. facts: what else; their `repr` must tell them apart.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save(path: Path, purpose: str, progress: Progress) -> None:
    """Write a checkpoint; when this returns it survives a crash.

    Raises:
      OSError: the disk refused; the checkpoint before it is still there.
    """
    buffer = io.BytesIO()
    torch.save({"purpose": purpose, **asdict(progress)}, buffer)
    atomic_write(path, buffer.getvalue())


def load(path: Path, purpose: str) -> Progress | None:
    """What `save` wrote for the same purpose; None if there is no such file, or it is damaged or another training's."""
    try:
        # weights_only: tensors and plain values, nothing that runs.
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found = stored.pop("purpose")
        return Progress(**stored) if found == purpose else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError):
        return None
