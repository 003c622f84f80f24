"""Claims about who a served store lets in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bahefl_flwr.errors import LedgerUnreachable, SettingsError
from bahefl_flwr.records import Member, MemberStatus
from bahefl_flwr.store.roster import AccountsFile, RosterUnknown
from bahefl_flwr.storekeeping import FRESH_S, STALE_S, Contract, LedgerRoster, note_served, refuse_unnamed, served

ONE, OTHER = "0x" + "a1" * 20, "0x" + "b2" * 20
MEMBER = Member(
    index=0, address=ONE, status=MemberStatus.ACTIVE, sealing_key=bytes(32), onion_anchor=bytes(32), max_weight=1, score=1,
    included=0, missed=0, rejected=0, coordinated=0, coordinator_faults=0,
)  # fmt: skip


class Ledger:
    """Members and time, as a test wants them."""

    def __init__(self) -> None:
        self.members, self.now, self.asked, self.down = [MEMBER], 0.0, 0, False

    def read(self) -> list[Member]:
        self.asked += 1
        if self.down:
            raise LedgerUnreachable("no answer")
        return self.members

    def clock(self) -> float:
        return self.now


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def roster(ledger: Ledger) -> LedgerRoster:
    return LedgerRoster(ledger.read, ledger.clock)


def test_active_members_only_are_admitted(ledger: Ledger, roster: LedgerRoster) -> None:
    """In any spelling of their address on the ledger."""
    assert roster.admits(ONE)
    assert not roster.admits(OTHER)


def test_a_suspended_member_is_refused_within_seconds(ledger: Ledger, roster: LedgerRoster) -> None:
    """Without a restart of the store."""
    ledger.members = [dataclasses.replace(MEMBER, status=MemberStatus.SUSPENDED)]
    ledger.now = FRESH_S + 0.1
    assert not roster.admits(ONE)


def test_a_new_member_need_not_wait(ledger: Ledger, roster: LedgerRoster) -> None:
    """Who is unknown has the ledger asked again."""
    ledger.members = [MEMBER, dataclasses.replace(MEMBER, address=OTHER)]
    ledger.now = 1.1
    assert roster.admits(OTHER)


def test_strangers_cannot_have_the_ledger_asked_at_will(ledger: Ledger, roster: LedgerRoster) -> None:
    """A thousand requests of strangers within a second cost one question."""
    ledger.now = 1.1
    assert not any(roster.admits(OTHER) for _ in range(1000))
    assert ledger.asked == 2


def test_members_are_served_while_the_ledger_restarts(ledger: Ledger, roster: LedgerRoster) -> None:
    """And not each of them waits for it."""
    ledger.down, ledger.now = True, FRESH_S + 1
    assert all(roster.admits(ONE) for _ in range(100))
    assert ledger.asked == 2


def test_without_the_ledger_nobody_is_admitted_for_long(ledger: Ledger, roster: LedgerRoster) -> None:
    """Who is suspended must not profit from a ledger that is down."""
    ledger.down, ledger.now = True, STALE_S + 1
    with pytest.raises(RosterUnknown, match="has not answered for 600 s"):
        roster.admits(ONE)


def test_a_ledger_that_comes_back_is_believed_again(ledger: Ledger, roster: LedgerRoster) -> None:
    """No restart needed."""
    ledger.down, ledger.now = True, STALE_S + 1
    with pytest.raises(RosterUnknown):
        roster.admits(ONE)
    ledger.down, ledger.now = False, STALE_S + 2 + FRESH_S
    assert roster.admits(ONE)


def test_an_accounts_file_admits_whom_it_names(tmp_path: Path) -> None:
    """In any spelling, with remarks and empty lines."""
    (tmp_path / "accounts").write_text(f"# hospitals\n\n  {ONE.upper().replace('0X', '0x')}  # north\n")
    roster = AccountsFile(tmp_path / "accounts")
    assert roster.admits(ONE)
    assert not roster.admits(OTHER)


def test_a_changed_accounts_file_is_read_again(tmp_path: Path) -> None:
    """Without a restart."""
    file = tmp_path / "accounts"
    file.write_text(ONE)
    roster = AccountsFile(file)
    file.write_text(f"{OTHER}\n")
    assert (roster.admits(ONE), roster.admits(OTHER)) == (False, True)


def test_a_broken_accounts_file_admits_nobody(tmp_path: Path) -> None:
    """Neither at the start nor later."""
    file = tmp_path / "accounts"
    file.write_text(ONE)
    roster = AccountsFile(file)
    file.write_text("0x12 is no address")
    with pytest.raises(RosterUnknown, match="line 1: '0x12 is no address' is no address"):
        roster.admits(ONE)
    with pytest.raises(SettingsError, match="give one 0x"):
        AccountsFile(file)


def test_every_contract_a_folder_serves_is_written_down_once(tmp_path: Path) -> None:
    """In whatever spelling it is served again."""
    note_served(tmp_path, Contract(chain_id=1, address=ONE))
    note_served(tmp_path, Contract(chain_id=1, address=ONE.upper().replace("0X", "0x")))
    note_served(tmp_path, Contract(chain_id=2, address=ONE))
    assert [c.chain_id for c in served(tmp_path)] == [1, 2]


def test_a_contract_that_is_not_named_stops_gc(tmp_path: Path) -> None:
    """What it refers to would be deleted."""
    note_served(tmp_path, Contract(chain_id=1, address=ONE))
    refuse_unnamed(tmp_path, [Contract(chain_id=1, address=ONE)])
    with pytest.raises(SettingsError, match=f"also serves contract {ONE} of chain 1"):
        refuse_unnamed(tmp_path, [Contract(chain_id=1, address=OTHER)])
