"""CPU time of a training step: the light U-Net beside a plain one of the same number of parameters at full resolution."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

import torch
from torch import Tensor, nn

from bahefl_flwr.lesion.loss import staged_loss
from bahefl_flwr.lesion.model import LightUNet

_SIDE_PX, _BATCH, _STEPS = 128, 4, 12


class PlainUNet(nn.Module):
    """Ronneberger et al. 2015: two full 3x3 convolutions a level, pooling, transposed convolutions; same padding, BatchNorm."""

    def __init__(self, width: int, depth: int = 4) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_twice(i, o) for i, o in pairwise([1, *channels]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, stride=2) for i, o in reversed(list(pairwise(channels))))
        self.join = nn.ModuleList(_twice(2 * c, c) for c in reversed(channels[:-1]))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Shape (n, 1, s, s) to logits of the same shape."""
        skipped: list[Tensor] = []
        level = images
        for block in self.down:
            skipped.append(block(level))
            level = nn.functional.max_pool2d(skipped[-1], 2)
        level = skipped.pop()
        for up, join in zip(self.up, self.join, strict=True):
            level = join(torch.cat([up(level), skipped.pop()], 1))
        return (self.head(level),)


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    layers = [[nn.Conv2d(i, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()] for i in (inputs, outputs)]
    return nn.Sequential(*layers[0], *layers[1])


def parameters(network: nn.Module) -> int:
    """Number of scalars that are trained."""
    return sum(p.numel() for p in network.parameters())


def plain_of(count: int) -> PlainUNet:
    """The plain U-Net whose number of parameters is nearest."""
    return min((PlainUNet(width) for width in range(2, 33)), key=lambda network: abs(parameters(network) - count))


def cpu_ms(network: nn.Module, *, bf16: bool) -> float:
    """CPU milliseconds an image of forward and backward, one thread: median of several steps after two that do not count."""
    torch.set_num_threads(1)
    images, truth = torch.randn(_BATCH, 1, _SIDE_PX, _SIDE_PX), (torch.rand(_BATCH, 1, _SIDE_PX, _SIDE_PX) > 0.98).float()
    spent = []
    for _ in range(_STEPS):
        started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            outputs = network(images)
        staged_loss(outputs, truth, 0.7).backward()
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent[2:]) / _BATCH


def cost_rows() -> list[list[str]]:
    """Rows of name, parameters, ms in fp32 and bf16, and how often the first row's cost, each in its cheaper precision."""
    light, full = LightUNet(16, 4, 2), LightUNet(16, 4, 1)
    networks = {
        "light U-Net (default: half resolution inside)": light,
        "light U-Net at full resolution": full,
        "plain U-Net at full resolution": plain_of(parameters(light)),
    }
    costs = {name: [cpu_ms(network, bf16=bf16) for bf16 in (False, True)] for name, network in networks.items()}
    least = min(next(iter(costs.values())))
    return [
        [name, f"{parameters(networks[name]):,}", f"{fp32:.1f} fp32, {bf16:.1f} bf16", f"{min(fp32, bf16) / least:.1f}"]
        for name, (fp32, bf16) in costs.items()
    ]
