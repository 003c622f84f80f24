"""Local training and evaluation: model, slices and settings in; weights, losses and counts out.

The only module that decides device and precision. It holds no state between rounds: AdamW starts afresh each time, and the
schedule, the order of the slices and their augmentation are closed forms of the global epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bahefl_flwr.errors import SettingsError, TrainingError, UpdateError
from bahefl_flwr.lesion import checkpoint, sampling
from bahefl_flwr.lesion.checkpoint import Progress
from bahefl_flwr.lesion.data import Slices
from bahefl_flwr.lesion.loss import staged_loss
from bahefl_flwr.lesion.metrics import Evaluation, judge
from bahefl_flwr.lesion.model import LightUNet
from bahefl_flwr.lesion.schedule import dice_weight_at, lr_at
from bahefl_flwr.setting_groups import TrainSettings

Weights = list[npt.NDArray[np.float32]]

# Mean and deviation of grey values over slices, in 0..1 (research/lesion.md, B4).
GREY_MEAN, GREY_DEVIATION = 0.45, 0.33
_EVALUATION_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where and in which precision to compute, and why.

    Attributes:
      autocast: lower precision of the forward pass, or None for fp32 throughout.
      reason: one clause for the log.
    """

    device: torch.device
    autocast: torch.dtype | None
    reason: str

    def forward(self) -> AbstractContextManager[object]:
        """The context the forward pass runs in."""
        return torch.autocast(self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    def __str__(self) -> str:
        name = "fp32" if self.autocast is None else {torch.bfloat16: "bf16", torch.float16: "fp16"}[self.autocast]
        return f"{name} on {self.device.type} ({self.reason})"


def pick_engine(settings: TrainSettings) -> Engine:
    """Resolve `train.device` and `train.precision`.

    `auto` picks bf16 where the hardware multiplies it, else fp16 on CUDA (with a gradient scaler), else fp32.

    Raises:
      SettingsError: CUDA or fp16 was asked for and is not to be had.
    """
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise SettingsError("train.device=cuda, but torch sees no CUDA device; use train.device=auto or cpu")
    device = torch.device("cuda" if has_cuda and settings.device != "cpu" else "cpu")
    if settings.precision == "fp16" and device.type == "cpu":
        raise SettingsError("train.precision=fp16 needs CUDA; use auto, bf16 or fp32 on a CPU")
    if settings.precision != "auto":
        fixed = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]
        return Engine(device=device, autocast=fixed, reason="as set")
    if device.type == "cuda":
        modern = torch.cuda.get_device_capability(device) >= (8, 0)
        picked = torch.bfloat16 if modern else torch.float16
        return Engine(device=device, autocast=picked, reason="auto: compute capability " + (">= 8" if modern else "< 8"))
    if _cpu_multiplies_bf16():
        return Engine(device=device, autocast=torch.bfloat16, reason="auto: this CPU multiplies bf16")
    return Engine(device=device, autocast=None, reason="auto: this CPU does not multiply bf16")


def _cpu_multiplies_bf16() -> bool:
    # Private in torch, hence the getattr: a release without it trains in fp32, which is slower and as good.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where in the task this local training stands.

    Attributes:
      first_epoch: global epoch at its start. total_epochs: of the whole task.
    """

    first_epoch: int
    total_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What one local training did.

    Attributes:
      loss: mean over the last epoch's batches. last_lr: learning rate of the last step.
      seconds, cpu_seconds: wall time, and CPU time of all threads, of this process.
      resumed_epochs: epochs that an earlier process had finished, which was killed.
    """

    loss: float
    last_lr: float
    steps: int
    seconds: float
    cpu_seconds: float
    resumed_epochs: int


def weights_of(model: LightUNet) -> Weights:
    """Copies of all parameters, float32, in state_dict order."""
    return [tensor.detach().cpu().numpy().astype(np.float32, copy=True) for tensor in model.state_dict().values()]


