"""What a contract or a node said when it refused, in plain words. Pure functions; nothing here asks the chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak
from web3.contract.contract import ContractConstructor, ContractFunction
from web3.exceptions import ContractLogicError

from bahefl_flwr.errors import TransactionReverted

Payload = ContractFunction | ContractConstructor
"""What a transaction carries: a call of a contract, or a contract's creation."""


def name_of(payload: Payload) -> str:
    """A call as a reader of the contract would write it, e.g. "finalize(3)"."""
    if isinstance(payload, ContractConstructor):
        return "the deployment"
    return f"{payload.fn_name}({', '.join(_short(a) for a in payload.args)})"


def _short(value: object) -> str:
    if isinstance(value, str) and is_address(value):
        return to_checksum_address(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()[:16]
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def refusal(payload: Payload, error: ContractLogicError) -> TransactionReverted:
    """The contract's custom error in words: name and named arguments."""
    data = error.data if isinstance(error.data, str) else ""
    reason, text = decode_error(payload.contract_abi if isinstance(payload, ContractFunction) else payload.abi, data)
    return TransactionReverted(f"the ledger refused {name_of(payload)}: {text or error}", reason=reason)


def decode_error(abi: Sequence[Any], data: str) -> tuple[str, str]:
    """Name and text of a custom error, e.g. ("DeadlinePassed", "DeadlinePassed(deadline=1700000000)"); ("", "") if unknown.

    Args:
      abi: the contract's ABI. data: the revert data, "0x..." hex.
    """
    try:
        raw = bytes.fromhex(data.removeprefix("0x"))
    except ValueError:
        return "", ""
    for entry in abi:
        if entry["type"] == "error" and keccak(text=signature(entry))[:4] == raw[:4]:
            return entry["name"], _error_text(entry, raw[4:])
    return "", ""


def _error_text(entry: Mapping[str, Any], arguments: bytes) -> str:
    try:
        values = abi_decode([i["type"] for i in entry["inputs"]], arguments)
    except DecodingError:
        return f"{entry['name']}(?)"
    named = (f"{i['name']}={_short(v)}" for i, v in zip(entry["inputs"], values, strict=True))
    return f"{entry['name']}({', '.join(named)})"


def signature(entry: Mapping[str, Any]) -> str:
    """Canonical signature of an error of simple argument types, e.g. "AlreadyCommitted(uint256,address)"."""
    return f"{entry['name']}({','.join(i['type'] for i in entry['inputs'])})"
