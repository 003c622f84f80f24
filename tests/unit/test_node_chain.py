"""Claims about the embedded chain itself, in process, with a clock the test sets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Address

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger import evm
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.database import ChainDatabase
from bahefl_flwr.ledger.evm import GAS_LIMIT, Call

CHAIN_ID = 20260
ALICE: LocalAccount = Account.from_key("0x" + "11" * 32)
BOB: LocalAccount = Account.from_key("0x" + "22" * 32)
NOBODY = Address(bytes(20))
# sstore(0, calldataload(0)); log1(that word, topic = that word); return it
STORE = "6000358080600055600052" + "60206000a1" + "60206000f3"
# without call data: return sload(0); else jump over that, to what follows
LOAD = "36600f57" + "600054600052" + "60206000f3" + "5b"
# returns timestamp and number of the block
CLOCK = "42600052" + "43602052" + "60406000f3"
# call myself with all gas, for ever
RECURSE = "6000600060006000600030" + "5af1" + "00"
# revert unless more than 1,000,000 gas is left
PICKY = "620f42405a11600d57600080fd5b00"
INVALID = "fe"
SELFISH = "60003560005260206000fd"  # revert with the word it was given


class Clock:
    """A wall clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chain(tmp_path: Path, clock: Clock) -> Iterator[Chain]:
    database = ChainDatabase(tmp_path / "chain.sqlite", CHAIN_ID)
    yield Chain(database, CHAIN_ID, [bytes.fromhex(ALICE.address[2:])], clock)
    database.close()


def signed(account: LocalAccount, **fields: Any) -> bytes:
    """A dynamic-fee transaction with free gas, unless `fields` say otherwise."""
    free: dict[str, Any] = {
        "chainId": CHAIN_ID,
        "nonce": 0,
        "gas": 1_000_000,
        "maxFeePerGas": 0,
        "maxPriorityFeePerGas": 0,
        "value": 0,
        "to": b"\x33" * 20,
    }
    return bytes(account.sign_transaction({**free, **fields}).raw_transaction)


def creation(runtime: str) -> str:
    """Init code that deploys `runtime`."""
    size = len(runtime) // 2
    return f"0x60{size:02x}600c60003960{size:02x}6000f3{runtime}"


def deploy(chain: Chain, runtime: str, nonce: int = 0) -> Address:
    transaction = chain.send(signed(ALICE, to="", data=creation(runtime), nonce=nonce))
    chain.seal()
    stored = chain.database.transaction(transaction)
    assert stored and stored.contract and stored.status == 1
    return Address(stored.contract)


def asked(to: Address, data: bytes = b"", gas: int = GAS_LIMIT) -> Call:
    return Call(sender=NOBODY, to=to, data=data, value=0, gas=gas)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_a_block_takes_the_wall_clock_of_its_first_transaction(chain: Chain, clock: Clock) -> None:
    """Timestamp of a block: the wall clock when its first transaction arrived."""
    clock.now += 500
    chain.send(signed(ALICE))
    clock.now += 30
    chain.seal()
    assert chain.head.timestamp == 1_800_000_500


def test_chain_time_never_goes_back_and_never_runs_ahead_of_the_clock(chain: Chain, clock: Clock) -> None:
    """Blocks within one second share it; after the clock was set back the chain stands until the clock has caught up."""
    chain.send(signed(ALICE))
    chain.seal()
    clock.now -= 3600
    chain.send(signed(ALICE, nonce=1))
    chain.seal()
    assert chain.head.timestamp == 1_800_000_000


def test_a_pending_call_sees_the_time_and_number_of_the_next_block(chain: Chain, clock: Clock) -> None:
    """A deadline can be checked at "pending" with the time a transaction sent now would get."""
    contract = deploy(chain, CLOCK)
    clock.now += 100
    latest, pending = chain.call(asked(contract), chain.head), chain.call(asked(contract), None)
    assert latest.output == word(1_800_000_000) + word(1)
    assert pending.output == word(1_800_000_100) + word(2)


