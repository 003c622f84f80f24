"""kill -9 of every kind of process in a federation of processes: in every phase of a round, in the key ceremony, at the end.

Rows 1, 5 to 9 and 15 of the fault matrix with real processes. A supervisor (the script's) starts them again, as systemd would.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bahefl_flwr.records import EpochPhase, RoundPhase
from killed_federation import (
    Ended,
    Occasion,
    Victim,
    between_reveal_and_publish,
    coordinator,
    federation_with_kills,
    in_ceremony,
    in_final_evaluation,
    in_round,
    named,
    server_app,
    whole_site,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PHASES = (RoundPhase.COMMIT, RoundPhase.AGGREGATE, RoundPhase.VERIFY, RoundPhase.VERIFIED)


def survived(folder: Path, deeds: Sequence[tuple[Occasion, Victim]], rounds: int) -> Ended:
    """A run in which these are killed: it is complete, each round told once, all sites have one model, the audit holds."""
    ended = federation_with_kills(folder, deeds, "experiment=smoke", f"federation.rounds={rounds}", "train.local_epochs=1")
    finalised = [line["round"] for line in ended.lines() if line["finalised"]]
    assert len(finalised) == len(set(finalised)) == rounds
    assert ended.summary()["outcome"] == "completed" and ended.summary()["rounds"] == rounds
    models = [path.read_bytes() for path in ended.models()]
    assert len(models) == 3 and len(set(models)) == 1
    assert "every check holds" in ended.said
    return ended


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(server_app, id="server-app"),
        pytest.param(coordinator, id="coordinator"),
        pytest.param(named("superlink"), id="superlink"),
        pytest.param(named("supernode-1"), id="supernode"),
        pytest.param(named("store"), id="store"),
        pytest.param(named("ledger"), id="ledger"),
    ],
)
def test_a_run_outlives_what_is_killed_in_it(tmp_path: Path, victim: Victim) -> None:
    """Killed in each phase of a round: all rounds are finalised, each told once, all sites have one model, the audit holds."""
    deeds = [(in_round(number, phase), victim) for number, phase in enumerate(PHASES, 1)]
    ended = survived(tmp_path, deeds, len(PHASES) + 1)
    assert all(len(line["included"]) >= 2 for line in ended.lines() if line["finalised"])


@pytest.mark.parametrize(
    "deeds",
    [
        pytest.param([(between_reveal_and_publish(1), whole_site(1)), (in_final_evaluation(1), named("supernode-1"))], id="site"),
        pytest.param([(in_ceremony(EpochPhase.PUBLISH), server_app), (in_final_evaluation(), server_app)], id="server-app"),
        pytest.param([(in_ceremony(EpochPhase.PUBLISH), named("ledger")), (in_final_evaluation(), named("ledger"))], id="ledger"),
    ],
)
def test_a_run_outlives_what_is_killed_before_and_after_its_rounds(
    tmp_path: Path, deeds: Sequence[tuple[Occasion, Victim]]
) -> None:
    """Killed in the key ceremony and again in the final evaluation: it is complete, with every site in its round and its test.

    A site is killed between its REVEAL and its PUBLISH, while it makes its key share.
    """
    ended = survived(tmp_path, deeds, 1)
    (line,) = ended.lines()
    assert line["committed"] == line["included"] == [0, 1, 2]
    assert ended.summary()["tested"] == {"sites": 3, "of": 3}
