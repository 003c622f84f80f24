"""Crafted updates over all shapes of groups: always usable, and never farther away than their papers allow."""

from typing import get_args

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bahefl_flwr.attack.catalogue import ATTACKS
from bahefl_flwr.attack.crafting import Knowledge, knowledge
from bahefl_flwr.setting_groups import AttackName

VALUES = st.floats(-4, 4, allow_subnormal=False, width=32)


@st.composite
def groups(draw: st.DrawFn, smallest: int = 1) -> Knowledge:
    """Any few colluders, and any few models before; zeros and copies among them."""
    m, size, models = draw(st.integers(smallest, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 4))
    benign, poisoned = (draw(arrays(np.float64, (m, size), elements=VALUES)) for _ in range(2))
    seen = draw(arrays(np.float64, (models, size), elements=VALUES))
    return knowledge(benign, poisoned, list(seen), (draw(st.integers(0, 9)),))


@given(groups(), st.sampled_from([name for name in get_args(AttackName) if name != "none"]))
def test_every_attack_gives_finite_updates(known: Knowledge, name: AttackName) -> None:
    """Whatever was trained, each colluder gets an update that its site can encrypt, and the inputs are left alone."""
    before = (known.benign.copy(), known.poisoned.copy())
    sent = ATTACKS[name].craft(known)
    assert sent.shape == known.benign.shape
    assert np.isfinite(sent).all()
    assert np.array_equal(before[0], known.benign) and np.array_equal(before[1], known.poisoned)


@given(groups(smallest=2))
def test_min_max_is_never_farther_than_two_benign_updates_are(known: Knowledge) -> None:
    """The largest distance to a benign update is at most the largest between two of them."""
    sent = ATTACKS["min_max"].craft(known)[0]
    apart = np.sqrt(np.square(known.benign[:, None] - known.benign[None]).sum(axis=2)).max()
    assert np.linalg.norm(known.benign - sent, axis=1).max() <= apart + 1e-6


@given(groups(smallest=2))
def test_min_sum_is_never_farther_in_sum(known: Knowledge) -> None:
    """The sum of squared distances to the benign updates is at most the largest that one of them has."""
    sent = ATTACKS["min_sum"].craft(known)[0]
    sums = np.square(known.benign[:, None] - known.benign[None]).sum(axis=(1, 2))
    assert np.square(known.benign - sent).sum() <= sums.max() + 1e-6
