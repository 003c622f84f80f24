"""Counts, ratios and distances on masks small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bahefl_flwr.lesion.metrics import Evaluation, PixelCounts, collapse, count_pixels, hd95, judge, pooled, to_metrics


def _mask(*pixels: tuple[int, int], size: int = 10) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    for pixel in pixels:
        mask[pixel] = True
    return mask


def test_table_1_of_the_paper_follows_from_its_counts() -> None:
    """The paper's precision, recall and F1 (to its own rounding error) come out of the counts behind its Table 1."""
    counts = PixelCounts(tp=347_605, fp=89_140, fn=46_863, tn=26_386_152)

    assert counts.precision == pytest.approx(0.7959, abs=5e-5)
    assert counts.recall == pytest.approx(0.8812, abs=5e-5)
    assert counts.dice == pytest.approx(0.8364, abs=5e-5)
    assert counts.score == pytest.approx(0.6 * counts.dice + 0.4 * counts.recall)


def test_counts_of_one_slice() -> None:
    """Every pixel is counted exactly once."""
    counts = count_pixels(_mask((0, 0), (0, 1)), _mask((0, 1), (5, 5), (6, 6)))

    assert counts == PixelCounts(tp=1, fp=1, fn=2, tn=96)


@pytest.mark.parametrize(
    ("counts", "dead"),
    [
        (PixelCounts(fn=5, tn=95), True),
        (PixelCounts(tp=5, fp=95), True),
        (PixelCounts(tp=1, fn=4, tn=95), False),
        (PixelCounts(tn=100), False),
    ],
)
def test_a_dead_model_answers_the_same_everywhere(counts: PixelCounts, dead: bool) -> None:
    """All negative or all positive although there is lesion; right silence on healthy slices is not dead."""
    assert counts.dead is dead


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        (PixelCounts(tn=100), {"dice", "precision", "recall", "score"}),
        (PixelCounts(fp=5, tn=95), {"dice", "precision", "recall", "score"}),
        (PixelCounts(fn=5, tn=95), {"precision"}),
        (PixelCounts(tp=1, tn=99), set()),
    ],
)
def test_ratios_that_stand_by_convention_only_are_named(counts: PixelCounts, undefined: set[str]) -> None:
    """Without any lesion none of them says anything of a model; the ratios themselves stay numbers, as a run needs them."""
    assert set(counts.undefined) == undefined
    assert all(0 <= getattr(counts, name) <= 1 for name in ("dice", "precision", "recall", "score"))


def test_counts_are_pooled_where_a_loss_is_missing() -> None:
    """A loss that is not finite is not sent; the counts of that site are as good as any."""
    counts = to_metrics(judge(_mask((0, 0)), _mask((0, 0), (0, 1)))) | {"num-examples": 1}
    total = pooled([counts, {**counts, "loss": 0.5}], "num-examples")

    assert total["dice"] == pytest.approx(2 / 3)
    assert (total["loss"], total["num-examples"]) == (0.5, 2)
    assert "loss" not in pooled([counts], "num-examples")


def test_hd95_of_two_points_is_their_distance() -> None:
    """A 3-4-5 triangle; with 2 mm rows the legs become 6 and 4."""
    a, b = _mask((1, 1)), _mask((4, 5))

    assert hd95(a, b) == 5
    assert hd95(a, b, (2.0, 1.0)) == pytest.approx(math.hypot(6, 4))


def test_hd95_takes_the_worse_direction() -> None:
    """A far false island counts fully, although every truth pixel is near a predicted one."""
    truth = _mask((1, 1))
    predicted = _mask((1, 1), (1, 9))

    assert hd95(predicted, truth) == pytest.approx(np.percentile([0, 8], 95))


def test_hd95_equals_the_definition_computed_by_brute_force() -> None:
    """On ragged random masks the distance maps give what all pairs of surface pixels give."""
    rng = np.random.default_rng(0)
    black = np.indices((40, 40)).sum(axis=0) % 2 == 0  # the black fields of a chess board touch no other: all of them are surface
    masks = [black & (rng.random((40, 40)) < 0.2) for _ in range(2)]
    surfaces = [np.argwhere(mask) for mask in masks]
    distances = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)  # (pixels, pixels)
    expected = max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))

    assert hd95(*masks) == pytest.approx(expected)


def test_hd95_refuses_an_empty_mask() -> None:
    """There is no distance to nothing; the caller has to count it."""
    with pytest.raises(ValueError, match="count it"):
        hd95(_mask(), _mask((1, 1)))


def test_empty_masks_are_counted_and_never_dropped() -> None:
    """Both empty is left out; one empty is counted, and given the image diagonal in the penalised figure only."""
    lesion, nothing = _mask((1, 1)), _mask()

    total = judge(lesion, lesion) + judge(nothing, lesion) + judge(lesion, nothing) + judge(nothing, nothing)

    assert (total.slices, total.positive_slices, total.hd95_pairs) == (4, 2, 1)
    assert (total.missed, total.spurious, total.both_empty) == (1, 1, 1)
    assert total.mean_hd95_px == 0
    assert total.mean_penalised_hd95_px == pytest.approx(2 * math.hypot(10, 10) / 3)
    assert total.mean_dice_of_positive_slices == 0.5


def test_nothing_evaluated_has_no_mean() -> None:
    """Means over no slice are nan, not zero."""
    assert math.isnan(Evaluation().mean_dice_of_positive_slices)
    assert math.isnan(Evaluation().mean_hd95_px)
    assert math.isnan(Evaluation().mean_penalised_hd95_px)


@pytest.mark.parametrize(
    ("metrics", "answer"),
    [
        ({"tp": 0, "fp": 0, "fn": 5, "tn": 95}, "no lesion"),
        ({"tp": 5, "fp": 95, "fn": 0, "tn": 0}, "lesion"),
        ({"tp": 5, "fp": 0, "fn": 0, "tn": 95}, ""),
        ({"tp": 0, "fp": 0, "fn": 0, "tn": 95}, ""),
        ({"dice": 0.0}, ""),
    ],
)
def test_a_collapse_is_told_from_the_metrics(metrics: dict[str, float], answer: str) -> None:
    """Only where there was lesion, and only from counts."""
    assert collapse(metrics) == answer
