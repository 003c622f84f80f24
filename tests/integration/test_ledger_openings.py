"""Claims about what opens an aggregate, who confirms the model, and wrong shares: the real contract on a chain."""

from __future__ import annotations

from dataclasses import replace

from bahefl_flwr.records import AccusationRecord, EpochPhase, RoundOutcome, RoundPhase, mask_of
from ledger_sites import CONFIG, NO_EVIDENCE, N, Sites, digest, refused

ALL = 2**N - 1
ZERO = bytes(32)


# ---- confirmation


def test_a_majority_names_the_model(opened: Sites) -> None:
    """Two of five are too few, three settle it; later ones, also differing ones, count as present but change nothing."""
    opened.confirm(0, 1)
    assert (opened.round().confirmed, opened.round().opened) == (0b00011, ZERO)
    opened.confirm(2)
    assert (opened.round().confirmed, opened.round().opened) == (0b00111, digest("model after", 1))
    opened.confirm(3)
    opened.confirm(4, model="another model")
    assert (opened.round().confirmed, opened.round().opened) == (ALL, digest("model after", 1))
    opened.stranger.finalize(1)
    assert opened.round().base == digest("model after", 1)


def test_confirmations_of_different_models_do_not_add_up(opened: Sites) -> None:
    """Two against two name nothing; the fifth site decides."""
    opened.confirm(0, 1)
    opened.confirm(2, 3, model="another model")
    assert opened.round().opened == ZERO
    opened.confirm(4, model="another model")
    assert opened.round().opened == digest("another model", 1)


def test_a_round_without_a_majority_for_one_model_is_abandoned(opened: Sites) -> None:
    """Promise P4: by anyone after the deadline, although a quorum opened; the keys stay, as their holders did their part."""
    opened.confirm(0, 1)
    opened.confirm(2, 3, model="another model")
    with refused("NotOpened"):
        opened.admin.finalize(1)
    with refused("DeadlineNotReached"):
        opened.admin.abandon(1, "no agreement")
    opened.pass_deadline()
    with refused("NotOpened"):
        opened.admin.finalize(1)
    opened.stranger.abandon(1, "no agreement")
    assert opened.admin.round(1).abort_reason == "no agreement"
    assert (opened.round().number, opened.round().epoch, opened.round().base) == (2, 1, digest("model"))


def test_confirmations_name_the_open_quorum_once_and_in_time(opened: Sites) -> None:
    """Another quorum, an empty digest, strangers, a second confirmation and late ones are refused."""
    quorum = opened.round().open_quorum
    with refused("QuorumMismatch"):
        opened.ledgers[0].confirm_opening(1, ALL & ~quorum, digest("m"), RoundOutcome.WHOLE)
    with refused("ZeroDigest"):
        opened.ledgers[0].confirm_opening(1, quorum, ZERO, RoundOutcome.WHOLE)
    with refused("NotMember"):
        opened.stranger.confirm_opening(1, quorum, digest("m"), RoundOutcome.WHOLE)
    with refused("NotCurrentRound"):
        opened.ledgers[0].confirm_opening(2, quorum, digest("m"), RoundOutcome.WHOLE)
    opened.confirm(0)
    with refused("AlreadyConfirmed"):
        opened.confirm(0, model="another model")
    opened.pass_deadline()
    with refused("DeadlinePassed"):
        opened.confirm(1)


def test_there_is_nothing_to_confirm_before_a_quorum_opened(sites: Sites) -> None:
    """Neither before the majority attested, nor before all shares are out."""
    with refused("WrongPhase"):
        sites.ledgers[0].confirm_opening(1, 0b11, digest("m"), RoundOutcome.WHOLE)
    sites.verified_round()
    with refused("NotOpened"):
        sites.ledgers[0].confirm_opening(1, 0b11, digest("m"), RoundOutcome.WHOLE)
    with refused("NotOpened"):
        sites.admin.finalize(1)


def test_only_sites_that_committed_confirm(sites: Sites) -> None:
    """A majority of those whose updates may be in it decides, and finalising waits for nobody else."""
    outsider = sites.others(sites.round().coordinator)[0]
    sites.ledgers[outsider].decline(1, "no data")
    sites.commit(*sites.others(outsider))
    sites.aggregate()
    sites.attest()
    sites.open()
    with refused("NotCommitted"):
        sites.confirm(outsider)
    sites.confirm()
    sites.stranger.finalize(1)
    assert sites.view().last_finalized == 1