def test_a_pending_call_sees_the_transactions_waiting_and_latest_does_not(chain: Chain) -> None:
    """State of the pending block includes its transactions; that of the head does not."""
    contract = deploy(chain, STORE)
    chain.send(signed(ALICE, nonce=1, to=contract, data=word(7)))
    assert chain.state_at(None).get_storage(contract, 0) == 7
    assert chain.state_at(chain.head).get_storage(contract, 0) == 0
    assert chain.state_at(None).get_nonce(Address(bytes.fromhex(ALICE.address[2:]))) == 2


def test_a_call_changes_nothing(chain: Chain) -> None:
    """Calls on the head and on a block being filled leave no trace in the block sealed next."""
    contract = deploy(chain, STORE)
    chain.call(asked(contract, word(9)), None)
    chain.send(signed(ALICE, nonce=1, to=contract, data=word(7)))
    chain.call(asked(contract, word(9)), None)
    chain.call(asked(contract, word(9)), chain.head)
    chain.seal()
    assert chain.state_at(chain.head).get_storage(contract, 0) == 7


def test_a_repeated_call_sees_what_has_changed_since(chain: Chain, clock: Clock) -> None:
    """Kept answers never outlive the second, the pending block or the head they were computed for."""
    contract = deploy(chain, LOAD + STORE)
    seen = [chain.call(asked(contract), None).output]
    chain.send(signed(ALICE, nonce=1, to=contract, data=word(7)))
    seen.append(chain.call(asked(contract), None).output)
    seen.append(chain.call(asked(contract), chain.head).output)
    chain.seal()
    seen.append(chain.call(asked(contract), chain.head).output)
    clock_contract = deploy(chain, CLOCK, nonce=2)
    times = [chain.call(asked(clock_contract), None).output]
    clock.now += 60
    times.append(chain.call(asked(clock_contract), None).output)
    assert seen == [word(0), word(7), word(0), word(7)]
    assert times[0] != times[1]


def test_transactions_between_two_seals_share_a_block(chain: Chain) -> None:
    """Coalescing: two senders, one block, positions and cumulative gas in order."""
    hashes = [chain.send(signed(ALICE)), chain.send(signed(BOB)), chain.send(signed(ALICE, nonce=1))]
    chain.seal()
    stored = [chain.database.transaction(each) for each in hashes]
    assert [each and (each.block, each.position, each.cumulative_gas) for each in stored] == [
        (1, 0, 21000),
        (1, 1, 42000),
        (1, 2, 63000),
    ]
    assert chain.head.gas_used == 63000


def test_sealing_nothing_makes_no_block(chain: Chain) -> None:
    """Without transactions the chain stands still."""
    chain.seal()
    assert chain.head.block_number == 0


def test_a_full_block_is_sealed_to_make_room(chain: Chain) -> None:
    """A transaction whose gas does not fit any more goes into the next block."""
    chain.send(signed(ALICE, gas=GAS_LIMIT))
    chain.send(signed(BOB, gas=GAS_LIMIT))
    assert (chain.head.block_number, len(chain.pending_transactions())) == (1, 1)


def test_gas_stays_free_after_a_full_block(chain: Chain) -> None:
    """A block above the London gas target does not raise the base fee."""
    chain.send(signed(ALICE, to="", data=creation(INVALID)))
    contract = deploy(chain, INVALID, nonce=1)
    chain.send(signed(ALICE, nonce=2, to=contract, gas=GAS_LIMIT))
    chain.seal()
    assert (chain.head.gas_used, chain.pending_header().base_fee_per_gas) == (GAS_LIMIT, 0)


def test_a_transaction_that_fails_in_the_evm_is_sealed_with_status_0(chain: Chain) -> None:
    """A revert costs the sender its nonce and leaves the chain working."""
    contract = deploy(chain, SELFISH)
    failed = chain.send(signed(ALICE, nonce=1, to=contract, data=word(5)))
    chain.seal()
    stored = chain.database.transaction(failed)
    assert stored and stored.status == 0
    assert chain.send(signed(ALICE, nonce=2))


