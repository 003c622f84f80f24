"""The JSON forms of Ethereum's JSON-RPC: parses parameters strictly, and shapes blocks, transactions, receipts and logs.

Pure functions of values; nothing here reads the chain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from eth.abc import SignedTransactionAPI
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.vm.forks.london.blocks import LondonBlockHeader
from eth_bloom.bloom import BloomFilter

from bahefl_flwr.ledger.database import StoredLog, StoredTransaction, encode_header

Json = dict[str, Any]

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


class InvalidParams(ValueError):
    """A parameter is not of the form the method asks for. Becomes a JSON-RPC error and goes no further."""


def to_quantity(value: object) -> int:
    """Parse "0x..." of at most 256 bits, not negative."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise InvalidParams(f"expected a hex quantity such as 0x1a, got {_shown(value)}")
    return int(value, 16)


def to_data(value: object, size: int | None = None) -> bytes:
    """Parse "0x..." of whole bytes; of exactly `size` bytes if given."""
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise InvalidParams(f"expected hex data such as 0x1a2b, got {_shown(value)}")
    data = bytes.fromhex(value[2:])
    if size is not None and len(data) != size:
        raise InvalidParams(f"expected {size} bytes of hex data, got {len(data)}")
    return data


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def hexed(data: bytes | None) -> str | None:
    """Bytes as "0x...", None as null."""
    return None if data is None else "0x" + data.hex()


def block_json(header: LondonBlockHeader, transactions: Sequence[str | Json], size: int) -> Json:
    """A sealed block.

    Args:
      transactions: hashes, or whole transactions if the caller asked for them.
      size: bytes of the block's RLP.
    """
    return {
        "number": hex(header.block_number),
        "hash": hexed(header.hash),
        "parentHash": hexed(header.parent_hash),
        "nonce": hexed(header.nonce),
        "sha3Uncles": hexed(header.uncles_hash),
        "logsBloom": _bloom(header.bloom),
        "transactionsRoot": hexed(header.transaction_root),
        "stateRoot": hexed(header.state_root),
        "receiptsRoot": hexed(header.receipt_root),
        "miner": hexed(header.coinbase),
        "mixHash": hexed(header.mix_hash),
        "difficulty": hex(header.difficulty),
        "extraData": hexed(header.extra_data),
        "size": hex(size),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "baseFeePerGas": hex(header.base_fee_per_gas or 0),
        "timestamp": hex(header.timestamp),
        "transactions": list(transactions),
        "uncles": [],
    }


def pending_block_json(header: LondonBlockHeader, transactions: Sequence[str | Json]) -> Json:
    """The block being filled: what is settled only by sealing is null, as in geth."""
    return {
        **block_json(header, transactions, len(encode_header(header))),
        "hash": None,
        "nonce": None,
        "miner": None,
        "logsBloom": None,
    }


def _bloom(bits: int) -> str:
    return f"0x{bits:0512x}"


def transaction_json(signed: SignedTransactionAPI, stored: StoredTransaction, block_hash: bytes | None) -> Json:
    """A transaction; `block_hash` None while it is pending."""
    kind = signed.type_id or 0
    sealed = block_hash is not None
    return {
        "blockHash": hexed(block_hash),
        "blockNumber": hex(stored.block) if sealed else None,
        "transactionIndex": hex(stored.position) if sealed else None,
        "hash": hexed(stored.hash),
        "type": hex(kind),
        "chainId": hex(signed.chain_id or 0),
        "nonce": hex(signed.nonce),
        "from": hexed(stored.sender),
        "to": _recipient(signed),
        "value": hex(signed.value),
        "gas": hex(signed.gas),
        "input": hexed(signed.data),
        "v": hex(signed.y_parity if kind else signed.v),  # type: ignore[attr-defined]  # v exists on legacy transactions only
        "r": hex(signed.r),
        "s": hex(signed.s),
        **_fees(signed, kind),
    }


def _fees(signed: SignedTransactionAPI, kind: int) -> Json:
    if kind < 2:
        return {"gasPrice": hex(signed.gas_price), **({"accessList": _accesses(signed)} if kind else {})}
    return {
        # The base fee is 0, so the price paid is the priority fee.
        "gasPrice": hex(signed.max_priority_fee_per_gas),
        "maxFeePerGas": hex(signed.max_fee_per_gas),
        "maxPriorityFeePerGas": hex(signed.max_priority_fee_per_gas),
        "accessList": _accesses(signed),
    }


def _accesses(signed: SignedTransactionAPI) -> list[Json]:
    return [
        {"address": hexed(address), "storageKeys": [hexed(key.to_bytes(32, "big")) for key in keys]}
        for address, keys in signed.access_list
    ]


def _recipient(signed: SignedTransactionAPI) -> str | None:
    return None if signed.to == CREATE_CONTRACT_ADDRESS else hexed(signed.to)


def receipt_json(signed: SignedTransactionAPI, stored: StoredTransaction, logs: Sequence[StoredLog], block_hash: bytes) -> Json:
    """The receipt of a sealed transaction."""
    bloom = BloomFilter.from_iterable(entry for log in logs for entry in (log.address, *log.topics))
    return {
        "transactionHash": hexed(stored.hash),
        "transactionIndex": hex(stored.position),
        "blockHash": hexed(block_hash),
        "blockNumber": hex(stored.block),
        "from": hexed(stored.sender),
        "to": _recipient(signed),
        "contractAddress": hexed(stored.contract),
        "status": hex(stored.status),
        "type": hex(signed.type_id or 0),
        "gasUsed": hex(stored.gas_used),
        "cumulativeGasUsed": hex(stored.cumulative_gas),
        "effectiveGasPrice": hex(signed.max_priority_fee_per_gas),
        "logs": [log_json(log, block_hash) for log in logs],
        "logsBloom": _bloom(int(bloom)),
    }


def log_json(log: StoredLog, block_hash: bytes) -> Json:
    """One event of a sealed block."""
    return {
        "address": hexed(log.address),
        "topics": [hexed(topic) for topic in log.topics],
        "data": hexed(log.data),
        "blockNumber": hex(log.block),
        "blockHash": hexed(block_hash),
        "transactionHash": hexed(log.transaction),
        "transactionIndex": hex(log.transaction_position),
        "logIndex": hex(log.position),
        "removed": False,
    }
