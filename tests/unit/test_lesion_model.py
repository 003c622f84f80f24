"""The network: its size, its shapes, and first weights that are the same bits at every site."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.lesion.model import LightUNet, SimAM, build, initial_weights
from bahefl_flwr.setting_groups import ModelSettings


@pytest.mark.parametrize(("unshuffle", "parameters"), [(1, 345_012), (2, 345_543)])
def test_width_16_has_the_documented_number_of_parameters(unshuffle: int, parameters: int) -> None:
    """The default model packs into 29 ciphertexts of 12,288 parameters, with and without pixel unshuffling."""
    model = LightUNet(16, 4, unshuffle)

    assert sum(p.numel() for p in model.parameters()) == parameters
    assert -(-parameters // 12_288) == 29


def test_the_state_is_parameters_only() -> None:
    """There are no buffers, which an encrypted average of parameters would lose."""
    model = LightUNet(8, 3, 2)

    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("width", "depth", "unshuffle"), [(4, 2, 1), (6, 3, 2), (20, 4, 2)])
def test_heads_have_the_documented_sizes(width: int, depth: int, unshuffle: int) -> None:
    """The main head answers at full size, each side head at half the size of the one before."""
    outputs = LightUNet(width, depth, unshuffle)(torch.zeros(2, 1, 64, 64))

    inner = 64 // unshuffle
    assert [tuple(o.shape) for o in outputs] == [(2, 1, 64, 64)] + [(2, 1, inner >> k, inner >> k) for k in range(1, depth)]


def test_simam_is_the_published_formula() -> None:
    """SimAM equals equation 5 of the paper, computed pixel by pixel in numpy."""
    x = np.random.default_rng(0).normal(size=(1, 1, 5, 4))
    distance = (x - x.mean()) ** 2
    energy = distance / (4 * (distance.sum() / 19 + 1e-4)) + 0.5

    attended = SimAM()(torch.from_numpy(x)).numpy()

    np.testing.assert_allclose(attended, x / (1 + np.exp(-energy)), rtol=1e-12)


def test_first_weights_are_equal_for_equal_seeds_only() -> None:
    """Two sites that know the seed compute the same model without talking to each other."""
    model = LightUNet(4, 2, 2)
    digests = [_digest(initial_weights(LightUNet(4, 2, 2), seed)) for seed in (1, 1, 2)]

    assert digests[0] == digests[1] != digests[2]
    assert [w.shape for w in initial_weights(model, 1)] == [tuple(t.shape) for t in model.state_dict().values()]


def test_first_weights_are_pinned() -> None:
    """The bits of the first model are part of the protocol: its digest is on the ledger, so no release may change them."""
    assert _digest(initial_weights(LightUNet(4, 2, 2), 1)) == "888c7194c9edbda1de746df5a23e095eec8f8a4779dcafef92bf1f79879bf8cf"


def test_first_weights_ignore_torchs_random_state() -> None:
    """Nothing that ran before in the process moves the first weights."""
    torch.manual_seed(5)
    first = _digest(initial_weights(LightUNet(4, 2, 2), 3))
    torch.manual_seed(6)

    assert _digest(initial_weights(LightUNet(4, 2, 2), 3)) == first


@pytest.mark.parametrize("size", [32, 96])
def test_images_that_cannot_be_halved_are_refused(size: int) -> None:
    """A size that ends as one pixel, or is no multiple, is refused with the size that would do."""
    with pytest.raises(SettingsError, match="multiple of 64 that is at least 128"):
        build(ModelSettings(width=8, depth=5, unshuffle=2), size)


def _digest(weights: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(w.astype("<f4").tobytes() for w in weights)).hexdigest()
