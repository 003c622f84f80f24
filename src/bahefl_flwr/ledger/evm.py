"""The embedded chain's EVM: its rules, and messages that are executed on a state and undone.

Blocks, and transactions that stay, are chain.py's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eth._utils.address import generate_contract_address
from eth.abc import ComputationAPI, StateAPI
from eth.consensus.noproof import NoProofConsensus
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.exceptions import InsufficientFunds, Revert
from eth.vm.forks.london import LondonVM
from eth.vm.message import Message
from eth_typing import Address

from bahefl_flwr.errors import LedgerError

GAS_LIMIT = 30_000_000
"""Gas of one block, and so of one transaction or call."""
VM = LondonVM.configure(consensus_class=NoProofConsensus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A message to execute without a signature. `to` empty creates a contract."""

    sender: Address
    to: Address
    data: bytes
    value: int
    gas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to.

    Attributes:
      output: returned bytes, or the revert data.
      gas_used: gas spent before refunds, intrinsic gas included.
      error: "" if it succeeded; else why not, "execution reverted" when the contract said so itself.
    """

    output: bytes
    gas_used: int
    error: str = ""


def executed(state: StateAPI, call: Call) -> Outcome:
    """Execute a message on a state and undo it.

    Raises:
      LedgerError: the gas does not cover the intrinsic gas, or the sender cannot pay the value.
    """
    intrinsic = intrinsic_gas(call)
    if not intrinsic <= call.gas <= GAS_LIMIT:
        raise LedgerError(f"gas {call.gas} is outside {intrinsic} (intrinsic) .. {GAS_LIMIT} (block gas limit)")
    with _scratch(state):
        try:
            return _outcome(call, _compute(state, call, call.gas - intrinsic))
        except InsufficientFunds as error:
            raise LedgerError(f"insufficient funds for transfer: {error}") from error


def intrinsic_gas(call: Call) -> int:
    """What a transaction of this content costs before any of its code runs."""
    builder = VM.get_transaction_builder()
    unsigned = builder.create_unsigned_transaction(
        nonce=0, gas_price=0, gas=call.gas, to=call.to, value=call.value, data=call.data
    )
    return int(unsigned.intrinsic_gas)


@contextmanager
def _scratch(state: StateAPI) -> Iterator[None]:
    """Make a state look as a new transaction would find it, and undo whatever is then done to it."""
    state.lock_changes()
    snapshot = state.snapshot()
    try:
        yield
    finally:
        state.revert(snapshot)


def _compute(state: StateAPI, call: Call, gas: int) -> ComputationAPI:
    creates = call.to == CREATE_CONTRACT_ADDRESS
    message = Message(
        gas=gas,
        to=call.to,
        sender=call.sender,
        value=call.value,
        data=b"" if creates else call.data,
        code=call.data if creates else state.get_code(call.to),
        create_address=generate_contract_address(call.sender, state.get_nonce(call.sender)) if creates else None,  # type: ignore[arg-type]
    )
    state.mark_address_warm(call.sender)
    state.mark_address_warm(message.storage_address)
    context = state.get_transaction_context_class()(gas_price=0, origin=call.sender)
    compute = state.computation_class.apply_create_message if creates else state.computation_class.apply_message
    return compute(state, message, context)


def _outcome(call: Call, computation: ComputationAPI) -> Outcome:
    used = call.gas - computation.get_gas_remaining()
    if computation.is_success:
        return Outcome(output=computation.output, gas_used=used)
    if isinstance(computation.error, Revert):
        return Outcome(output=computation.output, gas_used=used, error="execution reverted")
    return Outcome(output=b"", gas_used=used, error=f"{type(computation.error).__name__}: {computation.error}")
