"""What colluders send, on small vectors: each attack does what its source says, from what the colluders know alone."""

from typing import Any

import numpy as np
import pytest

from bahefl_flwr.attack.catalogue import ATTACKS
from bahefl_flwr.attack.crafting import Knowledge, knowledge

SEED = (1, 2, 3)


def known(colluders: int = 4, parameters: int = 300, **changes: Any) -> Knowledge:
    """Benign updates that go somewhat alike, along with the accepted ones; poisoned ones that go elsewhere."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=parameters)
    benign = common + rng.normal(size=(colluders, parameters))
    fields: dict[str, Any] = {
        "benign": benign,
        "poisoned": rng.normal(size=(colluders, parameters)) - 2 * common,
        "last": common + rng.normal(size=parameters),
        "recent": common + 0.5 * rng.normal(size=parameters),
        "drift": 3 * common + rng.normal(size=parameters),
        "seed": SEED,
    }
    return Knowledge(**{**fields, **changes})


def norms(updates: np.ndarray) -> np.ndarray:
    return np.linalg.norm(updates, axis=1)


def test_the_first_model_teaches_nothing() -> None:
    """Before the first accepted round there is no history."""
    first = knowledge(np.ones((2, 3)), np.ones((2, 3)), [np.arange(3.0)], SEED)
    assert not (first.last.any() or first.recent.any() or first.drift.any() or first.forwards.any())


def test_history_follows_from_the_models_alone() -> None:
    """The last step, the exponential mean of steps and the drift; a round that was held is no step."""
    models = [np.array([0.0, 0]), np.array([1.0, 0]), np.array([1.0, 0]), np.array([1.0, 5])]
    seen = knowledge(np.ones((2, 2)), np.ones((2, 2)), models, SEED)
    assert seen.last.tolist() == [0, 5]
    assert np.allclose(seen.recent, [0.8, 1.0])
    assert seen.drift.tolist() == [1, 5]


@pytest.mark.parametrize(
    "name",
    [
        "mask_inversion_norm", "empty_masks_norm", "backdoor_norm", "mask_inversion_aligned", "copies", "alie_noise",
        "min_max_noise", "replay", "mimicry",
    ],
)  # fmt: skip
def test_norm_bounded_attacks_are_as_long_as_a_benign_update(name: str) -> None:
    """The median length of the colluders' benign updates, so that clipping takes nothing away."""
    now = known()
    assert np.allclose(norms(ATTACKS[name].craft(now)), np.median(norms(now.benign)))


@pytest.mark.parametrize(
    ("name", "factor"), [("mask_inversion", 1), ("mask_inversion_x10", 10), ("empty_masks", 1), ("backdoor_x5", 5)]
)
def test_poisoned_updates_are_sent_as_they_are_or_boosted(name: str, factor: float) -> None:
    """What training on poisoned slices gave, times the factor of the name."""
    now = known()
    assert np.array_equal(ATTACKS[name].craft(now), factor * now.poisoned)
    assert ATTACKS[name].poison is not None


@pytest.mark.parametrize(("name", "factor"), [("sign_flip", -1), ("scale_minus_5", -5)])
def test_benign_updates_are_reversed(name: str, factor: float) -> None:
    """Each colluder's own update, times the factor of the name."""
    now = known()
    assert np.array_equal(ATTACKS[name].craft(now), factor * now.benign)


@pytest.mark.parametrize(("name", "factor"), [("ipm", -0.5), ("ipm_strong", -2)])
def test_inner_product_manipulation_sends_the_mean_reversed(name: str, factor: float) -> None:
    """All colluders send the same multiple of the mean."""
    now = known()
    assert np.allclose(ATTACKS[name].craft(now), factor * now.benign.mean(axis=0))


def test_alie_is_a_little_below_the_mean() -> None:
    """1.5 deviations in every parameter."""
    now = known()
    below = (now.benign.mean(axis=0) - ATTACKS["alie"].craft(now)) / now.benign.std(axis=0, ddof=1)
    assert np.allclose(below, 1.5)


