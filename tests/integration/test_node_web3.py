"""Claims about the embedded ledger as plain web3.py sees it: one real node process, real HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import BlockNotFound, ContractCustomError, ContractLogicError, TransactionNotFound, Web3RPCError
from web3.types import TxReceipt

from bahefl_flwr.ledger.node import NodeProcess

CHAIN_ID = 20260
ALICE: LocalAccount = Account.from_key("0x" + "11" * 32)
# sstore(0, calldataload(4)); log1(that word, topic = that word); return it
STORE = "6004358080600055600052" + "60206000a1" + "60206000f3"
CUSTOM_ERROR = "63deadbeef60e01b600052" + "6007600452" + "60246000fd"  # revert 0xdeadbeef(7)
ERROR_STRING = "6308c379a060e01b600052" + "6020600452" + "6002602452" + "616e6f60f01b604452" + "60646000fd"  # revert Error("no")
PANIC = "634e487b7160e01b600052" + "6011600452" + "60246000fd"  # revert Panic(0x11)
RECURSE = "6000600060006000600030" + "5af1" + "00"
INVALID = "fe"
NOWHERE = Hash32(bytes(32))
STORE_ABI = [
    {
        "type": "function",
        "name": "set",
        "stateMutability": "nonpayable",
        "inputs": [{"name": "value", "type": "uint256"}],
        "outputs": [{"name": "", "type": "uint256"}],
    },
    {"type": "event", "name": "Set", "anonymous": True, "inputs": [{"name": "value", "type": "uint256", "indexed": True}]},
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node") / "chain.sqlite", fund=[ALICE.address]) as running:
        yield running


@pytest.fixture(scope="module")
def web3(node: NodeProcess) -> Web3:
    return Web3(Web3.HTTPProvider(node.url))


@pytest.fixture(scope="module")
def store(web3: Web3) -> Contract:
    contract: Contract = web3.eth.contract(address=deploy(web3, STORE), abi=STORE_ABI)
    return contract


def send(web3: Web3, sender: LocalAccount = ALICE, **fields: Any) -> TxReceipt:
    """Sign as web3 would fill the fees, send, and wait for the receipt."""
    defaults = {
        "chainId": web3.eth.chain_id,
        "nonce": web3.eth.get_transaction_count(sender.address, "pending"),
        "gas": 1_000_000,
        "maxPriorityFeePerGas": web3.eth.max_priority_fee,
        "maxFeePerGas": web3.eth.gas_price,
    }
    raw = sender.sign_transaction({**defaults, **fields}).raw_transaction
    return web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw), timeout=10)


def deploy(web3: Web3, runtime: str) -> Any:
    size = len(runtime) // 2
    receipt = send(web3, data=f"0x60{size:02x}600c60003960{size:02x}6000f3{runtime}", to=b"")
    assert receipt["status"] == 1
    return receipt["contractAddress"]


def set_value(web3: Web3, store: Contract, value: int) -> TxReceipt:
    return send(web3, **store.functions.set(value).build_transaction({"from": ALICE.address, "gas": 100_000}))


def test_a_contract_is_deployed_called_and_read(web3: Web3, store: Contract) -> None:
    """The ordinary life of a contract through web3.py, with the fees web3 itself fills in."""
    receipt = set_value(web3, store, 42)
    assert receipt["status"] == 1
    assert web3.eth.get_storage_at(store.address, 0) == (42).to_bytes(32, "big")
    assert store.functions.set(9).call() == 9
    assert web3.eth.get_code(store.address).hex() == STORE


def test_gas_is_free_for_an_account_that_owns_nothing(web3: Web3, store: Contract) -> None:
    """A fresh account with no balance sends a transaction."""
    fresh = Account.create()
    receipt = send(web3, fresh, to=store.address, data=b"")
    assert (receipt["status"], receipt["effectiveGasPrice"], web3.eth.get_balance(fresh.address)) == (1, 0, 0)


def test_concurrent_senders_share_blocks(web3: Web3, store: Contract) -> None:
    """Twelve accounts sending at once fill far fewer than twelve blocks, and every transaction takes effect."""
    senders = [Account.create() for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        receipts = list(pool.map(lambda sender: send(web3, sender, to=store.address, nonce=0), senders))
    assert all(receipt["status"] == 1 for receipt in receipts)
    assert len({receipt["blockNumber"] for receipt in receipts}) <= 6


def test_the_block_a_receipt_names_lists_its_transaction(web3: Web3, store: Contract) -> None:
    """Block by number and by hash, and the transaction by hash, agree with the receipt."""
    receipt = set_value(web3, store, 1)
    by_number, by_hash = web3.eth.get_block(receipt["blockNumber"], True), web3.eth.get_block(receipt["blockHash"], True)
    transaction = web3.eth.get_transaction(receipt["transactionHash"])
    assert by_number == by_hash
    assert transaction == by_number["transactions"][receipt["transactionIndex"]]
    assert (transaction["from"], transaction["to"], transaction["type"]) == (ALICE.address, store.address, 2)


def test_the_pending_block_is_the_one_a_transaction_enters(web3: Web3, store: Contract) -> None:
    """Number and time of "pending" are those of the next sealed block, or its lower bound."""
    pending = web3.eth.get_block("pending")
    sealed = web3.eth.get_block(set_value(web3, store, 2)["blockNumber"])
    assert pending["number"] == sealed["number"]
    assert pending["timestamp"] <= sealed["timestamp"] <= pending["timestamp"] + 2


def test_a_custom_error_reaches_web3_with_its_data(web3: Web3) -> None:
    """Selector and argument of the contract's own error arrive, from a call and from an estimate."""
    contract, expected = deploy(web3, CUSTOM_ERROR), "0xdeadbeef" + f"{7:064x}"
    with pytest.raises(ContractCustomError) as called:
        web3.eth.call({"to": contract})
    with pytest.raises(ContractCustomError) as estimated:
        web3.eth.estimate_gas({"to": contract, "from": ALICE.address})
    assert called.value.data == estimated.value.data == expected


