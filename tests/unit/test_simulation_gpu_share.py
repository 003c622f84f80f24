"""How simulated sites share GPUs."""

import pytest

from bahefl_flwr._flwr_compat import gpu_share


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 7, 10, 49, 100])
def test_all_workers_fit_at_once(gpus: int, workers: int) -> None:
    """A worker that fits on no GPU would wait for ever: Ray fills each GPU with whole workers."""
    share = gpu_share(gpus, workers)
    assert 0 < share <= 1
    assert gpus * int(1 / share) >= workers


def test_without_a_gpu_nobody_waits_for_one() -> None:
    """A share above 0 of nothing would leave every worker waiting."""
    assert gpu_share(0, 5) == 0.0
