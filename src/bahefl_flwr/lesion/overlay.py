"""Pictures of slices with contours, as PNG bytes: what was found in blue, what is true in red (the paper's figure 6).

Shades of both that stand out on grey and that people with any colour vision can tell apart.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from bahefl_flwr.lesion.data import Images

Mask = npt.NDArray[np.bool_]
PREDICTED = (86, 180, 233)
TRUE = (230, 72, 0)
# Contours of a pixel hide small lesions in small slices, so these are drawn larger.
_LEAST_SIDE_PX = 512


def overlay(image: Images, predicted: Mask, truth: Mask | None = None) -> Images:
    """A slice with the contour of the prediction and, where known, of the truth beneath it.

    Args:
      image: uint8, shape (s, s). predicted, truth: the same shape.

    Returns:
      RGB, uint8, shape (k * s, k * s, 3) with the least k that gives 512.
    """
    scale = max(1, -(-_LEAST_SIDE_PX // len(image)))
    side = scale * len(image)
    picture = cv2.cvtColor(cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    for mask, colour in ((truth, TRUE), (predicted, PREDICTED)):
        if mask is not None:
            large = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
            contours, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, contours, -1, colour, max(1, side // 256), cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def as_png(picture: Images) -> bytes:
    """A grey (h, w) or RGB (h, w, 3) picture as a PNG file."""
    ordered = picture if picture.ndim == 2 else picture[..., ::-1]
    return bytes(cv2.imencode(".png", ordered)[1].tobytes())
