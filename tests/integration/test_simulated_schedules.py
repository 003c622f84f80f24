"""Seeded schedules of the whole protocol in virtual time: promises P1 to P4 hold in each, and planted faults break them.

`nox -s simulate` runs ten thousand. A failure names its seed, and `python tests/simulate.py --seed N` prints that one whole.
"""

from __future__ import annotations

import pytest

from simulated.bugs import BUGS
from simulated.plan import KINDS, plan
from simulated.schedule import Ended, run

QUICKLY_SEEN = sorted(name for name, bug in BUGS.items() if bug.within <= 10)


def told(ended: Ended) -> str:
    """What to read where a schedule breaks a promise."""
    return "\n".join((f"seed {ended.plan.seed}: {ended.broken}", str(ended.plan), *ended.trace[-60:]))


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_every_promise_is_kept(first: int) -> None:
    """Whatever is lost, comes twice or late, whoever is killed or cheats: twenty seeds each."""
    for seed in range(first, first + 20):
        ended = run(plan(seed))
        assert not ended.broken, told(ended)


def test_a_schedule_can_be_run_again() -> None:
    """The same seed gives the same course of events, so a failure can be looked at."""
    first, second = run(plan(3)), run(plan(3))
    assert [line.split(" of ")[0] for line in first.trace if "executes" in line] == [
        line.split(" of ")[0] for line in second.trace if "executes" in line
    ]
    assert (first.finalized, first.messages, first.virtual_s) == (second.finalized, second.messages, second.virtual_s)


def test_all_kinds_of_schedules_are_drawn() -> None:
    """The first hundred have them all, among them votes on halves and updates that spoil the sum."""
    plans = [plan(seed) for seed in range(100)]
    assert {p.kind for p in plans} == set(KINDS)
    assert any(p.garbage >= 0 for p in plans)


@pytest.mark.parametrize("name", QUICKLY_SEEN)
def test_a_planted_fault_is_seen_at_once(name: str) -> None:
    """Within ten schedules; those that take more are in the slow suite."""
    assert_seen(name)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(set(BUGS) - set(QUICKLY_SEEN)))
def test_a_planted_fault_is_seen(name: str) -> None:
    """Within as many schedules as tests/simulated/bugs.py states."""
    assert_seen(name)


def assert_seen(name: str) -> None:
    """A promise that the fault may break is broken, within the number of schedules stated for it."""
    bug, seen = BUGS[name], []
    with bug.planted():
        for drawn in bug.plans():
            broken = run(drawn, model=bug.model).broken
            seen += [broken] if broken else []
            if broken.startswith(bug.breaks):
                return
    pytest.fail(f"{name}: not seen in {bug.within} schedules; other findings: {seen[:3]}")
