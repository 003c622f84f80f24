"""Learning rate and loss stages as functions of the global epoch."""

from __future__ import annotations

import warnings

import pytest
import torch

from bahefl_flwr.lesion.schedule import FLOOR, WARMUP_START, dice_weight_at, lr_at
from bahefl_flwr.setting_groups import TrainSettings
from bahefl_flwr.settings import compose

PAPER = compose(["experiment=paper"]).train
COSINE = compose(["train.schedule=cosine", "train.warmup_epochs=2", "train.lr=1e-3"]).train


def test_restarts_equal_pytorchs_schedulers() -> None:
    """Over 60 epochs the closed form equals LinearLR followed by CosineAnnealingWarmRestarts to rounding."""
    ours = [lr_at(epoch, 900, PAPER) for epoch in range(60)]

    assert ours == pytest.approx(_pytorch(PAPER, 60), rel=1e-12)


def test_restarts_hold_still_within_an_epoch() -> None:
    """The paper's schedule is stepped per epoch."""
    assert lr_at(7.9, 900, PAPER) == lr_at(7, 900, PAPER)


def test_cosine_rises_within_the_warm_up_and_ends_at_the_floor() -> None:
    """The default schedule starts at a tenth, peaks after the warm-up and ends at a hundredth of train.lr."""
    assert lr_at(0, 20, COSINE) == pytest.approx(1e-3 * WARMUP_START)
    assert lr_at(1, 20, COSINE) == pytest.approx(1e-3 * (WARMUP_START + 1) / 2)
    assert lr_at(2, 20, COSINE) == pytest.approx(1e-3)
    assert lr_at(20, 20, COSINE) == pytest.approx(1e-3 * FLOOR)


def test_rounds_beyond_the_last_stay_at_the_floor() -> None:
    """A task that goes on after its planned end never starts to climb the cosine again."""
    assert lr_at(35, 20, COSINE) == pytest.approx(1e-3 * FLOOR)


@pytest.mark.parametrize(("epoch", "weight"), [(0, 1.0), (33, 0.7), (66, 0.5), (99, 0.5)])
def test_paper_changes_its_loss_by_thirds(epoch: int, weight: float) -> None:
    """Dice alone, then 0.7 Dice, then half and half."""
    assert dice_weight_at(epoch, 99, PAPER) == weight


def test_default_never_trains_on_dice_alone() -> None:
    """A floor of cross-entropy keeps a site of almost only negative slices from collapsing the model."""
    default = compose([]).train

    assert max(dice_weight_at(epoch, 24, default) for epoch in range(24)) <= 0.9


def _pytorch(settings: TrainSettings, epochs: int) -> list[float]:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.lr)
    schedulers = torch.optim.lr_scheduler
    warm_up = schedulers.LinearLR(optimiser, WARMUP_START, 1.0, settings.warmup_epochs)
    restarts = schedulers.CosineAnnealingWarmRestarts(
        optimiser, settings.restart_epochs, settings.restart_mult, eta_min=settings.lr * FLOOR
    )
    both = schedulers.SequentialLR(optimiser, [warm_up, restarts], [settings.warmup_epochs])
    rates = []
    for _ in range(epochs):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            both.step()
    return rates
