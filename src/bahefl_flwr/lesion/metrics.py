"""How good a segmentation is: pixel counts that add up exactly over sites, and the 95th percentile Hausdorff distance.

Pooled figures and means per slice are never mixed, and each carries its name. numpy and scipy only.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Scalar = bool | bytes | float | int | str  # as Flower's metrics have it


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelCounts:
    """Pixels by truth and prediction; sums over slices and sites are exact."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(tp=self.tp + other.tp, fp=self.fp + other.fp, fn=self.fn + other.fn, tn=self.tn + other.tn)

    @property
    def dice(self) -> float:
        """Pooled Dice = pixel F1, the paper's "Dice 0.8365". 1 where neither truth nor prediction has a lesion pixel."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of predicted pixels that are lesion; 1 where none was predicted."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of lesion pixels that were found; 1 where there are none."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def score(self) -> float:
        """0.6 Dice + 0.4 recall: what early stopping watches (paper, section 4)."""
        return 0.6 * self.dice + 0.4 * self.recall

    @property
    def undefined(self) -> Mapping[str, str]:
        """Which of the ratios above stand by convention only and say nothing of a model, each with the reason.

        Inside a run the convention counts, so that sums over sites stay exact; whoever tells people a figure looks here first.
        """
        if not self.tp + self.fn:
            return dict.fromkeys(("dice", "precision", "recall", "score"), "no slice has a lesion")
        return {} if self.tp + self.fp else {"precision": "no lesion was found"}

    @property
    def dead(self) -> bool:
        """The model answers the same everywhere although there is lesion: a collapsed round (docs/lesion.md)."""
        return self.tp + self.fn > 0 and (self.tp + self.fp == 0 or self.tn + self.fn == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything measured on some slices, as sums, so that evaluations of several sites add up exactly.

    Attributes:
      pixels: pooled counts.
      slices, positive_slices: how many there were, and how many of them have lesion in truth.
      dice_sum: sum of the Dice over the positive slices.
      hd95_sum_px, hd95_pairs: over the slices where truth and prediction both have lesion.
      missed, spurious, both_empty: slices where only the truth, only the prediction, or neither has lesion: no distance there.
      hd95_penalised_sum_px: hd95_sum_px plus the image diagonal for each missed or spurious slice.
    """

    pixels: PixelCounts = PixelCounts()
    slices: int = 0
    positive_slices: int = 0
    dice_sum: float = 0.0
    hd95_sum_px: float = 0.0
    hd95_pairs: int = 0
    missed: int = 0
    spurious: int = 0
    both_empty: int = 0
    hd95_penalised_sum_px: float = 0.0

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    @property
    def mean_dice_of_positive_slices(self) -> float:
        """nan where no slice has lesion."""
        return self.dice_sum / self.positive_slices if self.positive_slices else float("nan")

    @property
    def mean_hd95_px(self) -> float:
        """Over the pairs that have a distance; nan where there is none. Read it with `missed` and `spurious`."""
        return self.hd95_sum_px / self.hd95_pairs if self.hd95_pairs else float("nan")

    @property
    def mean_penalised_hd95_px(self) -> float:
        """Over all slices with lesion in truth or prediction; nan where there is none."""
        judged = self.hd95_pairs + self.missed + self.spurious
        return self.hd95_penalised_sum_px / judged if judged else float("nan")


def to_metrics(evaluation: Evaluation) -> dict[str, Scalar]:
    """An evaluation as the flat sums that travel."""
    pixels = evaluation.pixels
    return {
        "tp": pixels.tp,
        "fp": pixels.fp,
        "fn": pixels.fn,
        "tn": pixels.tn,
        "num-slices": evaluation.slices,
        "num-positive": evaluation.positive_slices,
        "dice-sum": evaluation.dice_sum,
        "hd95-sum-px": evaluation.hd95_sum_px,
        "hd95-pairs": evaluation.hd95_pairs,
        "hd95-penalised-sum-px": evaluation.hd95_penalised_sum_px,
        "num-missed": evaluation.missed,
        "num-spurious": evaluation.spurious,
        "num-both-empty": evaluation.both_empty,
    }


def from_metrics(metrics: Mapping[str, Scalar]) -> Evaluation:
    """The inverse of to_metrics; further entries are passed over."""
    whole = {name: int(metrics[name]) for name in ("tp", "fp", "fn", "tn")}
    return Evaluation(
        pixels=PixelCounts(**whole),
        slices=int(metrics["num-slices"]),
        positive_slices=int(metrics["num-positive"]),
        dice_sum=float(metrics["dice-sum"]),
        hd95_sum_px=float(metrics["hd95-sum-px"]),
        hd95_pairs=int(metrics["hd95-pairs"]),
        hd95_penalised_sum_px=float(metrics["hd95-penalised-sum-px"]),
        missed=int(metrics["num-missed"]),
        spurious=int(metrics["num-spurious"]),
        both_empty=int(metrics["num-both-empty"]),
    )


