"""Claims about a coordinator that waits for layers and sketches: how long, and what it is held to. The real contract."""

from __future__ import annotations

import pytest

from bahefl_flwr.records import RoundOutcome, mask_of
from ledger_sites import CONFIG, WINDOW_S, N, Sites, refused

ZERO = bytes(32)
START = 32768


# ---- whose fault it is


def test_a_coordinator_without_sketches_loses_its_office_only(seeded: Sites) -> None:
    """Key holders that name no parts must not cost another's score: one part of two is not enough to screen with."""
    first, second, _ = seeded.committee()
    former = seeded.round().coordinator
    seeded.sketch(first, quorum=mask_of((first, second)))
    seeded.pass_deadline()
    seeded.stranger.replace_coordinator(1)
    assert seeded.round().coordinator != former
    assert (seeded.member(former).score, seeded.member(former).coordinator_faults) == (START, 0)


@pytest.mark.parametrize("revealed", [(), (0, 1), (0, 1, 2)])
def test_a_coordinator_without_a_seed_loses_its_office_only(screening: Sites, revealed: tuple[int, ...]) -> None:
    """The layers are the others' to reveal, and with a majority of them it is anybody's to draw: no fault of the coordinator."""
    former = screening.round().coordinator
    for i in revealed:
        screening.reveal_layers(i)
    screening.pass_deadline()
    screening.stranger.replace_coordinator(1)
    assert (screening.round().screen_seed, screening.round().coordinator != former) == (ZERO, True)
    assert (screening.member(former).score, screening.member(former).coordinator_faults) == (START, 0)


@pytest.mark.parametrize("revealed", [1, N])
def test_layers_excuse_nobody_where_nothing_is_screened(aggregating: Sites, revealed: int) -> None:
    """Without screening a coordinator needs none, so neither its own layer nor a seed drawn with accomplices is an excuse."""
    former = aggregating.round().coordinator
    aggregating.reveal_layers(*(former, *aggregating.others(former))[:revealed])
    aggregating.pass_deadline()
    aggregating.stranger.replace_coordinator(1)
    assert (aggregating.member(former).score, aggregating.member(former).coordinator_faults) == (START // 2, 1)


def test_a_coordinator_with_all_it_needs_is_at_fault(seeded: Sites) -> None:
    """Once a quorum has named all parts, a deadline missed is the coordinator's own."""
    former = seeded.round().coordinator
    seeded.sketch(*seeded.committee()[:2])
    seeded.pass_deadline()
    seeded.stranger.replace_coordinator(1)
    assert (seeded.member(former).score, seeded.member(former).coordinator_faults) == (START // 2, 1)


@pytest.mark.parametrize(("sketched", "score", "faults"), [(False, START, 0), (True, START // 2, 1)])
def test_a_suspended_coordinator_is_at_fault_if_it_could_act(seeded: Sites, sketched: bool, score: int, faults: int) -> None:
    """As one that is late."""
    former = seeded.round().coordinator
    if sketched:
        seeded.sketch(*seeded.committee()[:2])
    seeded.admin.suspend(seeded.accounts[former].address, "off line")
    assert (seeded.round().coordinator != former, seeded.round().attempt) == (True, 1)
    assert (seeded.member(former).score, seeded.member(former).coordinator_faults) == (score, faults)


def test_resigning_costs_an_eighth_even_before_there_are_sketches(screening: Sites) -> None:
    """It takes no time, so for nothing those elected could end round after round."""
    former = screening.round().coordinator
    screening.coordinator().resign(1, "tired")
    assert (screening.member(former).score, screening.member(former).coordinator_faults) == (START - START // 8, 0)


# ---- how long it has


def test_the_seed_gives_the_key_holders_a_whole_window(screening: Sites) -> None:
    """Else whoever draws it in the last minute has honest ones replaced, for nothing."""
    screening.chain.clock.advance(WINDOW_S - 120)
    screening.reveal_layers(0, 1, 2)
    before = screening.round().deadline
    screening.stranger.draw_seed(1)
    assert screening.round().deadline > before
    screening.chain.clock.advance(240)
    with refused("DeadlineNotReached"):
        screening.stranger.replace_coordinator(1)


def test_the_last_part_gives_the_coordinator_a_whole_window(seeded: Sites) -> None:
    """However late it comes: that coordinators need time to judge is no fault of theirs. Other quorums' parts prolong nothing."""
    first, second, third = seeded.committee()
    seeded.sketch(first, quorum=mask_of((first, second)))
    before = seeded.round().deadline
    seeded.chain.clock.advance(WINDOW_S - 120)
    assert seeded.round().deadline == before
    seeded.sketch(second, quorum=mask_of((first, second)))
    prolonged = seeded.round().deadline
    assert prolonged - seeded.view().chain_time > CONFIG.aggregate_window_s - 60
    seeded.chain.clock.advance(240)
    seeded.sketch(second, third)
    assert seeded.round().deadline == prolonged > before
    with refused("DeadlineNotReached"):
        seeded.stranger.replace_coordinator(1)


def test_a_spoiled_aggregates_parts_give_a_whole_window_again(seeded: Sites) -> None:
    """They answer another question, after which there is as much to do."""
    pair = seeded.committee()[:2]
    seeded.sketch(*pair)
    seeded.aggregate()
    seeded.attest()
    seeded.open()
    seeded.confirm(0, 1, 2, outcome=RoundOutcome.SPOILED)
    before = seeded.round().deadline
    seeded.chain.clock.advance(WINDOW_S // 2)
    seeded.sketch(*pair)
    assert seeded.round().deadline > before


def test_parts_prolong_nothing_where_nothing_is_screened(aggregating: Sites) -> None:
    """Key holders could give a coordinator there time that is not its due."""
    aggregating.reveal_layers()
    before = aggregating.round().deadline
    aggregating.chain.clock.advance(WINDOW_S // 2)
    aggregating.sketch(*aggregating.committee()[:2])
    assert aggregating.round().deadline == before
