"""Evaluations add up exactly over slices and sites."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from bahefl_flwr.lesion.metrics import Evaluation, PixelCounts, count_pixels, from_metrics, hd95, judge, to_metrics

MASKS = arrays(np.bool_, (3, 9, 7))


@given(predicted=MASKS, truth=MASKS)
def test_counts_of_slices_sum_to_the_pooled_counts(predicted: np.ndarray, truth: np.ndarray) -> None:
    """Counting slice by slice and adding equals counting all pixels at once."""
    added = sum((judge(p, t).pixels for p, t in zip(predicted, truth, strict=True)), PixelCounts())

    assert added == count_pixels(predicted, truth)
    assert added.tp + added.fp + added.fn + added.tn == truth.size


@given(predicted=MASKS, truth=MASKS)
def test_an_evaluation_survives_the_journey(predicted: np.ndarray, truth: np.ndarray) -> None:
    """What a site sends is read back as it was."""
    total = sum((judge(p, t) for p, t in zip(predicted, truth, strict=True)), Evaluation())

    assert from_metrics(to_metrics(total)) == total


@settings(max_examples=60)
@given(predicted=arrays(np.bool_, (9, 7)), truth=arrays(np.bool_, (9, 7)))
def test_hd95_is_a_symmetric_bounded_distance(predicted: np.ndarray, truth: np.ndarray) -> None:
    """Symmetric, zero for equal masks, at most the diagonal."""
    predicted[0, 0] = truth[8, 6] = True

    distance = hd95(predicted, truth)

    assert distance == hd95(truth, predicted)
    assert 0 <= distance <= np.hypot(8, 6)
    assert hd95(truth, truth) == 0