def load_weights(model: LightUNet, weights: Sequence[npt.NDArray[np.float32]]) -> None:
    """Set all parameters from arrays in state_dict order.

    Raises:
      UpdateError: another number of arrays, another shape, or values that are not finite; it names the first wrong parameter.
    """
    state = model.state_dict()
    if len(weights) != len(state):
        raise UpdateError(
            f"got {len(weights)} parameter arrays, the model has {len(state)}; do all sites share the same model settings?"
        )
    for (name, tensor), values in zip(state.items(), weights, strict=True):
        if tuple(tensor.shape) != np.shape(values):
            raise UpdateError(f"parameter {name} has shape {np.shape(values)}, expected {tuple(tensor.shape)}")
        if not np.isfinite(values).all():
            raise UpdateError(f"parameter {name} holds NaN or infinity; the model of this round is unusable")
        state[name] = torch.from_numpy(np.array(values, np.float32))
    model.load_state_dict(state)


def fit(
    model: LightUNet,
    slices: Slices,
    settings: TrainSettings,
    *,
    clock: Clock,
    seed: int,
    engine: Engine,
    checkpoint_file: Path | None = None,
) -> FitReport:
    """Train `model` in place for `settings.local_epochs`; equal arguments give equal weights on one CPU thread.

    Args:
      slices: the site's training part, at least one slice.
      seed: of order and augmentation.
      checkpoint_file: written after every epoch. Where it holds the same training, that goes on at its last finished epoch, and
        comes to the same weights.

    Raises:
      TrainingError: the loss stopped being finite, or there is nothing to train on.
    """
    if not len(slices):
        raise TrainingError("no training slices at this site; nothing to learn from")
    limit_threads(settings.threads)
    started = time.monotonic(), time.process_time()
    purpose = checkpoint.purpose([*weights_of(model), slices.images, slices.masks], settings, clock, seed, engine)
    step = _Step(model.to(engine.device).train(), settings, clock, engine)
    resumed = (checkpoint.load(checkpoint_file, purpose) if checkpoint_file else None) or Progress()
    step.restore(resumed)
    loss = resumed.loss
    for epoch in range(resumed.epochs, settings.local_epochs):
        loss = _epoch(step, slices, settings, epoch, clock.first_epoch + epoch, seed)
        if checkpoint_file:
            checkpoint.save(checkpoint_file, purpose, step.progress(epoch + 1, loss))
    return _reported(step, loss, resumed, started)


def _reported(step: _Step, loss: float, resumed: Progress, started: tuple[float, float]) -> FitReport:
    wall, cpu = started
    return FitReport(
        loss=loss,
        last_lr=step.last_lr,
        steps=step.steps,
        seconds=time.monotonic() - wall,
        cpu_seconds=time.process_time() - cpu,
        resumed_epochs=resumed.epochs,
    )


def _epoch(step: _Step, slices: Slices, settings: TrainSettings, epoch: int, global_epoch: int, seed: int) -> float:
    """One pass; its random numbers come from seed and global epoch alone. Returns the mean loss."""
    feed = _Feed(slices, settings, np.random.default_rng([seed, global_epoch]))
    losses = [step.take(*batch, epoch=epoch + position) for position, batch in feed.epoch()]
    if not math.isfinite(sum(losses)):
        raise TrainingError(f"loss {losses[-1]} in global epoch {global_epoch}; lower train.lr={settings.lr}")
    return float(np.mean(losses))


def evaluate(model: LightUNet, slices: Slices, settings: TrainSettings, engine: Engine) -> tuple[float, Evaluation]:
    """Loss of the last stage (the same in every round, so that a curve means something), and all counts.

    Returns:
      The mean loss over the slices, 0.0 for none, and their evaluation at a probability of one half.
    """
    limit_threads(settings.threads)
    total, evaluation = 0.0, Evaluation()
    for start in range(0, len(slices), _EVALUATION_BATCH):
        chunk = slice(start, start + _EVALUATION_BATCH)
        outputs = infer(model, slices.images[chunk], engine)
        truth = torch.from_numpy(slices.masks[chunk, None].astype(np.float32))  # (n, 1, s, s)
        total += float(staged_loss(outputs, truth, settings.dice_late)) * len(truth)
        predicted = outputs[0][:, 0].numpy() > 0  # (n, s, s)
        for mask, answer in zip(slices.masks[chunk], predicted, strict=True):
            evaluation += judge(answer, mask.astype(np.bool_))
    return total / max(1, len(slices)), evaluation


