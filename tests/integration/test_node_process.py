"""Claims about the node as a process: it ends with its parent, and a kill loses no sealed block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_account import Account
from web3 import Web3

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.node import NodeProcess
from ledger_sites import CONFIG, Clock, N, RunningChain, Sites

PARENT = """
import sys, pathlib
from bahefl_flwr.ledger.node import NodeProcess
node = NodeProcess(pathlib.Path(sys.argv[1]))
node.start()
print(node.pid, flush=True)
sys.stdin.read()
"""


def becomes_true(claim: Callable[[], bool], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while not claim() and time.monotonic() < end:
        time.sleep(0.05)
    return claim()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def transfer(web3: Web3, nonce: int) -> int:
    """Send a free transaction from a fixed account and return its block's number."""
    account = Account.from_key("0x" + "11" * 32)
    fields = {
        "chainId": 20260,
        "nonce": nonce,
        "gas": 21_000,
        "maxFeePerGas": 0,
        "maxPriorityFeePerGas": 0,
        "to": account.address,
        "value": 0,
    }
    sent = web3.eth.send_raw_transaction(account.sign_transaction(fields).raw_transaction)
    return web3.eth.wait_for_transaction_receipt(sent, timeout=10)["blockNumber"]


def test_a_killed_node_reopens_with_the_same_head_and_goes_on(tmp_path: Path) -> None:
    """After a receipt and kill -9, the next node has that block with the same hash and state root, and seals the next one."""
    with NodeProcess(tmp_path / "chain.sqlite", restarts=0) as node:
        web3 = Web3(Web3.HTTPProvider(node.url))
        transfer(web3, 0)
        head = web3.eth.get_block("latest")
        assert node.pid
        os.kill(node.pid, signal.SIGKILL)
        assert becomes_true(lambda: node.pid is None)
    with NodeProcess(tmp_path / "chain.sqlite") as node:
        web3 = Web3(Web3.HTTPProvider(node.url))
        assert web3.eth.get_block("latest") == head
        assert transfer(web3, 1) == head["number"] + 1


def test_a_node_killed_alone_is_started_again_where_it_was(tmp_path: Path) -> None:
    """Same endpoint, same blocks: who asked it meanwhile waits, and then goes on."""
    with NodeProcess(tmp_path / "chain.sqlite", restarts=1) as node:
        url, web3 = node.url, Web3(Web3.HTTPProvider(node.url))
        transfer(web3, 0)
        head = web3.eth.get_block("latest")
        killed = node.pid
        assert killed
        os.kill(killed, signal.SIGKILL)
        connection = Connection(url, 20260)
        assert connection.read(lambda: web3.eth.get_block("latest")) == head
        assert transfer(web3, 1) == head["number"] + 1
        assert (node.url, node.pid != killed) == (url, True)


def test_a_transaction_under_way_when_the_node_is_killed_takes_effect_once(tmp_path: Path) -> None:
    """The sites keep sending while the node is killed again and again: every commit is on the ledger, none twice."""
    with NodeProcess(tmp_path / "chain.sqlite") as node:
        sites = Sites.deployed(RunningChain(node.url, Clock()), CONFIG)
        sites.register()
        sites.start()
        sites.ceremony()
        with ThreadPoolExecutor(N) as pool:
            commits = [pool.submit(sites.commit, i) for i in range(N - 1)]
            for _ in range(2):
                time.sleep(0.03)
                killed = node.pid
                assert killed
                os.kill(killed, signal.SIGKILL)
                assert becomes_true(lambda gone=killed: node.pid not in (None, gone), within_s=30)
            for commit in commits:
                commit.result()
        assert sites.round().committed == (1 << (N - 1)) - 1
        assert len(sites.admin.updates(1)) == N - 1


def test_stopping_seals_what_is_pending(tmp_path: Path) -> None:
    """A transaction accepted just before a regular stop is not lost."""
    account = Account.from_key("0x" + "11" * 32)
    fields = {
        "chainId": 20260,
        "nonce": 0,
        "gas": 21_000,
        "maxFeePerGas": 0,
        "maxPriorityFeePerGas": 0,
        "to": account.address,
        "value": 0,
    }
    with NodeProcess(tmp_path / "chain.sqlite") as node:
        sent = Web3(Web3.HTTPProvider(node.url)).eth.send_raw_transaction(account.sign_transaction(fields).raw_transaction)
    with NodeProcess(tmp_path / "chain.sqlite") as node:
        assert Web3(Web3.HTTPProvider(node.url)).eth.get_transaction_receipt(sent)["status"] == 1


def test_the_node_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Killing the parent closes the node's stdin, and the node ends."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "chain.sqlite")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        node = int(parent.stdout.readline())
        parent.kill()
    assert becomes_true(lambda: is_gone(node))


def test_the_node_dies_with_its_parent_even_if_its_stdin_stays_open(tmp_path: Path) -> None:
    """A sibling that inherited the pipe cannot keep an orphaned node alive."""
    script = f'exec 3<&0; "{sys.executable}" -m bahefl_flwr.ledger.node --database "$1" <&3 & echo $!; wait'
    with subprocess.Popen(
        ["sh", "-c", script, "sh", str(tmp_path / "db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout
        node = int(shell.stdout.readline())
        assert b"url" in shell.stdout.readline()
        shell.kill()
        assert becomes_true(lambda: is_gone(node))


def test_sigterm_ends_the_node_cleanly(tmp_path: Path) -> None:
    """An operator's SIGTERM: exit code 0, and the file can be opened again."""
    arguments = ["--database", str(tmp_path / "chain.sqlite")]
    command = [sys.executable, "-m", "bahefl_flwr.ledger.node", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdout and b'"url": "http://127.0.0.1:' in node.stdout.readline()
        node.terminate()
        assert node.wait(10) == 0


def test_a_second_node_on_the_same_file_is_refused(tmp_path: Path) -> None:
    """Two nodes would fork the chain: the second names the cause and ends."""
    with (
        NodeProcess(tmp_path / "chain.sqlite"),
        pytest.raises(LedgerError, match=r"did not start: error: cannot open .* another node"),
    ):
        NodeProcess(tmp_path / "chain.sqlite").start()


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The message of LedgerError carries the node's own last words."""
    (tmp_path / "chain.sqlite").write_text("not a database" * 100)
    with pytest.raises(LedgerError, match="did not start: error: cannot open the ledger"):
        NodeProcess(tmp_path / "chain.sqlite").start()
