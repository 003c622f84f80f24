"""A trained network on slices: probabilities, masks, side outputs, and each slice judged by itself.

Nothing here trains, and nothing knows of runs or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from bahefl_flwr.lesion.data import Images, Slices
from bahefl_flwr.lesion.metrics import Evaluation, judge
from bahefl_flwr.lesion.model import LightUNet, build
from bahefl_flwr.lesion.training import Engine, infer, limit_threads, load_weights, pick_engine
from bahefl_flwr.setting_groups import ModelSettings, TrainSettings

Field = npt.NDArray[np.float32]
BATCH = 16


def ready(settings: TrainSettings) -> Engine:
    """Device and precision of `train`, with its number of threads: two cost three times the CPU of one here.

    Raises:
      SettingsError: CUDA or fp16 was asked for and is not to be had.
    """
    limit_threads(settings.threads)
    return pick_engine(settings)


def restored(settings: ModelSettings, image_size_px: int, arrays: Sequence[Field]) -> LightUNet:
    """The network of the settings with these parameters, in state_dict order.

    Raises:
      SettingsError: the settings make no network. UpdateError: the parameters are another network's.
    """
    model = build(settings, image_size_px)
    load_weights(model, arrays)
    return model


def probabilities(model: LightUNet, images: Images, engine: Engine) -> tuple[Field, ...]:
    """Probability of lesion per pixel, of the main head and of the side heads, finest first.

    Args:
      images: shape (n, s, s), s the size the model was trained at.

    Returns:
      float32, shapes (n, s, s), (n, s/2u, s/2u), ...: see LightUNet.forward.
    """
    batches = [infer(model, images[at : at + BATCH], engine) for at in range(0, len(images), BATCH)]
    return tuple(torch.sigmoid(torch.cat(heads))[:, 0].numpy() for heads in zip(*batches, strict=True))


def judged(model: LightUNet, slices: Slices, engine: Engine) -> Iterator[Evaluation]:
    """The evaluation of each slice, in order, at a probability of one half; their sum is that of all."""
    for at in range(0, len(slices), BATCH):
        chunk = slice(at, at + BATCH)
        for field, truth in zip(probabilities(model, slices.images[chunk], engine)[0], slices.masks[chunk], strict=True):
            yield judge(field > 0.5, truth.astype(np.bool_))


def mask_of(field: Field, side_px: int) -> npt.NDArray[np.bool_]:
    """Where a probability field is above one half, at another size, shape (side_px, side_px)."""
    method = cv2.INTER_AREA if len(field) > side_px else cv2.INTER_LINEAR
    # Probabilities are resized, not masks: a contour stays smooth.
    return np.asarray(cv2.resize(field, (side_px, side_px), interpolation=method) > 0.5, np.bool_)
