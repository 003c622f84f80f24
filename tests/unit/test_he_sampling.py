"""Samplers have the distributions they claim; seeds stay apart and stay secret."""

import pickle

import numpy as np
import pytest
from scipy import stats

from bahefl_flwr.errors import KeysError
from bahefl_flwr.he.sampling import Generator, SecretSeed, centred_binomial, flooding, frame, ternary, uniform

COUNT = 200_000


def generator(label: int = 0) -> Generator:
    """Fixed randomness, so that a statistical test cannot fail by chance."""
    return Generator(SecretSeed(bytes(32)).derive("test", label))


def test_ternary_is_uniform() -> None:
    """-1, 0 and 1 are equally frequent."""
    counts = np.bincount(ternary(generator(), COUNT) + 1, minlength=3)
    assert counts.size == 3
    assert stats.chisquare(counts).pvalue > 0.001


def test_centred_binomial_is_seals_error() -> None:
    """The distribution is Binomial(42, 1/2) - 21."""
    drawn = centred_binomial(generator(), COUNT)
    wanted = stats.binom.pmf(np.arange(43), 42, 0.5) * COUNT
    frequent = wanted > 5
    got = np.bincount(drawn + 21, minlength=43)
    assert stats.chisquare(got[frequent], wanted[frequent] * got[frequent].sum() / wanted[frequent].sum()).pvalue > 0.001


@pytest.mark.parametrize("q", [40961, 1073651713, 2**32 - 5])
def test_uniform_is_uniform(q: int) -> None:
    """Residues fill 0..q-1 evenly."""
    drawn = uniform(generator(), q, COUNT)
    assert drawn.min() >= 0
    assert drawn.max() < q
    assert stats.kstest(drawn / q, "uniform").pvalue > 0.001


@pytest.mark.parametrize("sigma_log2", [12, 30, 40, 58])
def test_flooding_is_a_bell_of_the_asked_width(sigma_log2: int) -> None:
    """Mean, standard deviation and shape are those of a Gaussian, to sampling accuracy."""
    drawn = flooding(generator(), COUNT, sigma_log2) / 2.0**sigma_log2
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(1.005, abs=0.01)
    assert stats.kstest(drawn, "norm", args=(0, 1.005)).statistic < 0.005


def test_flooding_hides_shifts_as_well_as_a_gaussian() -> None:
    """Fisher information of the binomial joined by straight lines: within 2 % of a Gaussian's of equal variance."""
    steps = stats.binom.pmf(np.arange(65), 64, 0.5)
    rises = np.diff(steps)
    ratios = np.where(rises == 0, 1.0, steps[1:] / steps[:-1])
    information = np.sum(np.where(rises == 0, 0.0, rises * np.log(ratios)))
    assert information * (16 + 1 / 6) == pytest.approx(1, abs=0.02)


def test_equal_seeds_give_equal_streams_and_labels_part_them() -> None:
    """A generator is determined by its seed; a derived seed by label and every piece of context."""
    root = SecretSeed(b"s" * 32)
    streams = {
        Generator(seed).bytes(32).tobytes()
        for seed in (
            root,
            root.derive("a"),
            root.derive("b"),
            root.derive("a", 1),
            root.derive("a", b"\1"),
            root.derive("a", 1, 1),
        )
    }
    assert len(streams) == 6
    assert np.array_equal(Generator(root).words(9), Generator(SecretSeed(b"s" * 32)).words(9))


def test_framing_is_unambiguous() -> None:
    """Moving a byte from one piece of context to the next changes the encoding."""
    assert frame("p", b"ab", b"c") != frame("p", b"a", b"bc") != frame("p", b"abc")


def test_a_seed_neither_prints_nor_pickles() -> None:
    """Secrets are types: redacted, and bound to their process."""
    seed = SecretSeed(b"\xaa" * 32)
    assert "aa" not in repr(seed)
    with pytest.raises(TypeError):
        pickle.dumps(seed)


def test_a_seed_has_32_bytes() -> None:
    """Anything shorter is no key."""
    with pytest.raises(KeysError, match="32 bytes, got 31"):
        SecretSeed(bytes(31))
