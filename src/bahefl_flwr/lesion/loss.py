"""The staged loss with deep supervision: Dice and cross-entropy in a share given by schedule.py.

Pure functions of logits and masks, in fp32 whatever the network computed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - soft Dice, pooled over the whole batch, in [0, 1).

    Pooled, because most slices of a batch may hold no lesion, and an empty slice has no Dice. The 1 in numerator and denominator
    makes a batch without any lesion well defined.

    Args:
      logits, truth: shape (n, 1, h, w); truth in [0, 1].
    """
    probability = torch.sigmoid(logits.float())
    overlap = (probability * truth).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)


def staged_loss(outputs: Sequence[Tensor], truth: Tensor, dice_weight: float) -> Tensor:
    """Mean over all heads, head k weighing 2**-k, of dice_weight * Dice + (1 - dice_weight) * cross-entropy.

    Args:
      outputs: logits of the main head, then of the side heads, finest first.
      truth: masks, shape (n, 1, s, s), float32 in [0, 1]; averaged down to the size of each side head.
      dice_weight: 0 to 1.

    Returns:
      A scalar.
    """
    weights = [2.0**-k for k in range(len(outputs))]
    losses = [_head_loss(head, truth, dice_weight) for head in outputs]
    weighted = torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)])  # (heads,)
    return weighted.sum() / sum(weights)


def _head_loss(logits: Tensor, truth: Tensor, dice_weight: float) -> Tensor:
    target = truth if logits.shape == truth.shape else F.adaptive_avg_pool2d(truth, (logits.shape[-2], logits.shape[-1]))
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target)
    if dice_weight == 0:
        return entropy
    dice = soft_dice_loss(logits, target)
    return dice if dice_weight == 1 else dice_weight * dice + (1 - dice_weight) * entropy
