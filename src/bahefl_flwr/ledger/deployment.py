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
_PURPOSES = {"readings": "answer for it", "contributions": "act for it"}


@lru_cache(maxsize=1)
def artifact() -> Mapping[str, Any]:
    """The compiled contract.

    Its `abi` is that of FederationLedger and of its parts together, since one address answers all. `parts` are the contracts it
    creates and runs on its own storage: readings, contributions; each with its `deployedBytecode` and the offsets `references` at
    which the ledger's constructor puts its address, where the ledger's own `deployedBytecode` has zeros. The others: bytecode,
    compiler, settings, sourceSha256.
    """
    text = files("bahefl_flwr.ledger").joinpath("artifacts", "FederationLedger.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def check_deployed(connection: Connection, address: str) -> None:
    """Verify that the contract at `address` is the one this package ships.

    1. There is code, and with the addresses of its parts masked it is byte for byte that of FederationLedger.
    2. Each part is at one and the same address in all places, and the code there is byte for byte that of the part: they answer
       every question asked of the ledger, and change its state.

    Raises:
      LedgerError: no contract there, or another one. LedgerUnreachable: no answer.
    """
    code = _code_at(connection, address)
    if not code:
        raise LedgerError(f"there is no contract at {address} on chain {connection.chain_id}; check ledger.contract")
    masked, words = _without_parts(code)
    if masked != _bytes(artifact()["deployedBytecode"]) or any(len(places) != 1 for places in words.values()):
        raise LedgerError(
            f"the contract at {address} is not this version's FederationLedger ({len(code)} bytes of other code): "
            "use the package version it was deployed with, or deploy a new one"
        )
    for part, (word,) in words.items():
        acting = Web3.to_checksum_address(word[-20:])
        if _code_at(connection, acting) != _bytes(artifact()["parts"][part]["deployedBytecode"]):  # 2
            raise LedgerError(
                f"the contract at {address} lets other code at {acting} {_PURPOSES[part]}: nothing it says can be trusted; "
                "ask the administrator for the address of the federation's own contract"
            )


def _code_at(connection: Connection, address: str) -> bytes:
    return bytes(connection.read(lambda: connection.web3.eth.get_code(Web3.to_checksum_address(address))))


def _bytes(code: str) -> bytes:
    return bytes.fromhex(code.removeprefix("0x"))


def _without_parts(code: bytes) -> tuple[bytes, dict[str, set[bytes]]]:
    """The code with zeros for the words the constructor put there, and those words, by part."""
    masked = bytearray(code)
    words: dict[str, set[bytes]] = {part: set() for part in artifact()["parts"]}
    for part, found in words.items():
        for start in artifact()["parts"][part]["references"]:
            found.add(code[start : start + _WORD])
            masked[start : start + _WORD] = bytes(len(code[start : start + _WORD]))
    return bytes(masked), words
