"""Claims about who may join, stay and configure: the real contract on the embedded chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.ledger.deployment import artifact
from bahefl_flwr.records import Member, MemberStatus, RoundPhase
from ledger_sites import ADMIN, CHAIN_ID, CONFIG, STRANGER, WEIGHTS, N, Sites, digest, onion, refused


def test_members_are_read_as_they_registered(registered: Sites) -> None:
    """The registered keys, cap, address and starting score of a member come back in its record."""
    assert registered.member(2) == Member(
        index=2, address=registered.accounts[2].address, status=MemberStatus.ACTIVE, sealing_key=digest("sealing", 2),
        onion_anchor=onion(2)[-1], max_weight=WEIGHTS[2], score=32768, included=0, missed=0, rejected=0, coordinated=0,
        coordinator_faults=0,
    )  # fmt: skip
    assert registered.admin.member(STRANGER.address) is None


def test_strangers_cannot_register(registered: Sites) -> None:
    """Registration needs a registrar's whitelisting."""
    with refused("NotWhitelisted"):
        registered.stranger.register(digest("key"), digest("tip"))


def test_nobody_can_whitelist_itself(registered: Sites) -> None:
    """Whitelisting is the registrar's, also for members."""
    for ledger in (registered.stranger, registered.ledgers[0]):
        with refused("AccessControlUnauthorizedAccount"):
            ledger.whitelist([STRANGER.address], [1])


def test_standing_follows_the_registrar(registered: Sites) -> None:
    """An account goes from nothing to whitelisted, active, suspended and back to active."""
    admin, seen = registered.admin, [registered.admin.status(STRANGER.address)]
    admin.whitelist([STRANGER.address], [7])
    seen.append(admin.status(STRANGER.address))
    registered.stranger.register(digest("key"), digest("tip"))
    seen.append(admin.status(STRANGER.address))
    admin.suspend(STRANGER.address, "key lost")
    seen.append(admin.status(STRANGER.address))
    admin.reinstate(STRANGER.address)
    seen.append(admin.status(STRANGER.address))
    m = MemberStatus
    assert seen == [m.NONE, m.WHITELISTED, m.ACTIVE, m.SUSPENDED, m.ACTIVE]


