"""The staged loss."""

from __future__ import annotations

import math

import pytest
import torch

from bahefl_flwr.lesion.loss import soft_dice_loss, staged_loss


def test_a_perfect_answer_costs_nothing() -> None:
    """Confident and right everywhere: both halves of the loss vanish."""
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1

    assert float(staged_loss([(truth - 0.5) * 80], truth, 0.5)) == pytest.approx(0, abs=1e-6)


def test_dice_is_pooled_over_the_batch() -> None:
    """A slice without lesion beside one with lesion changes nothing as long as it is answered right."""
    truth, logits = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), -80.0)
    truth[0, 0, 0, :2] = 1
    logits[0, 0, 0, :1] = 80

    assert float(soft_dice_loss(logits, truth)) == pytest.approx(1 - (2 * 1 + 1) / (1 + 2 + 1), abs=1e-6)


def test_a_batch_without_lesion_has_a_finite_loss() -> None:
    """The smoothing makes an all-negative batch well defined, and best answered with nothing."""
    truth = torch.zeros(2, 1, 4, 4)

    silent, loud = (float(staged_loss([torch.full_like(truth, v)], truth, 1.0)) for v in (-80.0, 80.0))

    assert silent == pytest.approx(0, abs=1e-6)
    assert 0.9 < loud < 1


def test_heads_weigh_half_of_the_one_before() -> None:
    """Head k has weight 2**-k, and the weights sum to one."""
    truth = torch.zeros(1, 1, 8, 8)
    right, undecided = torch.full((1, 1, 8, 8), -80.0), torch.zeros(1, 1, 4, 4)

    loss = staged_loss([right, undecided, undecided[..., :2, :2]], truth, 0.0)

    assert float(loss) == pytest.approx(math.log(2) * (0.5 + 0.25) / 1.75)


def test_side_heads_see_the_mask_by_area() -> None:
    """A side head's target is the share of lesion in its larger pixels."""
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., 0, 0] = 1
    main = (truth - 0.5) * 80

    exact = torch.full((1, 1, 2, 2), -80.0)
    exact[..., 0, 0] = math.log(0.25 / 0.75)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 4
    assert float(staged_loss([main, exact], truth, 0.0)) == pytest.approx(entropy * 0.5 / 1.5, rel=1e-5)


def test_half_precision_logits_are_judged_in_fp32() -> None:
    """Logits of bf16 autocast give a float32 loss."""
    truth = torch.zeros(1, 1, 4, 4)

    assert staged_loss([torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16)], truth, 0.5).dtype == torch.float32
