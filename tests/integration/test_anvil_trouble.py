"""Claims about a chain in trouble, on a real node: blocks late or undone, transactions lost or too cheap, nodes killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from anvil_node import CHAIN_ID, AnvilNode
from bahefl_flwr.errors import LedgerError, LedgerUnreachable, TransactionReverted
from bahefl_flwr.ledger.connection import Connection, Receipt
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.ledger.policy import GWEI, ChainPolicy
from bahefl_flwr.records import MemberStatus
from ledger_sites import ADMIN, CONFIG, RunningChain, Sites, digest

SITES: list[LocalAccount] = [Account.from_key(digest("member", i)) for i in range(12)]
SOON = ChainPolicy(patience_s=20)
PAYING = ChainPolicy(max_fee_gwei=20, priority_fee_gwei=0.5, patience_s=20)


def connected(node: AnvilNode, policy: ChainPolicy = SOON) -> Connection:
    return Connection(node.url, CHAIN_ID, account=ADMIN, policy=policy)


@contextmanager
def deployed(*options: str, base_fee: int = 0, policy: ChainPolicy = SOON) -> Iterator[tuple[AnvilNode, FederationLedger]]:
    """A node with the contract on it; with `--no-mining` among the options it makes no further block by itself."""
    with AnvilNode(*(option for option in options if option != "--no-mining"), base_fee=base_fee) as node:
        node.ask("anvil_setBalance", ADMIN.address, hex(10**20))
        ledger = FederationLedger.deploy(connected(node, ChainPolicy(max_fee_gwei=50)), CONFIG)
        if "--no-mining" in options:
            node.ask("evm_setAutomine", False)
        yield node, FederationLedger(connected(node, policy), ledger.address)


def seen(ledger: FederationLedger, node: AnvilNode, policy: ChainPolicy) -> FederationLedger:
    """The same contract through another process's connection."""
    return FederationLedger(connected(node, policy), ledger.address)


