"""The network as an ONNX file that takes grey values and gives probabilities: nothing to normalise, nothing to get wrong.

Needs the packages of the extra `onnx`; only torch's own exporter is called.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.lesion.model import LightUNet
from bahefl_flwr.lesion.training import GREY_DEVIATION, GREY_MEAN

_NEEDED = ("onnx", "onnxscript")


class _Whole(nn.Module):
    """Grey values in, probabilities out."""

    def __init__(self, network: LightUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: Tensor) -> Tensor:
        """uint8 (n, s, s) to float32 (n, s, s)."""
        normalised = (slices.float() / 255 - GREY_MEAN) / GREY_DEVIATION
        logits: Tensor = self.network(normalised[:, None])[0]
        return torch.sigmoid(logits)[:, 0]


def to_onnx(network: LightUNet, image_size_px: int) -> bytes:
    """An ONNX file: input `slices`, uint8 (n, s, s); output `probability`, float32 (n, s, s).

    Raises:
      SettingsError: the packages it needs are not installed.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SettingsError(f"writing ONNX needs {' and '.join(missing)}: pip install 'bahefl-flwr[onnx]'")
    example = torch.zeros((2, image_size_px, image_size_px), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            _Whole(network.cpu()).eval(), (example,), input_names=["slices"], output_names=["probability"],
            dynamic_shapes={"slices": {0: torch.export.Dim("n")}}, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that nobody needs, and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
