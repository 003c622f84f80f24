"""The light U-Net (paper section 3.4.4) and its deterministic first weights.

Only the network lives here. No loss, no data, no optimiser.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.setting_groups import ModelSettings

# A head starts at sigmoid(-2) = 0.12: about 1 % of all pixels are lesion, and starting at a half costs a round of unlearning.
_HEAD_BIAS = -2.0


class SimAM(nn.Module):
    """Parameter-free attention: each activation is weighed by how far it stands out of its own feature map.

    Source: Yang et al., SimAM, ICML 2021, equation 5; `regulariser` is their lambda.
    """

    def __init__(self, regulariser: float = 1e-4) -> None:
        super().__init__()
        self.regulariser = regulariser

    def forward(self, features: Tensor) -> Tensor:
        """Weigh `features`, shape (n, c, h, w) with h * w > 1; fp16 is computed in fp32, because its squares overflow."""
        x = features.float() if features.dtype == torch.float16 else features
        distance = (x - x.mean((2, 3), keepdim=True)).square()  # (n, c, h, w)
        variance = distance.sum((2, 3), keepdim=True) / (x.shape[-1] * x.shape[-2] - 1)  # (n, c, 1, 1)
        energy = distance / (4 * (variance + self.regulariser)) + 0.5  # (n, c, h, w)
        return features * torch.sigmoid(energy).to(features.dtype)


def _norm(channels: int) -> nn.GroupNorm:
    # BatchNorm needs its running statistics averaged too, and lost against this here.
    return nn.GroupNorm(math.gcd(8, channels), channels)


class DepthwiseSeparable(nn.Sequential):
    """3x3 convolution per channel, 1x1 across channels, GroupNorm, SiLU: 5.5x fewer parameters than a full 3x3."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            _norm(outputs),
            nn.SiLU(inplace=True),
        )


class FullConvolution(nn.Sequential):
    """3x3 convolution, GroupNorm, SiLU: for the stem, where a convolution per channel would see one grey value."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), _norm(outputs), nn.SiLU(inplace=True))


class Block(nn.Module):
    """Two convolutions and SimAM beside a 1x1 short cut."""

    def __init__(self, inputs: int, outputs: int, convolution: type[DepthwiseSeparable | FullConvolution]) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs)
        self.second = convolution(outputs, outputs)
        self.attention = SimAM()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h, w)."""
        attended: Tensor = self.attention(self.second(self.first(features)))
        shortcut: Tensor = self.shortcut(features)
        return attended + shortcut


class LightUNet(nn.Module):
    """U-Net of depthwise separable blocks with SimAM and deep supervision; has parameters only, no buffers.

    Args:
      width: channels at full resolution; each of the `depth` levels below doubles them.
      depth: times the resolution is halved.
      unshuffle: 2 folds each 2x2 pixels into channels first and unfolds the answer: 3.6x less CPU, same output size.
    """

    def __init__(self, width: int, depth: int, unshuffle: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        upwards = list(reversed(range(depth)))
        self.unshuffle = unshuffle
        self.stem = Block(unshuffle**2, channels[0], FullConvolution)
        self.encoder = nn.ModuleList(Block(channels[k], channels[k + 1], DepthwiseSeparable) for k in range(depth))
        self.up = nn.ModuleList(nn.Conv2d(channels[k + 1], channels[k], 1, bias=False) for k in upwards)
        self.decoder = nn.ModuleList(Block(2 * channels[k], channels[k], DepthwiseSeparable) for k in upwards)
        self.head = nn.Conv2d(channels[0], unshuffle**2, 1)
        self.sides = nn.ModuleList(nn.Conv2d(channels[k], 1, 1) for k in upwards[:-1])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits at full size, then of the side heads, finest first.

        Args:
          images: normalised grey values, shape (n, 1, s, s), s a multiple of unshuffle * 2**depth.

        Returns:
          Logits, shapes (n, 1, s, s), (n, 1, s/2u, s/2u), (n, 1, s/4u, s/4u), ..., u = unshuffle; `depth` of them.
        """
        level = self.stem(F.pixel_unshuffle(images, self.unshuffle))  # (n, width, s/u, s/u)
        skipped: list[Tensor] = []
        for block in self.encoder:
            skipped.append(level)
            level = block(F.avg_pool2d(level, 2))
        decoded: list[Tensor] = []
        for up, block in zip(self.up, self.decoder, strict=True):
            raised = F.interpolate(up(level), scale_factor=2.0, mode="nearest")
            level = block(torch.cat([raised, skipped.pop()], 1))
            decoded.append(level)
        sides = [side(features) for side, features in zip(self.sides, decoded[:-1], strict=True)]
        return (F.pixel_shuffle(self.head(level), self.unshuffle), *reversed(sides))


def build(settings: ModelSettings, image_size_px: int) -> LightUNet:
    """The network of the settings, with torch's own random weights (load others before use).

    Raises:
      SettingsError: the images cannot be halved that often, or end up as a single pixel, where SimAM has no variance.
    """
    folds = settings.unshuffle * 2**settings.depth
    if image_size_px % folds or image_size_px < 2 * folds:
        raise SettingsError(
            f"data.image_size_px={image_size_px} does not fit model.depth={settings.depth}, unshuffle={settings.unshuffle}: "
            f"use a multiple of {folds} that is at least {2 * folds}, or a smaller model.depth"
        )
    return LightUNet(settings.width, settings.depth, settings.unshuffle)


def initial_weights(model: LightUNet, seed: int) -> list[npt.NDArray[np.float32]]:
    """First weights, in state_dict order: the same bits at every site, because their digest is on the ledger.

    torch's own initialisation (uniform in +-1/sqrt(fan_in)), but drawn with numpy: torch documents no equality of its
    random numbers across releases and platforms.

    Args:
      model: gives names and shapes only.
      seed: `run.seed`, at least 0.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return [_first_values(name, tuple(tensor.shape), rng) for name, tensor in model.state_dict().items()]


def _first_values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    if len(shape) == 4:
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        return ((2 * rng.random(shape) - 1) * bound).astype(np.float32)
    if name.endswith("weight"):
        return np.ones(shape, np.float32)
    is_head = name.startswith(("head", "sides"))
    return np.full(shape, _HEAD_BIAS if is_head else 0.0, np.float32)
