"""Claims about the way to the chain: retries, refusals in words, and sites that act at the same time."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bahefl_flwr.errors import LedgerError, LedgerUnreachable, TransactionReverted
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.ledger.node import NodeProcess
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.ledger.server import LedgerServer
from bahefl_flwr.records import MemberStatus, RoundPhase
from ledger_sites import ADMIN, CHAIN_ID, CONFIG, WINDOW_S, Clock, N, RunningChain, Sites, at_once, running_chain


def test_a_refusal_names_the_call_the_error_and_its_arguments(sites: Sites) -> None:
    """The message says what was asked, what the contract answered, and about whom."""
    sites.commit(0)
    with pytest.raises(TransactionReverted) as caught:
        sites.commit(0)
    assert "commitUpdate(1, 0x" in str(caught.value)
    assert f"AlreadyCommitted(round=1, who={sites.accounts[0].address})" in str(caught.value)


def test_an_endpoint_that_does_not_answer_is_unreachable() -> None:
    """After the policy's patience and several attempts, with what to do."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(LedgerUnreachable, match=r"in 0.8 s, 4 attempts .*is the ledger node running\? Start it") as caught:
            Connection(url, CHAIN_ID, policy=ChainPolicy(patience_s=0.8)).check()
    assert "new run" not in str(caught.value), "members, doctor and audit start none"


@pytest.mark.parametrize("listens", [False, True], ids=["refuses", "hangs"])
def test_waiting_for_a_node_is_said_at_once(caplog: pytest.LogCaptureFixture, listens: bool) -> None:
    """One line a question: for whom, and how long at most. Whether nobody listens there, or somebody who never answers."""
    with socket.socket() as node, suppress(LedgerUnreachable):
        node.bind(("127.0.0.1", 0))
        if listens:
            node.listen()
        url = f"http://127.0.0.1:{node.getsockname()[1]}"
        Connection(url, CHAIN_ID, policy=ChainPolicy(patience_s=1.5, timeout_s=0.2)).check()
    (record,) = [r for r in caplog.records if r.name == "bahefl_flwr.ledger"]
    assert re.fullmatch(f"no answer from the ledger node at {url} yet: asking again for at most [01] s", record.getMessage())


def test_a_short_absence_is_bridged(tmp_path: Path) -> None:
    """A node that is back within the policy's patience is not noticed by the caller."""
    with running_chain(tmp_path / "chain.sqlite") as chain:
        port = int(chain.url.rsplit(":", 1)[1])
    connection = Connection(chain.url, CHAIN_ID)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(connection.check)
        time.sleep(0.2)
        with LedgerServer(tmp_path / "chain.sqlite", chain_id=CHAIN_ID, funded=(), port=port):
            answer.result()


def test_a_connection_without_an_account_only_reads(sites: Sites) -> None:
    """It answers views and refuses to send."""
    reader = FederationLedger(Connection(sites.chain.url, CHAIN_ID), sites.admin.address)
    assert reader.view().round.number == 1
    with pytest.raises(LedgerError, match="no account"):
        reader.finalize(1)


def test_gas_covers_what_others_set_off(sites: Sites) -> None:
    """All sites answer at once: whoever comes last pays for closing, and none runs out of gas."""
    at_once(range(N), sites.commit)
    assert sites.phase() is RoundPhase.AGGREGATE


def test_processes_that_share_an_account_share_blocks(tmp_path: Path) -> None:
    """Three connections of one account at once: every transaction takes effect once, whoever gets a nonce first."""
    with LedgerServer(tmp_path / "chain.sqlite", chain_id=CHAIN_ID, funded=(), port=0) as server:
        address = FederationLedger.deploy(Connection(server.url, CHAIN_ID, account=ADMIN), CONFIG).address
        ledgers = [FederationLedger(Connection(server.url, CHAIN_ID, account=ADMIN), address) for _ in range(3)]
        whitelisted = [f"0x{i:040x}" for i in range(1, 7)]
        at_once(range(6), lambda i: ledgers[i % 3].whitelist([whitelisted[i]], [1]))
        assert {ledgers[0].status(each) for each in whitelisted} == {MemberStatus.WHITELISTED}
        assert ledgers[0]._connection.web3.eth.get_transaction_count(ADMIN.address) == 7


def test_whole_rounds_on_a_ledger_node_of_its_own(tmp_path: Path) -> None:
    """The node as runs start it, real time: ceremony, a round, and a deadline of one second that anyone enforces."""
    with NodeProcess(tmp_path / "ledger.sqlite", chain_id=CHAIN_ID) as node:
        brief = replace(CONFIG, commit_window_s=1, open_grace_s=0)
        sites = Sites.deployed(RunningChain(node.url, Clock()), replace(CONFIG, commit_window_s=WINDOW_S))
        sites.register()
        sites.start(rounds=1)
        sites.ceremony()
        sites.whole_round()
        assert not sites.view().task.open
        sites.admin.set_config(brief)
        sites.start(rounds=1)
        sites.ceremony()
        number = sites.round().number
        while sites.view().chain_time <= sites.round().deadline:
            time.sleep(0.2)
        sites.admin.close_commits(number)
        assert sites.admin.round(number).abort_reason == "too few updates (0 of 3)"


def test_deploying_reports_what_is_wrong(registered: Sites) -> None:
    """Settings out of range are refused before anything is on the chain."""
    connection = Connection(registered.chain.url, CHAIN_ID, account=ADMIN)
    with pytest.raises(TransactionReverted, match=r"the deployment.*BadConfig"):
        FederationLedger.deploy(connection, replace(CONFIG, min_commits=1))


def test_the_account_is_not_printed() -> None:
    """repr shows the address, never a key."""
    shown = repr(Connection("http://127.0.0.1:1", CHAIN_ID, account=ADMIN))
    assert ADMIN.address in shown
    assert ADMIN.key.hex() not in shown