def test_finalising_waits_for_late_confirmations(opened: Sites) -> None:
    """A majority is enough after the deadline; before it, everybody has to be there."""
    opened.confirm(0, 1, 2)
    with refused("DeadlineNotReached"):
        opened.stranger.finalize(1)
    with refused("AlreadyOpened"):
        opened.admin.abandon(1, "too slow")
    opened.pass_deadline()
    with refused("AlreadyOpened"):
        opened.stranger.abandon(1, "too slow")
    opened.stranger.finalize(1)
    assert opened.view().last_finalized == 1


def test_a_confirmed_model_shortens_the_wait(registered: Sites) -> None:
    """Late sites get the whole window while there is no majority, `open_grace` afterwards."""
    registered.admin.set_config(replace(CONFIG, open_grace_s=20))
    registered.start()
    registered.ceremony()
    registered.opened_round()
    assert registered.round().deadline - registered.view().chain_time > CONFIG.verify_window_s - 60
    registered.confirm(0, 1, 2)
    assert registered.round().deadline - registered.view().chain_time <= 20


def test_the_task_is_not_ended_while_sites_may_be_opening(opened: Sites) -> None:
    """Whoever reads a model first must not choose to discard it; after the deadline the task may end."""
    with refused("AlreadyOpened"):
        opened.admin.end_task("I do not like this model")
    opened.pass_deadline()
    opened.admin.end_task("nobody confirmed")
    assert opened.round().abort_reason == "nobody confirmed"


def test_a_confirmed_model_is_not_discarded_with_the_task(opened: Sites) -> None:
    """Once a majority has confirmed, the round counts, also after its deadline: it is finalised before the task can end."""
    opened.confirm(0, 1, 2)
    opened.pass_deadline()
    with refused("AlreadyOpened"):
        opened.admin.end_task("I do not like this model")
    opened.admin.finalize(opened.round().number)
    opened.admin.end_task("enough")


def test_the_task_can_be_ended_before_anything_opened(sites: Sites) -> None:
    """A verified aggregate whose shares are not all out may still be discarded."""
    sites.verified_round()
    first, second, _ = sites.committee()
    sites.release(first, quorum=mask_of((first, second)))
    sites.admin.end_task("converged")
    assert sites.round().phase is RoundPhase.ABORTED


# ---- wrong shares


def test_a_wrong_share_strikes_its_quorum_and_another_opens(opened: Sites) -> None:
    """One key holder's word is enough; what was confirmed is void, even by a majority; the others open the same aggregate."""
    culprit, partner, accuser = opened.committee()
    opened.confirm(0, 1, 2)
    opened.accuse(accuser, culprit)
    r = opened.round()
    assert (r.phase, r.open_quorum, r.confirmed, r.opened) == (RoundPhase.VERIFIED, 0, 0, ZERO)
    assert r.disputed == opened.view().epoch.accused == 1 << culprit
    with refused("BadQuorum"):
        opened.release(accuser, quorum=mask_of((culprit, accuser)))
    opened.release(partner, accuser)
    opened.confirm(model="right model")
    opened.stranger.finalize(1)
    over = opened.admin.round(1)
    assert (over.open_quorum, over.opened) == (mask_of((partner, accuser)), digest("right model", 1))
    assert opened.admin.accusations(1) == (AccusationRecord(accuser=accuser, culprit=culprit, round=1, evidence=NO_EVIDENCE),)
    assert (opened.round().epoch, opened.round().disputed, opened.view().task.excluded) == (1, 0, 0)


def test_a_struck_round_has_its_whole_window_again(opened: Sites) -> None:
    """However late the accusation comes before somebody finalises."""
    culprit, _, accuser = opened.committee()
    opened.confirm(0, 1, 2)
    opened.pass_deadline()
    opened.accuse(accuser, culprit)
    assert opened.round().deadline > opened.view().chain_time
    with refused("DeadlineNotReached"):
        opened.stranger.abandon(1, "struck")


def test_a_quorum_that_is_complete_already_takes_over(opened: Sites) -> None:
    """Shares released for a second quorum need not be released again when the first one is struck."""
    culprit, partner, accuser = opened.committee()
    opened.confirm(0)
    opened.release(partner, accuser)
    opened.accuse(accuser, culprit)
    assert (opened.round().open_quorum, opened.round().confirmed) == (mask_of((partner, accuser)), 0)
    opened.confirm()
    opened.stranger.finalize(1)
    assert opened.view().last_finalized == 1


