"""The best round's model at a site: kept as long as it is the best, and never mistaken for another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from bahefl_flwr.errors import StoreError
from bahefl_flwr.site.model import BEST_FILE, Model, load_model
from bahefl_flwr.site.selection import best_round, chosen_model, keep_if_best
from bahefl_flwr.site.state import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of which only the folder is used."""
    return cast("Site", SimpleNamespace(folder=tmp_path))


def after(round: int) -> Model:
    """A model that tells its round."""
    return Model(round=round, arrays=(np.full(3, round, np.float32),), names=("w",))


def opened(site: Site, *told: tuple[int, int]) -> None:
    """Open models one after the other, told (round, best round so far) each."""
    for number, best in told:
        keep_if_best(site, after(number), best)


def test_a_better_round_takes_the_place_of_the_best(site: Site) -> None:
    """Rounds 1 and 3 were the best when they were told; 2 and 4 never."""
    opened(site, (1, 1), (2, 1), (3, 3), (4, 3))

    assert load_model(site.folder / BEST_FILE).round == 3
    assert chosen_model(site, after(4), 3).digest() == after(3).digest()


def test_the_newest_model_needs_no_copy(site: Site) -> None:
    """The last round is the best, or no round had a score."""
    assert chosen_model(site, after(4), 4).round == chosen_model(site, after(4), 0).round == 4


def test_a_site_that_has_not_kept_it_says_so(site: Site) -> None:
    """Never the wrong model under the best one's name."""
    opened(site, (1, 1))

    with pytest.raises(StoreError, match="not kept the model of round 2"):
        chosen_model(site, after(4), 2)


@pytest.mark.parametrize(("told", "best"), [({}, 0), ({"best-round": 7}, 7), ({"best-round": "7"}, 0), ({"best-round": b"x"}, 0)])
def test_a_driver_that_names_no_round_changes_nothing(told: dict[str, object], best: int) -> None:
    """An entry that is absent, or no number, means that no round is the best."""
    assert best_round(told) == best
