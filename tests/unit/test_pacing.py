"""How often is looked for something that nobody announces."""

import pytest

from bahefl_flwr._flwr_deployment import PacedTime
from bahefl_flwr.pacing import FASTEST_S, pause_s


@pytest.mark.parametrize(("waited_s", "pause"), [(0.0, FASTEST_S), (0.5, 0.05), (10.0, 1.0), (1000.0, 3.0)])
def test_the_longer_the_wait_the_rarer_the_looks(waited_s: float, pause: float) -> None:
    """A tenth of the wait so far, within both bounds."""
    assert pause_s(waited_s, slowest_s=3.0) == pytest.approx(pause)


def test_a_wait_of_another_kind_starts_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's SuperNode waits for messages and for replies with other lengths: quick after a change, never longer than asked."""
    slept, clock = [], [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("bahefl_flwr._flwr_deployment.time.sleep", sleep)
    monkeypatch.setattr("bahefl_flwr._flwr_deployment.time.monotonic", lambda: clock[0])
    paced = PacedTime()
    while clock[0] < 100:
        paced.sleep(3)
    paced.sleep(0.5)
    assert max(slept) == 3
    assert slept[-1] == FASTEST_S
    assert paced.time is not None
