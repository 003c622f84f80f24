"""The compiled contract this package ships, and whether a contract on a chain is that very one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from web3 import Web3

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.connection import Connection

_WORD = 32


@lru_cache(maxsize=1)
def artifact() -> Mapping[str, Any]:
    """The compiled contract.

    Its `abi` is that of FederationLedger and LedgerReadings together, since one address answers both. `deployedBytecode` has
    zeros at the offsets `readingsReferences`, where the constructor puts the address of the readings it created. The others:
    bytecode, readingsDeployedBytecode, compiler, settings, sourceSha256.
    """
    text = files("bahefl_flwr.ledger").joinpath("artifacts", "FederationLedger.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def check_deployed(connection: Connection, address: str) -> None:
    """Verify that the contract at `address` is the one this package ships.

    1. There is code, and with the address of the readings masked it is byte for byte that of FederationLedger.
    2. The code at that address is byte for byte that of LedgerReadings: it answers every question asked of the ledger.

    Raises:
      LedgerError: no contract there, or another one. LedgerUnreachable: no answer.
    """
    code = _code_at(connection, address)
    if not code:
        raise LedgerError(f"there is no contract at {address} on chain {connection.chain_id}; check ledger.contract")
    masked, readings = _without_readings(code)
    if masked != _shipped("deployedBytecode") or len(readings) != 1:  # 1: one and the same address in all places
        raise LedgerError(
            f"the contract at {address} is not this version's FederationLedger ({len(code)} bytes of other code): "
            "use the package version it was deployed with, or deploy a new one"
        )
    answering = Web3.to_checksum_address(readings.pop()[-20:])
    if _code_at(connection, answering) != _shipped("readingsDeployedBytecode"):  # 2
        raise LedgerError(
            f"the contract at {address} lets other code at {answering} answer for it: nothing it says can be trusted; "
            "ask the administrator for the address of the federation's own contract"
        )


def _code_at(connection: Connection, address: str) -> bytes:
    return bytes(connection.read(lambda: connection.web3.eth.get_code(Web3.to_checksum_address(address))))


def _shipped(code: str) -> bytes:
    return bytes.fromhex(artifact()[code].removeprefix("0x"))


def _without_readings(code: bytes) -> tuple[bytes, set[bytes]]:
    """The code with zeros for the words the constructor put there, and those words."""
    masked, words = bytearray(code), set()
    for start in artifact()["readingsReferences"]:
        words.add(code[start : start + _WORD])
        masked[start : start + _WORD] = bytes(len(code[start : start + _WORD]))
    return bytes(masked), words
