"""Claims about attacks on the ledger in more than one forbidden call; the others stand beside the rules they would break."""

from __future__ import annotations

from dataclasses import replace

from bahefl_flwr.records import RoundOutcome, RoundPhase, mask_of
from ledger_sites import CONFIG, NO_LAYER, STRANGER, N, Sites, digest, refused


def test_nobody_becomes_a_member_by_its_own_means(registered: Sites) -> None:
    """A stranger cannot whitelist, register, or make itself registrar; nor can a member for it."""
    for ledger in (registered.stranger, registered.ledgers[0]):
        with refused("AccessControlUnauthorizedAccount"):
            ledger.whitelist([STRANGER.address], [1])
        with refused("AccessControlUnauthorizedAccount"):
            ledger._send("grantRole", ledger._call("REGISTRAR_ROLE"), STRANGER.address)
    with refused("NotWhitelisted"):
        registered.stranger.register(digest("key"), digest("tip"))
    assert len(registered.admin.members()) == N


def test_a_copied_digest_gains_nothing(sites: Sites) -> None:
    """A copy of another site's digest is the copier's only commitment, to bytes that name the other site (protocol rule 3)."""
    victim, copier = sites.others(sites.round().coordinator)[:2]
    sites.commit(victim)
    copied = sites.admin.updates(1)[0].digest
    sites.ledgers[copier].commit_update(1, copied, 1000, 1, sites.round().base)
    with refused("AlreadyCommitted"):
        sites.commit(copier)
    sites.commit(*sites.others(victim, copier))
    sites.aggregate(included=sites.round().committed & ~(1 << copier), reasons=b"\3")
    sites.attest()
    sites.open()
    sites.confirm()
    sites.admin.finalize(1)
    assert (sites.member(copier).rejected, sites.member(victim).included) == (1, 1)
    assert sites.member(copier).score < 32768


def test_a_replayed_transaction_of_an_earlier_round_is_refused(sites: Sites) -> None:
    """What was right for round 1 is refused in round 2, and what names a round that has not begun always."""
    r = sites.round()
    sites.whole_round()
    for number in (1, 3):
        with refused("NotCurrentRound"):
            sites.ledgers[0].commit_update(number, digest("u"), 1, 1, r.base)
        with refused("NotCurrentRound"):
            sites.ledgers[0].attest(number, digest("aggregate", 1), True, NO_LAYER)
        with refused("NotCurrentRound"):
            sites.ledgers[0].confirm_opening(number, 0b11, digest("model after", 1), RoundOutcome.WHOLE)


def test_a_coordinator_is_not_ousted_early(sites: Sites) -> None:
    """Neither before its deadline, nor by votes on an aggregate it has not made, nor by an accusation among key holders."""
    sites.commit()
    office = sites.round().coordinator
    with refused("DeadlineNotReached"):
        sites.stranger.replace_coordinator(1)
    with refused("WrongPhase"):
        sites.ledgers[sites.others(office)[0]].attest(1, digest("aggregate", 1), False, NO_LAYER)
    with refused("AccessControlUnauthorizedAccount"):
        sites.ledgers[0].suspend(sites.accounts[office].address, "I want its office")
    if office in sites.committee():
        for i in (j for j in sites.committee() if j != office):
            sites.accuse(i, office)
    assert sites.round().coordinator == office
    sites.aggregate()
    assert sites.phase() is RoundPhase.VERIFY


def test_withheld_layers_cost_who_withholds_them(sites: Sites) -> None:
    """Two of five never vote: the round is verified, opened and finalised, they lose an eighth, and neither coordinates next."""
    helpers = sites.committee()
    withholding = sites.others(*helpers)
    sites.commit()
    sites.aggregate()
    sites.attest(helpers)
    sites.open()
    sites.confirm(*helpers)
    sites.pass_deadline()
    sites.stranger.finalize(1)
    assert sites.admin.round(1).revealed == mask_of(helpers)
    assert [sites.member(i).score for i in withholding] == [32768 - 4096] * 2
    assert sites.round().coordinator in helpers


def test_a_withheld_layer_changes_no_other_ticket(registered: Sites) -> None:
    """Round 3's ranking without one site's layer is the ranking with it, less that site: its withholding moves nobody."""
    registered.start(rounds=3)
    registered.ceremony()
    registered.whole_round()
    registered.commit()
    registered.aggregate()
    registered.attest(range(N - 1))
    without = ranked(registered)
    registered.attest([N - 1])
    assert [i for i in ranked(registered) if i != N - 1] == without[: len([i for i in ranked(registered) if i != N - 1])]


def test_an_onion_is_not_exchanged_once_layers_show(sites: Sites) -> None:
    """Who has seen other layers cannot bring another of its own: neither a fresh onion nor a layer that is not its next."""
    sites.commit()
    sites.aggregate()
    sites.attest([0, 1])
    with refused("WrongPhase"):
        sites.ledgers[2].rotate_onion(digest("fresh"))
    for layer in (digest("chosen"), NO_LAYER, sites.layer(0)):
        with refused("BadReveal"):
            sites.ledgers[2].attest(1, sites.round().aggregate, True, layer)


def test_a_lying_minority_reaches_nothing_in_any_vote(registered: Sites) -> None:
    """Two of five vote against a right sum, confirm another model, and accuse: the others' result stands, and they pay."""
    registered.admin.set_config(replace(CONFIG, committee_max=5))
    registered.start()
    registered.ceremony()
    liars, honest = (0, 1), (2, 3, 4)
    registered.commit()
    registered.aggregate()
    registered.attest(liars, ok=False)
    registered.attest(honest)
    for i in liars:
        registered.accuse(i, 2)
    registered.release(*honest)
    registered.confirm(*liars, model="another")
    registered.confirm(*honest)
    registered.admin.finalize(1)
    r = registered.admin.round(1)
    assert (r.phase, r.opened, r.disputed) == (RoundPhase.FINALIZED, digest("model after", 1), 0)
    assert registered.view().task.excluded == 0
    assert all(registered.member(i).score < 32768 < registered.member(2).score for i in liars)


def ranked(sites: Sites) -> list[int]:
    """The members on the open round's ranking, best first."""
    ranking = sites.admin._read("getRound", sites.round().number)["ranking"]
    entries = [ranking >> shift & (1 << 80) - 1 for shift in (160, 80, 0)]
    return [entry & 255 for entry in entries if entry]