def test_a_reason_string_reaches_web3(web3: Web3) -> None:
    """require(..., "no") is reported as such."""
    with pytest.raises(ContractLogicError, match="execution reverted: no"):
        web3.eth.call({"to": deploy(web3, ERROR_STRING)})


def test_a_panic_reaches_web3(web3: Web3) -> None:
    """Arithmetic overflow is reported as such."""
    with pytest.raises(ContractLogicError, match="overflow"):
        web3.eth.call({"to": deploy(web3, PANIC)})


def test_an_invalid_opcode_is_an_error_without_data(web3: Web3) -> None:
    """A fault that is no revert is told apart from one."""
    with pytest.raises(Web3RPCError, match="InvalidInstruction"):
        web3.eth.call({"to": deploy(web3, INVALID)})


def test_a_failing_transaction_has_a_receipt_with_status_0(web3: Web3) -> None:
    """It is sealed, its nonce is spent, and the node goes on."""
    contract = deploy(web3, CUSTOM_ERROR)
    nonce = web3.eth.get_transaction_count(ALICE.address)
    receipt = send(web3, to=contract)
    assert (receipt["status"], receipt["logs"]) == (0, [])
    assert web3.eth.get_transaction_count(ALICE.address) == nonce + 1


def test_a_call_stack_of_hundreds_of_frames_is_survived(web3: Web3) -> None:
    """Recursion in the EVM runs in a server thread without overflowing its stack."""
    assert send(web3, to=deploy(web3, RECURSE), gas=30_000_000)["status"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [({"chainId": 1}, "invalid chain id"), ({"nonce": 0}, "nonce too low"), ({"nonce": 10**6}, "nonce too high")],
)
def test_an_invalid_transaction_is_a_json_rpc_error(web3: Web3, change: Mapping[str, Any], message: str) -> None:
    """The message says which field is wrong; nothing is sealed."""
    before = web3.eth.block_number
    with pytest.raises(Web3RPCError, match=message):
        send(web3, to=ALICE.address, **change)
    assert web3.eth.block_number == before