def test_standings_of_many_are_read_at_once(registered: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of members, of who is whitelisted, of strangers; by whichever spelling they were asked; one reading of the members."""
    admin, readings = registered.admin, []
    member, other = registered.accounts[0].address, registered.accounts[1].address.lower()
    admin.whitelist([STRANGER.address], [7])
    nobody = "0x" + "11" * 20
    members = admin.members
    monkeypatch.setattr(admin, "members", lambda: readings.append(1) or members())
    m = MemberStatus
    found = admin.standings([member, other, STRANGER.address, nobody])
    assert found == {member: m.ACTIVE, other: m.ACTIVE, STRANGER.address: m.WHITELISTED, nobody: m.NONE}
    assert len(readings) == 1


def test_the_cap_is_fixed_by_registration(registered: Sites) -> None:
    """The registrar may correct a weight cap before registration, never after: open rounds are measured with it."""
    registered.admin.whitelist([STRANGER.address], [7])
    registered.admin.whitelist([STRANGER.address], [9])
    registered.stranger.register(digest("key"), digest("tip"))
    member = registered.admin.member(STRANGER.address)
    assert member is not None
    assert member.max_weight == 9
    with refused("AlreadyRegistered"):
        registered.admin.whitelist([STRANGER.address], [1000])


def test_registration_happens_once_and_with_real_keys(registered: Sites) -> None:
    """A second registration is refused, so are missing keys and zero caps."""
    with refused("AlreadyRegistered"):
        registered.ledgers[0].register(digest("key"), digest("tip"))
    with refused("BadWeight"):
        registered.admin.whitelist([STRANGER.address], [0])
    registered.admin.whitelist([STRANGER.address], [1])
    with refused("ZeroDigest"):
        registered.stranger.register(bytes(32), digest("tip"))


def test_a_suspended_member_is_not_waited_for(sites: Sites) -> None:
    """Commits close when the others have answered; the member can do nothing, and is back in the next round."""
    coordinator = sites.round().coordinator
    gone = next(i for i in sites.others(coordinator) if i not in sites.committee())
    sites.commit(*sites.others(gone))
    assert sites.phase() is RoundPhase.COMMIT
    sites.admin.suspend(sites.accounts[gone].address, "off line")
    assert sites.phase() is RoundPhase.AGGREGATE
    with refused("WrongPhase"):
        sites.commit(gone)
    sites.admin.reinstate(sites.accounts[gone].address)
    sites.admin.abandon(1, "test")
    assert sites.round().selected == 2**N - 1


def test_a_suspended_coordinator_is_replaced_at_once(sites: Sites) -> None:
    """In COMMIT without a new attempt, in AGGREGATE with one."""
    first = sites.round().coordinator
    sites.admin.suspend(sites.accounts[first].address, "off line")
    second = sites.round().coordinator
    assert second != first
    assert sites.round().attempt == 0
    sites.commit(*sites.others(first))
    sites.admin.suspend(sites.accounts[second].address, "off line")
    assert sites.round().coordinator not in (first, second)
    assert sites.round().attempt == 1
    with refused("NotCoordinator"):
        sites.ledgers[second].submit_aggregate(1, digest("a"), 1, 7, 0, b"\1\1\1", b"")


def test_an_onion_rotates_only_while_no_layer_is_public(sites: Sites) -> None:
    """A layer chosen after seeing others' would steer the election."""
    sites.ledgers[0].rotate_onion(digest("fresh"))
    assert sites.member(0).onion_anchor == digest("fresh")
    sites.commit()
    with refused("WrongPhase"):
        sites.ledgers[0].rotate_onion(digest("fresher"))


def test_a_replaced_onion_draws_no_tickets_for_64_rounds(sites: Sites) -> None:
    """Else whoever anchors anew until its next tickets are good would win more often than its share (docs/election.md)."""
    sites.ledgers[0].rotate_onion(digest("fresh"))
    salt_rounds = sites.admin._list("getMembers", lambda member: member["saltRound"])
    assert salt_rounds == (sites.round().number + 65, *[1] * (N - 1))


def test_settings_change_only_between_tasks(registered: Sites) -> None:
    """No administrator weakens minCommits or a quorum under a running task; members cannot at all."""
    registered.admin.set_config(replace(CONFIG, min_commits=4))
    with refused("AccessControlUnauthorizedAccount"):
        registered.ledgers[0].set_config(CONFIG)
    registered.start()
    with refused("TaskOpen"):
        registered.admin.set_config(CONFIG)


@pytest.mark.parametrize(
    "bad",
    [
        {"min_commits": 1}, {"quorum_bps": 5000}, {"quorum_bps": 10001}, {"commit_window_s": 0}, {"verify_window_s": 2**31},
        {"max_attempts": 0}, {"committee_max": 1}, {"committee_max": 11},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(registered: Sites, bad: dict[str, int]) -> None:
    """Every setting that would break a guarantee is refused."""
    with refused("BadConfig"):
        registered.admin.set_config(replace(CONFIG, **bad))


def test_only_our_contract_is_accepted(registered: Sites) -> None:
    """`attach` refuses an address without code, other code, what is no address, and another chain."""
    connection = Connection(registered.chain.url, CHAIN_ID, account=ADMIN)
    assert FederationLedger.attach(connection, registered.admin.address).address == registered.admin.address
    for address, why in ((STRANGER.address, "no contract"), ("0x12", "no contract address")):
        with pytest.raises(LedgerError, match=why):
            FederationLedger.attach(connection, address)
    with pytest.raises(LedgerError, match="expected 1"):
        FederationLedger.attach(Connection(registered.chain.url, 1), registered.admin.address)


@pytest.mark.parametrize("part", ["readings", "contributions"])
def test_parts_of_another_kind_are_refused(registered: Sites, part: str) -> None:
    """`attach` refuses the right contract if the code that answers or acts for it is another, or not one and the same."""
    connection = Connection(registered.chain.url, CHAIN_ID, account=ADMIN)
    runtime = connection.web3.eth.get_code(registered.admin.address)
    first, *others = artifact()["parts"][part]["references"]
    for places in ((first, *others), others):
        altered = bytearray(runtime)
        for start in places:
            altered[start : start + 32] = bytes(12) + bytes.fromhex(registered.admin.address[2:])
        with pytest.raises(LedgerError, match="other code"):
            FederationLedger.attach(connection, put_on_chain(connection, bytes(altered)))


def test_the_settings_are_read_back(registered: Sites) -> None:
    """What the contract was deployed with, and what it was last set to."""
    assert registered.admin.config() == CONFIG
    registered.admin.set_config(ContractConfig())
    assert registered.admin.config() == ContractConfig()


def put_on_chain(connection: Connection, runtime: bytes) -> str:
    """A contract of exactly this code."""
    returning = bytes.fromhex(f"61{len(runtime):04x}80600a3d393df3") + runtime
    return connection.deploy(connection.web3.eth.contract(abi=[], bytecode=returning).constructor())