def test_an_accusation_that_strikes_may_be_repeated(sites: Sites) -> None:
    """The same two members, later in the same epoch; one that strikes nothing may not."""
    culprit, _, accuser = sites.committee()
    sites.accuse(accuser, culprit)
    with refused("AlreadyActed"):
        sites.accuse(accuser, culprit)
    sites.opened_round()
    sites.accuse(accuser, culprit)
    assert sites.round().open_quorum == 0
    with refused("AlreadyActed"):
        sites.accuse(accuser, culprit)
    assert [a.round for a in sites.admin.accusations(1)] == [1, 1]
    assert sites.view().task.excluded == 0


def test_who_did_not_help_to_open_strikes_nothing(opened: Sites) -> None:
    """An accusation is on record, and the open quorum stays as it was."""
    first, _, idle = opened.committee()
    quorum = opened.round().open_quorum
    opened.confirm(0)
    opened.accuse(first, idle)
    assert (opened.round().open_quorum, opened.round().confirmed, opened.round().disputed) == (quorum, 1, 0)


def strike_out(sites: Sites) -> None:
    """The third key holder has the open quorum of the first two struck, and then the one it formed with the second."""
    first, second, third = sites.committee()
    sites.accuse(third, first)
    sites.release(second, third)
    sites.accuse(third, second)


def test_too_few_above_suspicion_abort_the_round(opened: Sites) -> None:
    """When the undisputed holders cannot form a quorum, nobody waits; the keys stay for now."""
    first, second, _ = opened.committee()
    strike_out(opened)
    assert opened.admin.round(1).abort_reason == "too few key holders above suspicion"
    assert opened.admin.round(1).disputed == mask_of((first, second))
    assert (opened.round().number, opened.round().epoch, opened.round().disputed) == (2, 1, 0)
    assert not opened.view().epoch.renewal


def test_the_slandered_can_answer_before_keys_change(opened: Sites) -> None:
    """Together they are a majority: whoever struck them all is excluded, and the next key is made without it."""
    first, second, slanderer = opened.committee()
    strike_out(opened)
    opened.accuse(first, slanderer)
    opened.accuse(second, slanderer)
    assert (opened.view().task.excluded, opened.round().phase) == (1 << slanderer, RoundPhase.COMMIT)
    opened.whole_round()
    assert (opened.view().last_finalized, opened.view().epoch.epoch) == (2, 2)
    assert opened.view().epoch.pool == ALL & ~(1 << slanderer)


def test_others_get_the_key_after_the_second_time(opened: Sites) -> None:
    """Strikes that end round after round are not answered: new keys are made, and count from the beginning."""
    strike_out(opened)
    opened.opened_round()
    strike_out(opened)
    assert opened.admin.epoch(1).renewal
    assert (opened.view().epoch.epoch, opened.view().epoch.phase) == (2, EpochPhase.COMMIT)
    opened.ceremony()
    opened.opened_round()
    strike_out(opened)
    assert (opened.round().number, opened.round().epoch) == (4, 2)


def test_a_majority_of_accusers_excludes_a_holder_but_not_the_round(opened: Sites) -> None:
    """The round goes on with the others; then everybody but the culprit may hold the next key."""
    culprit, first, second = opened.committee()
    opened.accuse(first, culprit)
    opened.accuse(second, culprit)
    assert (opened.view().task.excluded, opened.view().epoch.phase) == (1 << culprit, EpochPhase.ACTIVE)
    assert opened.round().phase is RoundPhase.VERIFIED
    with refused("NotInCommittee"):
        opened.accuse(culprit, first)
    opened.release(first, second)
    opened.confirm()
    opened.stranger.finalize(1)
    assert opened.view().last_finalized == 1
    assert (opened.view().epoch.epoch, opened.view().epoch.pool) == (2, ALL & ~(1 << culprit))
    assert culprit not in opened.committee()


def test_an_excluded_holder_opens_nothing(sites: Sites) -> None:
    """Excluded while sites still train: no quorum with it in this round, and no wait for it."""
    culprit, first, second = sites.committee()
    sites.accuse(first, culprit)
    sites.accuse(second, culprit)
    sites.verified_round()
    with refused("BadQuorum"):
        sites.release(culprit, first)
    sites.release(first, second)
    assert sites.round().open_quorum == mask_of((first, second))