def test_an_estimate_is_enough_and_not_much_more(web3: Web3, store: Contract) -> None:
    """The estimated limit covers the transaction, with less than ten percent to spare."""
    call = store.functions.set(77).build_transaction({"from": ALICE.address})
    receipt = send(web3, **call)
    assert receipt["status"] == 1
    assert receipt["gasUsed"] <= call["gas"] <= receipt["gasUsed"] * 1.1 + 2_500


def test_logs_are_found_by_address_topic_and_range(web3: Web3, store: Contract) -> None:
    """Filters narrow by contract, by indexed value (one of several) and by blocks."""
    first, second = (set_value(web3, store, value) for value in (501, 502))
    other = deploy(web3, STORE)
    send(web3, to=other, data="0x00000000" + f"{501:064x}")
    topics = [f"0x{value:064x}" for value in (501, 502)]
    found = web3.eth.get_logs({"fromBlock": 0, "address": store.address, "topics": [topics]})
    assert [log["transactionHash"] for log in found] == [first["transactionHash"], second["transactionHash"]]
    assert web3.eth.get_logs({"fromBlock": second["blockNumber"], "address": store.address, "topics": [topics]}) == second["logs"]
    assert len(web3.eth.get_logs({"fromBlock": 0, "topics": [topics[0]]})) == 2
    assert web3.eth.get_logs({"blockHash": first["blockHash"]}) == first["logs"]
    assert web3.eth.get_logs({"fromBlock": 0, "topics": [None, topics]}) == []


def test_past_blocks_keep_their_state(web3: Web3, store: Contract) -> None:
    """An auditor reads a value as it was in an earlier block."""
    past = set_value(web3, store, 11)["blockNumber"]
    set_value(web3, store, 12)
    assert int(web3.eth.get_storage_at(store.address, 0, past).hex(), 16) == 11
    assert int(web3.eth.get_storage_at(store.address, 0).hex(), 16) == 12


def test_what_does_not_exist_is_not_found(web3: Web3) -> None:
    """Unknown transactions and blocks become web3's own exceptions."""
    with pytest.raises(TransactionNotFound):
        web3.eth.get_transaction_receipt(NOWHERE)
    with pytest.raises(TransactionNotFound):
        web3.eth.get_transaction(NOWHERE)
    with pytest.raises(BlockNotFound):
        web3.eth.get_block(10**9)


def test_fee_history_says_that_gas_is_free(web3: Web3) -> None:
    """Base fees and rewards are zero, so that web3 fills in zero."""
    history = web3.eth.fee_history(2, "latest", [50])
    assert set(history["baseFeePerGas"]) == {0} and history["reward"] == [[0], [0]]


@pytest.mark.parametrize(
    ("method", "headers", "body", "status"),
    [
        ("GET", {}, b"", 501),
        ("POST", {"Content-Type": "text/plain"}, b"{}", 415),
        ("POST", {"Content-Type": "application/json", "Content-Length": "99999999999"}, b"", 413),
        ("POST", {"Content-Type": "application/json", "Content-Length": "-1"}, b"", 411),
        ("POST", {"Content-Type": "application/json"}, b"{", 200),
    ],
)
def test_bad_http_gets_a_status_and_the_node_lives_on(
    node: NodeProcess, web3: Web3, method: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    """Wrong verbs, types and lengths are refused; bad JSON is a JSON-RPC error."""
    connection = http.client.HTTPConnection(node.url.removeprefix("http://"), timeout=5)
    connection.request(method, "/", body, headers)
    assert connection.getresponse().status == status
    assert web3.eth.chain_id == CHAIN_ID


def test_a_batch_over_http_is_answered_in_order(node: NodeProcess) -> None:
    """JSON-RPC batches work over the wire."""
    batch = [{"jsonrpc": "2.0", "id": each, "method": "eth_chainId"} for each in (3, 1, 2)]
    connection = http.client.HTTPConnection(node.url.removeprefix("http://"), timeout=5)
    connection.request("POST", "/", json.dumps(batch), {"Content-Type": "application/json"})
    assert [each["id"] for each in json.loads(connection.getresponse().read())] == [3, 1, 2]