def pooled(sites: Sequence[Mapping[str, Any]], weighted_by_key: str) -> dict[str, Any]:
    """Sums of what sites report by `to_metrics`, and the figures that follow from them; "loss" is of the sites that have one.

    Args:
      weighted_by_key: name of the number of examples, by which the loss is a mean.
    """
    total = reduce(operator.add, (from_metrics(site) for site in sites))
    examples = sum(int(site[weighted_by_key]) for site in sites)
    losses = [(float(site["loss"]), int(site[weighted_by_key])) for site in sites if "loss" in site]
    loss = {"loss": sum(each * n for each, n in losses) / sum(n for _, n in losses)} if losses else {}
    ratios = {name: getattr(total.pixels, name) for name in ("dice", "precision", "recall", "score")}
    means = {
        "mean-dice-of-positive-slices": total.mean_dice_of_positive_slices,
        "mean-hd95-px": total.mean_hd95_px,
        "mean-penalised-hd95-px": total.mean_penalised_hd95_px,
    }
    return {**to_metrics(total), **ratios, **means, **loss, weighted_by_key: examples}


def collapse(metrics: Mapping[str, Any]) -> str:
    """What a collapsed model answers everywhere, "no lesion" or "lesion"; "" if it has not collapsed, or counts are missing.

    Args:
      metrics: with or without the pixel counts of `to_metrics`.
    """
    counts = {name: metrics.get(name) for name in ("tp", "fp", "fn", "tn")}
    if None in counts.values():
        return ""
    pixels = PixelCounts(**{name: int(value) for name, value in counts.items() if value is not None})
    if not pixels.dead:
        return ""
    return "lesion" if pixels.tp + pixels.fp else "no lesion"


def judge(predicted: Mask, truth: Mask) -> Evaluation:
    """Evaluate one slice; both masks bool (h, w)."""
    pixels = count_pixels(predicted, truth)
    has_prediction, has_truth = bool(predicted.any()), bool(truth.any())
    distance = hd95(predicted, truth) if has_prediction and has_truth else 0.0
    one_empty = has_prediction != has_truth
    return Evaluation(
        pixels=pixels,
        slices=1,
        positive_slices=int(has_truth),
        dice_sum=pixels.dice if has_truth else 0.0,
        hd95_sum_px=distance,
        hd95_pairs=int(has_prediction and has_truth),
        missed=int(has_truth and not has_prediction),
        spurious=int(has_prediction and not has_truth),
        both_empty=int(not has_prediction and not has_truth),
        hd95_penalised_sum_px=float(np.hypot(*truth.shape)) if one_empty else distance,
    )


def count_pixels(predicted: Mask, truth: Mask) -> PixelCounts:
    """Counts over arrays of equal shape, bool."""
    tp, predictions, lesions = int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())
    return PixelCounts(tp=tp, fp=predictions - tp, fn=lesions - tp, tn=truth.size - predictions - lesions + tp)


def hd95(predicted: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The larger of the two directed 95th percentiles of the distances between surfaces (MONAI's definition; equal to 1e-5).

    Not the percentile of both directions pooled, which is smaller (17.9 against 22.4 px on the same masks). A surface
    is what a 4-neighbour erosion removes; distances are Euclidean.

    Args:
      predicted, truth: bool, shape (h, w), neither empty.
      spacing: size of a pixel, (row, column); with 1, 1 the answer is in pixels.

    Raises:
      ValueError: a mask is empty. The caller counts those; no distance is made up here.
    """
    if not (predicted.any() and truth.any()):
        raise ValueError("no Hausdorff distance to an empty mask: count it as missed or spurious")
    a, b = (_surface(mask) for mask in _cropped(predicted, truth))
    to_b = ndimage.distance_transform_edt(~b, sampling=spacing)[a]
    to_a = ndimage.distance_transform_edt(~a, sampling=spacing)[b]
    return float(max(np.percentile(to_b, 95), np.percentile(to_a, 95)))


def _cropped(predicted: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both masks cut to their common box with a border of 1: exact, and much faster for small lesions."""
    box = ndimage.find_objects((predicted | truth).astype(np.int8))[0]
    return np.pad(predicted[box], 1), np.pad(truth[box], 1)


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask), np.bool_)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