def test_a_contract_that_calls_itself_for_ever_ends_with_its_gas(chain: Chain) -> None:
    """The deepest call stack a block's gas can buy neither overflows Python's nor fails the transaction."""
    contract = deploy(chain, RECURSE)
    outcome = chain.call(asked(contract), None)
    assert outcome.error == "" and outcome.gas_used > 700 * 100  # more than 700 frames deep


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chainId": 1}, "invalid chain id: signed for chain 1, this is chain 20260"),
        ({"nonce": 5}, "nonce too high: account .*, next nonce 1, transaction nonce 5"),
        ({"nonce": 0}, "nonce too low: account .*, next nonce 1, transaction nonce 0"),
        ({"nonce": 1, "gas": 20_999}, "intrinsic gas too low: have 20999, want 21000"),
        ({"nonce": 1, "gas": GAS_LIMIT + 1}, "exceeds block gas limit"),
        ({"nonce": 1, "maxPriorityFeePerGas": 1}, "max priority fee per gas higher than max fee per gas"),
        ({"nonce": 1, "value": 2 * 10**24}, "insufficient funds for gas"),
        ({"nonce": 1, "to": "", "data": "0x" + "00" * 140_000}, "oversized transaction"),
    ],
)
def test_an_invalid_transaction_is_refused_by_name_and_leaves_no_trace(
    chain: Chain, fields: dict[str, Any], message: str
) -> None:
    """Each check of admission refuses exactly its fault."""
    chain.send(signed(ALICE, data="0x01"))
    before = chain.state_at(None).make_state_root()
    with pytest.raises(LedgerError, match=message):
        chain.send(signed(ALICE, **fields))
    assert chain.state_at(None).make_state_root() == before


def test_the_same_transaction_twice_is_already_known(chain: Chain) -> None:
    """A retry is recognised both while the transaction waits and after it was sealed."""
    raw = signed(ALICE)
    chain.send(raw)
    with pytest.raises(LedgerError, match="already known"):
        chain.send(raw)
    chain.seal()
    with pytest.raises(LedgerError, match="already known"):
        chain.send(raw)


def test_an_unprotected_legacy_transaction_is_refused(chain: Chain) -> None:
    """A transaction that names no chain could be replayed here from anywhere."""
    fields: dict[str, Any] = {"nonce": 0, "gas": 21_000, "gasPrice": 0, "value": 0, "to": b"\x33" * 20}
    with pytest.raises(LedgerError, match="replay-protected"):
        chain.send(bytes(ALICE.sign_transaction(fields).raw_transaction))


def test_legacy_and_access_list_transactions_are_accepted(chain: Chain) -> None:
    """All three transaction types of London work."""
    common: dict[str, Any] = {"chainId": CHAIN_ID, "gas": 100_000, "gasPrice": 0, "value": 1, "to": b"\x33" * 20}
    chain.send(bytes(ALICE.sign_transaction({**common, "nonce": 0}).raw_transaction))
    entry: Any = {"address": "0x" + "44" * 20, "storageKeys": ["0x" + "00" * 32, "0x" + "01" * 32]}
    chain.send(bytes(ALICE.sign_transaction({**common, "nonce": 1, "type": 1, "accessList": [entry]}).raw_transaction))
    assert chain.state_at(None).get_balance(Address(b"\x33" * 20)) == 2


def test_a_transaction_of_nested_lists_is_refused_at_once(chain: Chain) -> None:
    """A bomb of lists within lists costs milliseconds, not the ten seconds the rlp library would take."""
    bomb = b"\x02" + b"".join(b"\xf9" + size.to_bytes(2, "big") for size in range(60_000, 0, -3))
    before = time.process_time()
    with pytest.raises(LedgerError, match="nested more than 4 deep"):
        chain.send(bomb)
    assert time.process_time() - before < 0.5


