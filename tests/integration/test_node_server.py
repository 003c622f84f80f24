"""Claims about the embedded ledger's server in process: when blocks are sealed, and what a failing disk does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from eth_account import Account

from bahefl_flwr.ledger.server import LedgerServer

ALICE = Account.from_key("0x" + "11" * 32)


def ask(server: LedgerServer, method: str, *parameters: object) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    request = Request(server.url, body, {"Content-Type": "application/json"})  # our own loopback URL
    with urlopen(request, timeout=5) as reply:
        return json.loads(reply.read()).get("result")


def transfer(nonce: int) -> str:
    free = {"chainId": 20260, "gas": 21_000, "maxFeePerGas": 0, "maxPriorityFeePerGas": 0, "value": 0}
    return str(ALICE.sign_transaction({**free, "nonce": nonce, "to": ALICE.address}).raw_transaction.to_0x_hex())


def test_asking_for_the_receipt_waits_for_the_seal(tmp_path: Path) -> None:
    """One question after sending suffices: the answer comes when the block is sealed, not null before."""
    with LedgerServer(tmp_path / "chain.sqlite", chain_id=20260, funded=(), port=0) as server:
        receipt = ask(server, "eth_getTransactionReceipt", ask(server, "eth_sendRawTransaction", transfer(0)))
    assert receipt["status"] == "0x1"


def test_transactions_within_the_coalescing_time_share_a_block(tmp_path: Path) -> None:
    """Five transactions sent at once enter one block or, on a slow machine, two."""
    with LedgerServer(tmp_path / "chain.sqlite", chain_id=20260, funded=(), port=0) as server:
        sent = [ask(server, "eth_sendRawTransaction", transfer(nonce)) for nonce in range(5)]
        blocks = {ask(server, "eth_getTransactionReceipt", each)["blockNumber"] for each in sent}
    assert len(blocks) <= 2


def test_blocks_link_by_their_hashes(tmp_path: Path) -> None:
    """Each block names the hash of the one before, back to the genesis block."""
    with LedgerServer(tmp_path / "chain.sqlite", chain_id=20260, funded=(), port=0) as server:
        for nonce in range(2):
            ask(server, "eth_getTransactionReceipt", ask(server, "eth_sendRawTransaction", transfer(nonce)))
        blocks = [ask(server, "eth_getBlockByNumber", hex(number), False) for number in range(3)]
    assert [block["parentHash"] for block in blocks[1:]] == [block["hash"] for block in blocks[:2]]


def test_a_node_that_cannot_write_stops_itself(tmp_path: Path) -> None:
    """A block that cannot be stored ends the node with the reason, instead of answering from a chain that will be gone."""
    with LedgerServer(tmp_path / "chain.sqlite", chain_id=20260, funded=(), port=0) as server:
        server._database._sql.execute("PRAGMA query_only=1")
        ask(server, "eth_sendRawTransaction", transfer(0))
        assert server.stopped.wait(5)
    assert "cannot write block 1" in str(server.failure)


def test_an_idle_node_uses_no_processor_time(tmp_path: Path) -> None:
    """Waiting for transactions is waiting, not polling."""
    with LedgerServer(tmp_path / "chain.sqlite", chain_id=20260, funded=(), port=0):
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.2