def eventually(claim: Callable[[], object], within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def waiting(node: AnvilNode) -> list[str]:
    """Hashes of the transactions in the node's pool."""
    pool = node.ask("txpool_content")["pending"]
    return [each["hash"] for by_nonce in pool.values() for each in by_nonce.values()]


@contextmanager
def whitelisting(ledger: FederationLedger, *members: int) -> Iterator[Future[Receipt]]:
    """While another thread whitelists some sites."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ledger.whitelist, [SITES[i].address for i in members], [1] * len(members))


def nonce(node: AnvilNode) -> int:
    return int(node.ask("eth_getTransactionCount", ADMIN.address, "latest"), 16)


def is_whitelisted(ledger: FederationLedger, i: int) -> bool:
    return ledger.status(SITES[i].address) is MemberStatus.WHITELISTED


def test_a_transaction_that_is_too_cheap_is_replaced_by_itself_at_a_higher_fee() -> None:
    """When the base fee overtakes the offer, the same payload goes out again under the same nonce; one of them takes effect."""
    with deployed("--no-mining", base_fee=GWEI, policy=PAYING) as (node, ledger):
        before = nonce(node)
        with whitelisting(ledger, 0) as receipt:
            eventually(lambda: waiting(node))
            first = waiting(node)
            node.ask("anvil_setNextBlockBaseFeePerGas", hex(6 * GWEI))
            node.mine(4)
            eventually(lambda: waiting(node) not in ([], first))
            node.mine()
            assert receipt.result(20).transaction not in first
        assert nonce(node) == before + 1
        assert is_whitelisted(ledger, 0)


def test_a_stuck_transaction_is_given_up_in_words_and_never_takes_effect_beside_its_successor() -> None:
    """At the cap nothing more is offered; the next transaction has the same nonce, so at most one of the two ever counts."""
    stingy = ChainPolicy(max_fee_gwei=2, patience_s=2)
    with deployed("--no-mining", base_fee=GWEI, policy=stingy) as (node, ledger):
        before = nonce(node)
        with whitelisting(ledger, 0) as receipt:
            eventually(lambda: waiting(node))
            node.ask("anvil_setNextBlockBaseFeePerGas", hex(4 * GWEI))
            while not receipt.done():
                node.mine()
                node.ask("anvil_setNextBlockBaseFeePerGas", hex(4 * GWEI))
                time.sleep(0.3)
            with pytest.raises(LedgerUnreachable, match=r"stuck for 2 s.*max_fee_gwei=2.*whitelist.*may still take effect"):
                receipt.result()
        with whitelisting(seen(ledger, node, PAYING), 1) as receipt:
            eventually(lambda: receipt.done() or node.mine())
        node.mine(2)
        assert (nonce(node), is_whitelisted(ledger, 0), is_whitelisted(ledger, 1)) == (before + 1, False, True)


def test_a_transaction_that_the_node_forgets_is_handed_in_again() -> None:
    """Dropped from the pool, it comes back unchanged, and is mined once."""
    with deployed("--no-mining") as (node, ledger):
        before = nonce(node)
        with whitelisting(ledger, 0) as receipt:
            eventually(lambda: waiting(node))
            (lost,) = waiting(node)
            node.ask("anvil_dropTransaction", lost)
            eventually(lambda: waiting(node) == [lost])
            node.mine()
            assert receipt.result(20).transaction == lost
        assert nonce(node) == before + 1


def test_two_processes_of_one_account_do_not_lose_each_others_transactions() -> None:
    """They fight for nonces, and yet each of their transactions takes effect once."""
    with deployed("--block-time", "1") as (node, ledger):
        before, ledgers = nonce(node), [seen(ledger, node, SOON) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: ledgers[i % 3].whitelist([SITES[i].address], [1]), range(4)))
        assert nonce(node) == before + 4
        assert all(is_whitelisted(ledger, i) for i in range(4))


def test_a_block_that_is_not_confirmed_does_not_count() -> None:
    """With one confirmation, what the newest block says is not yet read, and sending returns when a block lies on top."""
    with deployed(policy=ChainPolicy(confirmations=1, patience_s=20)) as (node, ledger):
        node.mine()
        with whitelisting(ledger, 0) as receipt:
            eventually(lambda: is_whitelisted(seen(ledger, node, SOON), 0))
            time.sleep(0.5)
            assert not receipt.done() and not is_whitelisted(ledger, 0)
            node.mine()
            receipt.result(20)
        assert is_whitelisted(ledger, 0)


def test_a_transaction_undone_by_a_reorganisation_is_sent_again() -> None:
    """Its block is replaced before it is confirmed: the same transaction enters the new branch, once."""
    with deployed(policy=ChainPolicy(confirmations=2, patience_s=20)) as (node, ledger):
        node.mine(2)
        before = nonce(node)
        with whitelisting(ledger, 0) as receipt:
            eventually(lambda: nonce(node) == before + 1)
            node.reorganise(1)
            eventually(lambda: nonce(node) == before + 1)
            node.mine(2)
            assert receipt.result(20).block_number <= int(node.ask("eth_blockNumber"), 16) - 2
        assert (nonce(node), is_whitelisted(ledger, 0)) == (before + 1, True)


def test_a_commit_undone_by_a_reorganisation_is_made_again_by_asking_again() -> None:
    """Even one that had counted: the site sends the same commit once more, and the ledger has it exactly once."""
    with AnvilNode() as node:
        sites = Sites.deployed(RunningChain(node.url, node), CONFIG)
        sites.register()
        sites.start()
        sites.ceremony()
        sites.commit(0)
        node.reorganise(1)
        assert sites.round().committed == 0
        sites.commit(0)
        assert sites.round().committed == 1
        with pytest.raises(TransactionReverted, match="AlreadyCommitted"):
            sites.commit(0)


def test_an_earlier_process_of_the_site_is_waited_for() -> None:
    """What a killed process had sent is in the first reading of the next one, so that nothing is done twice."""
    with deployed("--no-mining", policy=ChainPolicy(patience_s=0.5)) as (node, ledger):
        with whitelisting(ledger, 0) as receipt, pytest.raises(LedgerUnreachable, match="has made no block"):
            receipt.result(20)
        assert waiting(node)
        with ThreadPoolExecutor(1) as pool:
            attached = pool.submit(FederationLedger.attach, connected(node), ledger.address)
            time.sleep(0.5)
            assert not attached.done()
            node.mine()
            assert is_whitelisted(attached.result(20), 0)


def test_a_chain_that_rests_cannot_confirm() -> None:
    """The error says which setting does not fit to it."""
    policy = ChainPolicy(confirmations=1, patience_s=0.5)
    with deployed(policy=policy) as (node, ledger):
        node.mine(2)
        with pytest.raises(LedgerUnreachable, match=r"needs 1 more on top .*needs ledger\.confirmations=0"):
            ledger.whitelist([SITES[0].address], [1])


def test_gas_that_costs_is_not_paid_unasked() -> None:
    """A run that expects free gas names the price and the setting; a cap below the price is named too."""
    with deployed(base_fee=3 * GWEI) as (node, ledger):
        with pytest.raises(LedgerError, match=r"asks [\d.]+ gwei .*expects free gas: set ledger\.max_fee_gwei"):
            ledger.whitelist([SITES[0].address], [1])
        with pytest.raises(LedgerError, match=r"ledger\.max_fee_gwei=1 allows less"):
            seen(ledger, node, ChainPolicy(max_fee_gwei=1)).whitelist([SITES[0].address], [1])


def test_an_account_that_cannot_pay_is_named() -> None:
    """The node's refusal comes with the account to fund."""
    with deployed(base_fee=GWEI, policy=PAYING) as (node, ledger):
        node.ask("anvil_setBalance", ADMIN.address, "0x0")
        with pytest.raises(LedgerError, match=f"(?i){ADMIN.address}.*insufficient"):
            ledger.whitelist([SITES[0].address], [1])


def test_a_node_that_is_killed_is_unreachable_in_words() -> None:
    """The error says what to do, and that what was sent is not lost."""
    away = ChainPolicy(patience_s=1)
    with deployed("--no-mining", policy=away) as (node, ledger), whitelisting(ledger, 0) as receipt:
        eventually(lambda: waiting(node))
        node.kill()
        with pytest.raises(LedgerUnreachable, match=r"no answer .* in 1 s.*node running\? Start it.*may still take effect"):
            receipt.result(20)
