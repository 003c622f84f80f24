"""Local training: repeatable, and refusing what it cannot use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bahefl_flwr.errors import SettingsError, TrainingError, UpdateError
from bahefl_flwr.lesion import training
from bahefl_flwr.lesion.augmentation import augmenter
from bahefl_flwr.lesion.model import LightUNet, initial_weights
from bahefl_flwr.setting_groups import TrainSettings
from bahefl_flwr.settings import compose
from killed_fit import toy_slices

TRAIN = compose(["train.local_epochs=1", "train.precision=fp32", "train.device=cpu", "train.threads=1"]).train
CPU = training.pick_engine(TRAIN)
CLOCK = training.Clock(first_epoch=2, total_epochs=6)


def _model(seed: int = 0) -> LightUNet:
    model = LightUNet(4, 2, 2)
    training.load_weights(model, initial_weights(model, seed))
    return model


def _trained(settings: TrainSettings = TRAIN, *, seed: int = 0, clock: training.Clock = CLOCK) -> list[np.ndarray]:
    model = _model()
    training.fit(model, toy_slices(), settings, clock=clock, seed=seed, engine=CPU)
    return training.weights_of(model)


def _equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_repeated_round_gives_the_same_weights() -> None:
    """A message delivered twice trains to the same bits, so a site never makes two updates for one round."""
    assert _equal(_trained(), _trained())


def test_seed_and_round_change_order_and_augmentation() -> None:
    """Two sites, or two rounds, do not draw alike."""
    late = training.Clock(first_epoch=3, total_epochs=6)

    assert not _equal(_trained(), _trained(seed=1))
    assert not _equal(_trained(), _trained(clock=late))


def test_training_lowers_the_loss() -> None:
    """Forty epochs on six bright squares: the model finds them."""
    settings = TRAIN.model_copy(update={"local_epochs": 40, "batch_size": 2, "augment": False})
    model, slices = _model(), toy_slices()
    before, _ = training.evaluate(model, slices, settings, CPU)

    training.fit(model, slices, settings, clock=training.Clock(first_epoch=0, total_epochs=40), seed=0, engine=CPU)

    after, evaluation = training.evaluate(model, slices, settings, CPU)
    assert after < before / 3
    assert evaluation.pixels.dice > 0.9


def test_the_report_tells_steps_and_learning_rate() -> None:
    """Six slices in batches of two are three steps an epoch; the last one's rate is on the cosine."""
    settings = TRAIN.model_copy(update={"batch_size": 2, "local_epochs": 2})

    report = training.fit(_model(), toy_slices(), settings, clock=CLOCK, seed=0, engine=CPU)

    assert report.steps == 6
    assert 0 < report.last_lr < settings.lr
    assert report.seconds > 0


def test_weights_go_in_and_come_out_unchanged() -> None:
    """float32, in state_dict order, as copies."""
    model = _model(3)
    weights = training.weights_of(model)

    assert _equal(weights, initial_weights(model, 3))
    assert {w.dtype for w in weights} == {np.dtype(np.float32)}
    weights[0][:] = 7
    assert not (training.weights_of(model)[0] == 7).any()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda w: w[:-1], "got 47 parameter arrays, the model has 48"),
        (lambda w: [w[0][..., :2], *w[1:]], r"parameter stem.first.0.weight has shape"),
        (lambda w: [np.full_like(w[0], np.nan), *w[1:]], "stem.first.0.weight holds NaN or infinity"),
    ],
)
def test_unfit_weights_are_refused_by_name(spoil: Callable[[list[np.ndarray]], list[np.ndarray]], reason: str) -> None:
    """Another count, another shape, or values that are not finite."""
    model = LightUNet(4, 2, 2)

    with pytest.raises(UpdateError, match=reason):
        training.load_weights(model, spoil(initial_weights(model, 0)))


def test_a_diverged_loss_is_an_error() -> None:
    """A model that overflows is never returned as if it had been trained."""
    model = _model()
    with torch.no_grad():
        model.head.weight.fill_(3e38)

    with pytest.raises(TrainingError, match=r"in global epoch 2; lower train\.lr"):
        training.fit(model, toy_slices(), TRAIN, clock=CLOCK, seed=0, engine=CPU)


def test_a_site_without_slices_is_refused() -> None:
    """There is nothing to learn from."""
    with pytest.raises(TrainingError, match="no training slices"):
        training.fit(_model(), toy_slices(0), TRAIN, clock=CLOCK, seed=0, engine=CPU)


def test_evaluating_nothing_counts_nothing() -> None:
    """A site whose test part is empty answers with zeros, not with a failure."""
    loss, evaluation = training.evaluate(_model(), toy_slices(0), TRAIN, CPU)

    assert (loss, evaluation.slices) == (0.0, 0)


def test_auto_precision_says_what_it_picked_and_why() -> None:
    """On a CPU: bf16 where it multiplies bf16, else fp32; the reason is in the text."""
    engine = training.pick_engine(TRAIN.model_copy(update={"precision": "auto"}))

    assert str(engine) in {
        "bf16 on cpu (auto: this CPU multiplies bf16)",
        "fp32 on cpu (auto: this CPU does not multiply bf16)",
    }


def test_low_precision_trains_too() -> None:
    """bf16 runs on every CPU, if slowly, and gives finite float32 weights."""
    settings = TRAIN.model_copy(update={"precision": "bf16"})
    model = _model()

    training.fit(model, toy_slices(), settings, clock=CLOCK, seed=0, engine=training.pick_engine(settings))

    assert all(np.isfinite(w).all() and w.dtype == np.float32 for w in training.weights_of(model))


def test_fp16_on_a_cpu_is_refused() -> None:
    """There is no quiet replacement of a precision that was asked for."""
    with pytest.raises(SettingsError, match="fp16 needs CUDA"):
        training.pick_engine(TRAIN.model_copy(update={"precision": "fp16"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_cuda_is_refused() -> None:
    """`device: cuda` without CUDA does not fall back to the CPU."""
    with pytest.raises(SettingsError, match="sees no CUDA device"):
        training.pick_engine(TRAIN.model_copy(update={"device": "cuda"}))


def test_augmentation_keeps_form_and_repeats_by_seed() -> None:
    """uint8 in, uint8 out; masks stay binary; equal seeds change equally and another seed otherwise."""
    slices = toy_slices()
    first, again, other = (augmenter(seed) for seed in (4, 4, 5))

    results = [[change(i, m) for i, m in zip(slices.images, slices.masks, strict=True)] for change in (first, again, other)]

    for image, mask in results[0]:
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == mask.shape == (32, 32)
        assert set(np.unique(mask)) <= {0, 1}
    images = [np.stack([image for image, _ in result]) for result in results]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
