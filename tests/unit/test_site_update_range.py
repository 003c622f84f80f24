"""A site says where `he.update_range` does not suit what its model does in a round."""

from types import SimpleNamespace

import numpy as np
import pytest

from bahefl_flwr.settings import compose
from bahefl_flwr.site.state import Outcome, task_params
from bahefl_flwr.site.training import _note_range

PARAMS = task_params(compose(["experiment=numpyclient"]))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (0.1, ""),
        (0.3, "100% of the changes lie beyond he.update_range=0.25, the farthest at 0.3"),
        (0.0001, "the changes, of 0.0001 on average, are rounded to multiples of 0.00032"),
        (0.0, ""),
    ],
)
def test_changes_far_from_the_range_are_noted(change: float, note: str) -> None:
    """Too large ones are cut off, too small ones rounded away; either is said, with what to set."""
    outcome = Outcome()
    _note_range(SimpleNamespace(number=4), np.full(1000, change, np.float32), 0.2, PARAMS, outcome)  # type: ignore[arg-type]
    assert note in "".join(outcome.notes)
    assert len(outcome.notes) == bool(note)
