"""Which signed transactions the embedded chain accepts, with the messages geth's users know.

Only checks; nothing here executes a transaction or changes a state.
"""

from __future__ import annotations

from collections.abc import Callable

from eth.abc import SignedTransactionAPI, StateAPI
from eth.vm.forks.london.transactions import LondonTransactionBuilder
from eth_typing import Address

from bahefl_flwr.errors import LedgerError

MAX_TRANSACTION_BYTES = 131_072
"""Longest signed transaction, as in geth."""
_DEEPEST = 4  # transaction, access list, its entry, that entry's storage keys


def admit(raw: bytes, chain_id: int, state: StateAPI, gas_limit: int, is_known: Callable[[bytes], bool]) -> SignedTransactionAPI:
    """Decode a signed transaction and check that it may be executed next.

    Args:
      raw: the signed bytes: legacy, access-list (type 1) or dynamic-fee (type 2).
      chain_id: the only chain it may be signed for.
      state: the state it would be executed on.
      gas_limit: gas of a block.
      is_known: whether a transaction of that hash is pending or sealed.

    Raises:
      LedgerError: one of these checks does not hold:
        1. it decodes and is not too long;
        2. it is signed for this chain;
        3. its fields are in range and its signature is valid;
        4. its gas covers the intrinsic gas and fits into a block;
        5. it is not already known, and its nonce is the sender's next;
        6. its fees are consistent, and the sender can pay them and the value.
    """
    transaction = decode_transaction(raw)  # 1
    _check_chain(transaction, chain_id)  # 2
    sender = _sender(transaction)  # 3
    _check_gas(transaction, gas_limit)  # 4
    if is_known(transaction.hash):  # 5
        raise LedgerError(f"already known: transaction 0x{transaction.hash.hex()}")
    _check_nonce(transaction, sender, state.get_nonce(sender))  # 5
    _check_funds(transaction, state.get_balance(sender))  # 6
    return transaction


def decode_transaction(raw: bytes) -> SignedTransactionAPI:
    """Decode a signed transaction without judging it.

    Raises:
      LedgerError: the bytes are no transaction, or more than MAX_TRANSACTION_BYTES.
    """
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise LedgerError(f"oversized transaction: {len(raw)} bytes, at most {MAX_TRANSACTION_BYTES} are accepted")
    _check_nesting(raw)
    try:
        return LondonTransactionBuilder.decode(raw)
    except Exception as error:  # rlp and py-evm raise a dozen unrelated types on hostile bytes
        raise LedgerError(f"the transaction does not decode: {type(error).__name__}: {str(error)[:200]}") from error


def _check_nesting(raw: bytes) -> None:
    # The rlp library copies the rest of the bytes at every level: 128 KiB of nested lists take it ten seconds.
    position, ends = int(raw[:1] in (b"\x01", b"\x02")), [len(raw)]
    while position < len(raw):
        while position >= ends[-1]:
            ends.pop()
        start, size, is_list = _item(raw, position)
        if is_list:
            ends.append(start + size)
        position = start if is_list else start + size
        if len(ends) > _DEEPEST + 1:
            raise LedgerError(f"the transaction does not decode: lists nested more than {_DEEPEST} deep")


def _item(raw: bytes, position: int) -> tuple[int, int, bool]:
    """Start, size and kind of the content of the RLP item at `position`."""
    first = raw[position]
    if first < 0x80:
        return position, 1, False
    is_list = first >= 0xC0
    size, long = first - (0xC0 if is_list else 0x80), first - (0xF7 if is_list else 0xB7)
    if long <= 0:
        return position + 1, size, is_list
    return position + 1 + long, int.from_bytes(raw[position + 1 : position + 1 + long], "big"), is_list


def _check_chain(transaction: SignedTransactionAPI, chain_id: int) -> None:
    if transaction.chain_id is None:
        raise LedgerError(f"only replay-protected (EIP-155) transactions are accepted; sign for chain {chain_id}")
    if transaction.chain_id != chain_id:
        raise LedgerError(f"invalid chain id: signed for chain {transaction.chain_id}, this is chain {chain_id}")


def _sender(transaction: SignedTransactionAPI) -> Address:
    try:
        transaction.validate()
        return transaction.sender
    except Exception as error:  # py-evm, eth_keys and coincurve each have their own type
        raise LedgerError(f"invalid transaction or signature: {str(error)[:200]}") from error


def _check_gas(transaction: SignedTransactionAPI, gas_limit: int) -> None:
    if transaction.gas < transaction.intrinsic_gas:
        raise LedgerError(f"intrinsic gas too low: have {transaction.gas}, want {transaction.intrinsic_gas}")
    if transaction.gas > gas_limit:
        raise LedgerError(f"exceeds block gas limit: have {transaction.gas}, at most {gas_limit}")


def _check_nonce(transaction: SignedTransactionAPI, sender: Address, expected: int) -> None:
    if transaction.nonce != expected:
        what = "low" if transaction.nonce < expected else "high"
        raise LedgerError(
            f"nonce too {what}: account 0x{sender.hex()}, next nonce {expected}, transaction nonce {transaction.nonce}"
        )


def _check_funds(transaction: SignedTransactionAPI, balance: int) -> None:
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise LedgerError("max priority fee per gas higher than max fee per gas; gas is free here, set both to 0")
    cost = transaction.value + transaction.gas * transaction.max_fee_per_gas
    if balance < cost:
        raise LedgerError(
            f"insufficient funds for gas * price + value: have {balance} wei, want {cost}; gas is free here, set fees to 0"
        )
