"""A small local training with a checkpoint; as a script, one whose process is killed (kill -9) right after some epoch.

python killed_fit.py CHECKPOINT EPOCHS
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from bahefl_flwr.lesion import checkpoint, training
from bahefl_flwr.lesion.data import Slices
from bahefl_flwr.lesion.model import LightUNet, initial_weights
from bahefl_flwr.settings import compose

EPOCHS = 4
CLOCK = training.Clock(first_epoch=4, total_epochs=12)


def toy_slices(count: int = 6) -> Slices:
    """Bright squares on every second slice."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, 32, 32), np.uint8)
    masks[::2, 8:16, 8:16] = 1
    images = rng.integers(0, 90, (count, 32, 32), np.uint8) + masks * np.uint8(120)
    return Slices(images=images, masks=masks, names=tuple(map(str, range(count))))


def toy_fit(file: Path | None, *, slices: Slices | None = None, seed: int = 0) -> tuple[training.FitReport, training.Weights]:
    """Train with augmentation, in batches of two; the report and the weights."""
    settings = compose([f"train.local_epochs={EPOCHS}", "train.batch_size=2", "train.precision=fp32", "train.device=cpu"]).train
    model = LightUNet(4, 2, 2)
    training.load_weights(model, initial_weights(model, 0))
    report = training.fit(
        model, slices or toy_slices(), settings, clock=CLOCK, seed=seed, engine=training.pick_engine(settings),
        checkpoint_file=file,
    )  # fmt: skip
    return report, training.weights_of(model)


def kill_after(epochs: int) -> None:
    """Let this process be killed as soon as the checkpoint of so many epochs is on disk."""
    save = checkpoint.save

    def then_kill(path: Path, purpose: str, progress: checkpoint.Progress) -> None:
        save(path, purpose, progress)
        if progress.epochs == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save = then_kill


if __name__ == "__main__":
    kill_after(int(sys.argv[2]))
    toy_fit(Path(sys.argv[1]))