def test_a_fault_inside_py_evm_costs_one_transaction_only(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exception half-way through, the block holds the transactions before and after it, and nothing of that one."""
    chain.send(signed(ALICE, value=5))
    gas_used = evm.VM.finalize_gas_used
    monkeypatch.setattr(evm.VM, "finalize_gas_used", lambda tx, done: gas_used(tx, done) // (tx.value - 7) * (tx.value - 7))
    with pytest.raises(LedgerError, match="refused the transaction: ZeroDivisionError"):
        chain.send(signed(ALICE, nonce=1, value=7))
    chain.send(signed(ALICE, nonce=1, value=11))
    chain.seal()
    assert chain.state_at(chain.head).get_balance(Address(b"\x33" * 20)) == 16


def test_an_estimate_suffices_even_for_a_contract_that_looks_at_its_gas(chain: Chain) -> None:
    """The estimated limit makes the transaction succeed, where the gas used alone would not."""
    contract = deploy(chain, PICKY)
    limit = chain.estimate(asked(contract), None).gas_used
    assert 1_021_000 < limit < 1_050_000
    assert chain.call(asked(contract, gas=limit), None).error == ""


def test_an_estimate_of_a_transfer_is_exact(chain: Chain) -> None:
    """Nothing but the intrinsic gas is spent on an account without code."""
    assert chain.estimate(asked(Address(b"\x44" * 20)), None).gas_used == 21_000


def test_reopening_gives_the_same_head_and_goes_on(tmp_path: Path, clock: Clock) -> None:
    """Block number, hash and state root survive a close without seal; what was pending is gone."""
    database = ChainDatabase(tmp_path / "chain.sqlite", CHAIN_ID)
    chain = Chain(database, CHAIN_ID, (), clock)
    contract = deploy(chain, STORE)
    head = chain.head
    chain.send(signed(ALICE, nonce=1, to=contract, data=word(7)))
    database.close()
    again = Chain(ChainDatabase(tmp_path / "chain.sqlite", CHAIN_ID), CHAIN_ID, (), clock)
    assert (again.head, again.head.hash) == (head, head.hash)
    again.send(signed(ALICE, nonce=1, to=contract, data=word(8)))
    again.seal()
    assert again.state_at(again.head).get_storage(contract, 0) == 8
    again.database.close()


def test_a_block_that_cannot_be_written_is_not_there_at_all(chain: Chain) -> None:
    """A failing disk raises LedgerError, and the file still ends with the block before."""
    chain.send(signed(ALICE))
    chain.database._sql.execute("PRAGMA query_only=1")
    with pytest.raises(LedgerError, match="cannot write block 1"):
        chain.seal()
    head = chain.database.head()
    assert head and head.block_number == 0


def test_a_ledger_of_another_chain_id_is_refused(tmp_path: Path) -> None:
    """Opening a file with the wrong chain id names both ids."""
    ChainDatabase(tmp_path / "chain.sqlite", CHAIN_ID).close()
    with pytest.raises(LedgerError, match="ledger of chain 20260, asked for chain 1"):
        ChainDatabase(tmp_path / "chain.sqlite", 1)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """Foreign bytes raise LedgerError and stay as they are."""
    (tmp_path / "chain.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="is it not a ledger"):
        ChainDatabase(tmp_path / "chain.sqlite", CHAIN_ID)
    assert (tmp_path / "chain.sqlite").read_bytes().startswith(b"not a database")


def test_funding_an_existing_ledger_is_refused(tmp_path: Path) -> None:
    """Money is made in the first block only; asking later is an error, not silence."""
    database = ChainDatabase(tmp_path / "chain.sqlite", CHAIN_ID)
    Chain(database, CHAIN_ID)
    with pytest.raises(LedgerError, match="not funded in this ledger's first block"):
        Chain(database, CHAIN_ID, [b"\x55" * 20])
    database.close()
