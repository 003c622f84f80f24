"""The embedded chain: executes transactions with py-evm, collects them into blocks, and answers calls against any block's state.

Gas is free (base fee 0, no block rewards), as on a Besu network with zeroBaseFee. Nothing here knows JSON, HTTP or threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from eth._utils.address import generate_contract_address
from eth.abc import ReceiptAPI, SignedTransactionAPI, StateAPI
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.db.trie import make_trie_root_and_nodes
from eth.vm.chain_context import ChainContext
from eth.vm.forks.london.blocks import LondonBlockHeader
from eth_typing import Address, BlockNumber, Hash32

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.admission import admit
from bahefl_flwr.ledger.database import ChainDatabase, StoredLog, StoredTransaction
from bahefl_flwr.ledger.evm import GAS_LIMIT, VM, Call, Outcome, executed, intrinsic_gas

GENESIS_BALANCE_WEI = 10**24
"""What a funded account owns from the start. Gas is free, so only contracts that move money need it."""

_CALLS_PER_STATE = 1_000
_ANSWERS_KEPT = 256
_CALL_STIPEND = 2_300
_STATUS = (b"", b"\x01")


@dataclass(slots=True, kw_only=True)
class _OpenBlock:
    """The block being filled. Its header fixes number and timestamp; roots and gas are known when it is sealed."""

    header: LondonBlockHeader
    state: StateAPI
    signed: list[SignedTransactionAPI] = field(default_factory=list)
    receipts: list[ReceiptAPI] = field(default_factory=list)
    stored: list[StoredTransaction] = field(default_factory=list)
    logs: list[StoredLog] = field(default_factory=list)
    gas_used: int = 0


class Chain:
    """A chain with one validator, itself. Not thread-safe; the node's lock guards it.

    Args:
      database: where blocks live; a fresh one gets a genesis block.
      chain_id: EIP-155 id; transactions for any other are refused.
      funded: 20-byte addresses that own GENESIS_BALANCE_WEI in the genesis block.
      clock: wall clock in seconds since 1970.

    Raises:
      LedgerError: the database has a genesis block that funds other accounts.
    """

    def __init__(
        self, database: ChainDatabase, chain_id: int, funded: Sequence[bytes] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self.chain_id = chain_id
        self.database = database
        self._context = ChainContext(chain_id)
        self._clock = clock
        self._open: _OpenBlock | None = None
        self._idle: StateAPI | None = None
        self._idle_calls = 0
        self._answers: dict[tuple[Call, int, int, bool], Outcome] = {}
        self.head = database.head() or self._genesis(funded)
        self._check_funded(funded)

    def _genesis(self, funded: Sequence[bytes]) -> LondonBlockHeader:
        empty = LondonBlockHeader(difficulty=0, block_number=BlockNumber(0), gas_limit=GAS_LIMIT, timestamp=0)
        state = self._state(empty)
        for address in funded:
            state.set_balance(Address(address), GENESIS_BALANCE_WEI)
        state.persist()
        header = _copied(empty, state_root=state.state_root, timestamp=int(self._clock()))
        self.database.commit_block(header, (), ())
        return header

    def _check_funded(self, funded: Sequence[bytes]) -> None:
        genesis = self.state_at(self.database.header(0))
        for address in funded:
            if genesis.get_balance(Address(address)) == 0:
                raise LedgerError(
                    f"account 0x{address.hex()} is not funded in this ledger's first block; fund it when creating the ledger"
                )

    # Headers and states

    def pending_header(self) -> LondonBlockHeader:
        """Header of the block that a transaction sent now would enter; its roots and gas are settled when it is sealed."""
        if self._open:
            return self._open.header
        return LondonBlockHeader(
            difficulty=0,
            block_number=BlockNumber(self.head.block_number + 1),
            gas_limit=GAS_LIMIT,
            timestamp=self._now(),
            parent_hash=self.head.hash,
            state_root=self.head.state_root,
        )

    def present_header(self) -> LondonBlockHeader:
        """The head, as of the present time: while a chain is idle, its head's own time stands still."""
        return _copied(self.head, timestamp=self._now())

    def _now(self) -> int:
        # Never back, even when the clock is. Equal times are allowed, unlike on main net: several blocks a second must
        # not push deadlines ahead of the clock.
        return max(self.head.timestamp, int(self._clock()))

    def state_at(self, header: LondonBlockHeader | None) -> StateAPI:
        """State after the block of `header`; None is the pending block, with the transactions it has so far."""
        if header is None and self._open:
            return self._open.state
        if header is None or header.block_number == self.head.block_number:
            return self._state_on_head(header or self.pending_header())
        return self._state(header)

    def _state_on_head(self, header: LondonBlockHeader) -> StateAPI:
        # One state serves all calls until the next block, for its caches. Renewed at times: py-evm remembers every key it reads.
        self._idle_calls += 1
        ancestors = self._ancestors(header)
        if self._idle is None or self._idle_calls > _CALLS_PER_STATE:
            self._idle, self._idle_calls = self._state(header), 0
        self._idle.execution_context = VM.create_execution_context(header, ancestors, self._context)
        return self._idle

    def _state(self, header: LondonBlockHeader) -> StateAPI:
        return VM.build_state(self.database, header, self._context, self._ancestors(header))

    def _ancestors(self, header: LondonBlockHeader) -> Iterator[Hash32]:
        return (Hash32(each) for each in self.database.hashes_down_from(header.block_number - 1))

    # Transactions

    def send(self, raw: bytes) -> bytes:
        """Check and execute a signed transaction; it is durable once `seal` has run.

        A transaction that fails inside the EVM is part of the chain, with status 0.

        Returns:
          Its hash.

        Raises:
          LedgerError: it is invalid (see `admission.admit`) or already known, and leaves no trace.
        """
        transaction = admit(raw, self.chain_id, self.state_at(None), GAS_LIMIT, self._is_known)
        if self._open and self._open.gas_used + transaction.gas > GAS_LIMIT:
            self.seal()
        self._execute(transaction, raw)
        return transaction.hash

    def _execute(self, transaction: SignedTransactionAPI, raw: bytes) -> None:
        self._answers.clear()
        block = self._open or self._open_block()
        try:
            _execute_in(block, transaction, raw)
        except Exception as error:
            # A refusal of py-evm may leave half a transaction behind: replay the good ones on a fresh state.
            self._replay(block)
            raise LedgerError(f"the EVM refused the transaction: {type(error).__name__}: {error}") from error
        self._open = block

    def _open_block(self) -> _OpenBlock:
        header = self.pending_header()
        state, self._idle = self._state_on_head(header), None
        return _OpenBlock(header=header, state=state)

    def _replay(self, spoiled: _OpenBlock) -> None:
        self._open = None
        if spoiled.signed:
            fresh = _OpenBlock(header=spoiled.header, state=self._state(spoiled.header))
            for transaction, stored in zip(spoiled.signed, spoiled.stored, strict=True):
                _execute_in(fresh, transaction, stored.raw)
            self._open = fresh

    def _is_known(self, transaction_hash: bytes) -> bool:
        return self.is_pending(transaction_hash) or self.database.transaction(transaction_hash) is not None

    def is_pending(self, transaction_hash: bytes) -> bool:
        """Whether a transaction of that hash waits in the block being filled."""
        return self.pending(transaction_hash) is not None

    def pending(self, transaction_hash: bytes) -> StoredTransaction | None:
        """The transaction of that hash in the block being filled, if it is there."""
        return next((each for each in self.pending_transactions() if each.hash == transaction_hash), None)

    def pending_transactions(self) -> Sequence[StoredTransaction]:
        """Transactions of the block being filled, in order."""
        return self._open.stored if self._open else ()

    def seal(self) -> None:
        """Make the open block, if any, the new head, durably.

        Raises:
          LedgerError: the database cannot be written.
        """
        if self._open is None:
            return
        block = self._open
        block.state.persist()
        bloom = 0
        for receipt in block.receipts:
            bloom |= receipt.bloom
        header = _copied(
            block.header,
            state_root=block.state.state_root,
            transaction_root=make_trie_root_and_nodes(block.signed)[0],
            receipt_root=make_trie_root_and_nodes(block.receipts)[0],
            bloom=bloom,
            gas_used=block.gas_used,
        )
        self.database.commit_block(header, block.stored, block.logs)
        self.head, self._open, self._idle = header, None, None
        self._answers.clear()

    # Calls

    def call(self, call: Call, header: LondonBlockHeader | None) -> Outcome:
        """Execute a message on the state of a block (None: pending) and undo it.

        Raises:
          LedgerError: the gas does not cover the intrinsic gas, or the sender cannot pay the value.
        """
        state = self.state_at(header)
        unsealed = header is None and self._open is not None
        key = (call, state.block_number, state.timestamp, unsealed)
        # All sites poll the same view: 5 ms of EVM for the first within a second, a look-up for the rest.
        if key not in self._answers:
            if len(self._answers) >= _ANSWERS_KEPT:
                self._answers.clear()
            self._answers[key] = executed(state, call)
        return self._answers[key]

    def estimate(self, call: Call, header: LondonBlockHeader | None) -> Outcome:
        """Find a gas limit with which a call succeeds; `gas_used` of the result is that limit.

        Like geth's first guess: what the call used, plus the stipend and the 64th that a caller must hold back, tried once.
        If that is too little (a contract that looks at its gas), a binary search to 1.5 percent. Usually two executions.
        """
        top = self.call(call, header)
        if top.error or top.gas_used == intrinsic_gas(call):
            return top
        low, high = top.gas_used, call.gas
        guess = min(high, (top.gas_used + _CALL_STIPEND) * 64 // 63)
        if self._succeeds(call, guess, header):
            return Outcome(output=top.output, gas_used=guess)
        while high - low > high * 15 // 1000:
            middle = (low + high) // 2
            low, high = (low, middle) if self._succeeds(call, middle, header) else (middle, high)
        return Outcome(output=top.output, gas_used=high)

    def _succeeds(self, call: Call, gas: int, header: LondonBlockHeader | None) -> bool:
        tried = Call(sender=call.sender, to=call.to, data=call.data, value=call.value, gas=gas)
        return not self.call(tried, header).error


def _execute_in(block: _OpenBlock, transaction: SignedTransactionAPI, raw: bytes) -> None:
    block.state.lock_changes()
    computation = block.state.apply_transaction(transaction)
    gas_used = VM.finalize_gas_used(transaction, computation)
    block.gas_used += gas_used
    entries = computation.get_log_entries()
    block.receipts.append(transaction.make_receipt(_STATUS[computation.is_success], block.gas_used, entries))
    block.signed.append(transaction)
    block.logs.extend(_logs(block, transaction.hash, entries))
    creates = transaction.to == CREATE_CONTRACT_ADDRESS
    block.stored.append(
        StoredTransaction(
            hash=transaction.hash,
            block=block.header.block_number,
            position=len(block.stored),
            raw=raw,
            sender=transaction.sender,
            status=int(computation.is_success),
            gas_used=gas_used,
            cumulative_gas=block.gas_used,
            contract=generate_contract_address(transaction.sender, transaction.nonce) if creates else None,
        )
    )


def _logs(block: _OpenBlock, transaction: bytes, entries: Sequence[tuple[bytes, Sequence[int], bytes]]) -> list[StoredLog]:
    return [
        StoredLog(
            block=block.header.block_number,
            position=position,
            transaction=transaction,
            transaction_position=len(block.stored),
            address=address,
            topics=tuple(topic.to_bytes(32, "big") for topic in topics),
            data=data,
        )
        for position, (address, topics, data) in enumerate(entries, start=len(block.logs))
    ]


def _copied(header: LondonBlockHeader, **changed: object) -> LondonBlockHeader:
    return cast("LondonBlockHeader", header.copy(**changed))
