"""Learning rate and loss stage as closed forms of the GLOBAL epoch, so that a stateless ClientApp carries nothing between rounds.

Pure arithmetic: no torch here. A schedule that restarts each round costs Dice.
"""

from __future__ import annotations

import math

from bahefl_flwr.setting_groups import TrainSettings

# Where the warm-up starts and where the cosine ends, as fractions of train.lr (the measured runs: research/lesion.md, B4).
WARMUP_START = 0.1
FLOOR = 0.01


def lr_at(epoch: float, total_epochs: int, settings: TrainSettings) -> float:
    """Learning rate at a global epoch.

    `restarts` equals PyTorch's SequentialLR(LinearLR, CosineAnnealingWarmRestarts) stepped once per epoch (the paper's schedule);
    `cosine` is continuous: a warm-up of a single epoch must rise within it.

    Args:
      epoch: global epoch = round * local_epochs + local epoch, from 0; fractions are steps within an epoch.
      total_epochs: epochs of the whole task, at least 1 (`cosine` only).
    """
    warmup = settings.warmup_epochs
    if settings.schedule == "restarts":
        epoch = math.floor(epoch)
    if epoch < warmup:
        return settings.lr * (WARMUP_START + (1 - WARMUP_START) * epoch / warmup)
    if settings.schedule == "restarts":
        return _annealed(settings.lr, _restart_progress(epoch - warmup, settings.restart_epochs, settings.restart_mult))
    return _annealed(settings.lr, min(1.0, (epoch - warmup) / max(1, total_epochs - warmup)))


def dice_weight_at(epoch: float, total_epochs: int, settings: TrainSettings) -> float:
    """Weight of the Dice loss at a global epoch; the rest is cross-entropy (paper, section 4: early, middle, late)."""
    progress = epoch / max(1, total_epochs)
    if progress < settings.stage_middle_at:
        return settings.dice_early
    return settings.dice_middle if progress < settings.stage_late_at else settings.dice_late


def _annealed(lr: float, progress: float) -> float:
    return lr * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2)


def _restart_progress(epoch: float, first: int, mult: int) -> float:
    """Fraction of the current cosine that is over; cosine k lasts first * mult**k epochs."""
    length = first
    while epoch >= length:
        epoch -= length
        length *= mult
    return epoch / length