def test_gaussian_goes_nowhere_and_far() -> None:
    """Three times as long as a benign update, and across it."""
    now = known(parameters=20_000)
    sent = ATTACKS["gaussian"].craft(now)
    assert np.allclose(norms(sent), 3 * now.usual_norm)
    assert np.abs(sent @ now.forwards).max() < 0.05 * now.usual_norm * 3


@pytest.mark.parametrize("name", ["mask_inversion_aligned", "mimicry"])
def test_adaptive_attacks_are_aligned_as_benign_updates_are(name: str) -> None:
    """Their mean cosine to recent updates and drift, which screening looks at, is the benign median's."""
    now = known()

    def alignment(updates: np.ndarray) -> np.ndarray:
        cosines = [updates @ v / (norms(updates) * np.linalg.norm(v)) for v in (now.recent, now.drift)]
        return np.mean(cosines, axis=0)

    assert np.allclose(alignment(ATTACKS[name].craft(now)), np.median(alignment(now.benign)))


def test_mimicry_undoes_what_benign_updates_have_in_common() -> None:
    """Besides the way forwards it pulls against the mean."""
    now = known()
    mean = now.benign.mean(axis=0)
    sideways = mean - (mean @ now.forwards) * now.forwards
    assert (ATTACKS["mimicry"].craft(now) @ sideways < 0).all()


def test_replay_sends_the_last_accepted_update_again() -> None:
    """Nearly the same direction; nothing to replay before the first round, so it is benign then."""
    now = known()
    sent = ATTACKS["replay"].craft(now)
    assert (sent @ now.last / (norms(sent) * np.linalg.norm(now.last)) > 0.999).all()
    first = known(last=np.zeros(300))
    assert np.array_equal(ATTACKS["replay"].craft(first), first.benign)


def test_zero_sends_nothing_to_speak_of() -> None:
    """A millionth of a benign update."""
    now = known()
    assert norms(ATTACKS["zero"].craft(now)).max() < 2e-6 * now.usual_norm


@pytest.mark.parametrize("name", ["copies", "alie", "ipm", "ipm_strong", "min_max", "min_sum"])
def test_plain_collusion_sends_copies(name: str) -> None:
    """All rows are equal: what a search for copies finds."""
    sent = ATTACKS[name].craft(known())
    assert np.array_equal(sent, np.repeat(sent[:1], len(sent), axis=0))


@pytest.mark.parametrize(
    "name", ["alie_noise", "min_max_noise", "replay", "zero", "gaussian", "mimicry", "mask_inversion_aligned"]
)
def test_disguised_collusion_sends_no_copies(name: str) -> None:
    """No two rows are equal."""
    sent = ATTACKS[name].craft(known())
    assert len({row.tobytes() for row in sent}) == len(sent)


@pytest.mark.parametrize("name", ["gaussian", "alie_noise", "min_max_noise", "zero", "replay"])
def test_noise_follows_from_the_seed(name: str) -> None:
    """Equal seeds give equal bytes; another round gives others."""
    craft = ATTACKS[name].craft
    assert np.array_equal(craft(known()), craft(known()))
    assert not np.array_equal(craft(known()), craft(known(seed=(1, 2, 4))))


@pytest.mark.parametrize("name", ["alie", "ipm", "min_max", "min_sum"])
def test_a_lone_attacker_takes_the_last_accepted_update_for_a_second(name: str) -> None:
    """Its estimates are those of two colluders, of whom one sent that update."""
    alone, two = known(colluders=1), known(colluders=1)
    pair = known(benign=np.stack([two.benign[0], two.last]))
    assert np.allclose(ATTACKS[name].craft(alone), ATTACKS[name].craft(pair)[:1])


@pytest.mark.parametrize("name", ["min_max", "min_sum"])
def test_distances_stay_those_of_benign_updates(name: str) -> None:
    """The bound of the paper is reached, and not exceeded: the largest distance, or the largest sum of squared ones."""
    now = known()
    squared = np.square(now.benign[:, None] - now.benign[None]).sum(axis=2)  # (m, m)
    own = np.square(now.benign - ATTACKS[name].craft(now)[0]).sum(axis=1)  # (m,)
    if name == "min_max":
        assert np.isclose(own.max(), squared.max())
    else:
        assert np.isclose(own.sum(), squared.sum(axis=1).max())
