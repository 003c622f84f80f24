"""Random changes of training slices. The only module that imports albumentations (2.0.8: archived upstream, MIT, pinned)."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# Without this albumentations asks a package index for its newest release, at import, in a hospital.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

Image = npt.NDArray[np.uint8]


def augmenter(seed: int) -> Callable[[Image, Image], tuple[Image, Image]]:
    """A function from (image, mask), both uint8 (s, s), to a changed pair of the same form.

    Flip, small affine moves, brightness and contrast, noise. No elastic deformation: it doubles the cost.

    Args:
      seed: two augmenters of one seed change the same slices in the same way.
    """
    pipeline = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(scale=(0.85, 1.15), rotate=(-15, 15), translate_percent=(-0.05, 0.05), p=0.7),
            A.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.15, p=0.5),
            A.GaussNoise(std_range=(0.01, 0.03), p=0.3),
        ],
        seed=seed,
    )

    def change(image: Image, mask: Image) -> tuple[Image, Image]:
        changed = pipeline(image=image, mask=mask)
        return changed["image"], changed["mask"]

    return change