def infer(model: LightUNet, images: npt.NDArray[np.uint8], engine: Engine) -> tuple[Tensor, ...]:
    """Logits of all heads, fp32 on the CPU, for images of shape (n, s, s); see LightUNet.forward."""
    model.to(engine.device).eval()
    with torch.inference_mode(), engine.forward():
        outputs = model(_normalised(images).to(engine.device))
    return tuple(head.float().cpu() for head in outputs)


def _normalised(images: npt.NDArray[np.uint8]) -> Tensor:
    values = (images.astype(np.float32) / 255 - GREY_MEAN) / GREY_DEVIATION
    return torch.from_numpy(values[:, None])  # (n, 1, s, s)


def limit_threads(threads: int) -> None:
    """Let torch use `threads` threads (0: its own choice) and OpenCV one."""
    # Several sites share one machine in a simulation; OpenCV's own pool would fight torch's.
    cv2.setNumThreads(0)
    if threads:
        torch.set_num_threads(threads)


class _Feed:
    """Yields a site's batches, balanced and augmented."""

    def __init__(self, slices: Slices, settings: TrainSettings, rng: np.random.Generator) -> None:
        self._slices, self._settings, self._rng = slices, settings, rng
        self._has_lesion = slices.has_lesion
        self._change = None
        if settings.augment:
            # Here, because the import costs 4 CPU seconds and evaluation needs none of it.
            from bahefl_flwr.lesion.augmentation import augmenter

            self._change = augmenter(int(rng.integers(2**31)))

    def epoch(self) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
        """Pairs of (fraction of the epoch that is over, (images, masks)), both float32 (n, 1, s, s)."""
        order = sampling.balanced_epoch(self._has_lesion, self._settings.positive_fraction, self._rng)
        chunks = sampling.batches(order, self._settings.batch_size)
        for number, chunk in enumerate(chunks):
            yield number / len(chunks), self._batch(chunk)

    def _batch(self, indices: npt.NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        pairs = [(self._slices.images[i], self._slices.masks[i]) for i in indices]
        if self._change is not None:
            pairs = [self._change(*pair) for pair in pairs]
        images, masks = (np.stack(column) for column in zip(*pairs, strict=True))  # (n, s, s) each
        return _normalised(images), torch.from_numpy(masks[:, None].astype(np.float32))


class _Step:
    """One optimiser step at a time, with the schedule, mixed precision and clipping."""

    def __init__(self, model: LightUNet, settings: TrainSettings, clock: Clock, engine: Engine) -> None:
        self._model, self._settings, self._clock, self._engine = model, settings, clock, engine
        # Fused: a step over 91 small tensors takes a fifth of the time.
        self._optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        # fp16 gradients of a 1 % class vanish unscaled; bf16 has the range of fp32.
        self._scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.autocast == torch.float16)
        self.last_lr = 0.0
        self.steps = 0

    def progress(self, epochs: int, loss: float) -> Progress:
        """Everything that the next step depends on."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        return Progress(epochs=epochs, steps=self.steps, loss=loss, lr=self.last_lr, states=states)

    def restore(self, progress: Progress) -> None:
        """Stand where `progress` was taken; a new one changes nothing."""
        self.steps, self.last_lr = progress.steps, progress.lr
        for name, state in progress.states.items():
            self._parts()[name].load_state_dict(state)

    def _parts(self) -> dict[str, Any]:
        return {"model": self._model, "optimiser": self._optimiser, "scaler": self._scaler}

    def take(self, images: Tensor, masks: Tensor, *, epoch: float) -> float:
        """Learn from one batch; `epoch` counts from the start of this local training. Returns the loss."""
        at, total = self._clock.first_epoch + epoch, self._clock.total_epochs
        self.last_lr = lr_at(at, total, self._settings)
        for group in self._optimiser.param_groups:
            group["lr"] = self.last_lr
        with self._engine.forward():
            outputs = self._model(images.to(self._engine.device))
        loss = staged_loss(outputs, masks.to(self._engine.device), dice_weight_at(at, total, self._settings))
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        self._scaler.unscale_(self._optimiser)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.steps += 1
        return float(loss.detach())
