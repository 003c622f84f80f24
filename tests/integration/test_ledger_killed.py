"""Claims about whole runs whose ledger node is killed: nobody's work is lost, and the run goes on by itself."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from bahefl_flwr import federation
from bahefl_flwr.ledger.node import NodeProcess
from bahefl_flwr.records import RoundPhase
from federation_run import federated_run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_killed_while_sites_train_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 in the middle of two sites' fit: each site trains once a round, commits, and both rounds are finalised."""
    nodes: list[NodeProcess] = []
    fits: Counter[tuple[int, int]] = Counter()

    class Known(NodeProcess):
        def start(self) -> None:
            super().start()
            nodes.append(self)

    def kill(site: int, number: int) -> None:
        fits[site, number] += 1
        if site == number and nodes[-1].pid:
            os.kill(nodes[-1].pid, signal.SIGKILL)

    monkeypatch.setattr(federation, "NodeProcess", Known)
    run = federated_run(tmp_path, misbehave=kill)
    assert len(nodes) == 3
    assert [r.phase for r in run.rounds.values()] == [RoundPhase.FINALIZED] * 2
    assert fits == Counter({(site, number): 1 for site in range(4) for number in (1, 2)})
