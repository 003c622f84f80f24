"""Claims about the JSON-RPC front of the embedded ledger: whatever arrives, a JSON-RPC answer leaves, and the node works on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.database import ChainDatabase
from bahefl_flwr.ledger.formats import InvalidParams, to_data, to_quantity
from bahefl_flwr.ledger.rpc import MAX_BATCH, Rpc

METHODS = [
    "web3_clientVersion",
    "net_version",
    "eth_chainId",
    "eth_blockNumber",
    "eth_gasPrice",
    "eth_maxPriorityFeePerGas",
    "eth_feeHistory",
    "eth_getTransactionCount",
    "eth_getBalance",
    "eth_getCode",
    "eth_getStorageAt",
    "eth_sendRawTransaction",
    "eth_getTransactionReceipt",
    "eth_getTransactionByHash",
    "eth_call",
    "eth_estimateGas",
    "eth_getBlockByNumber",
    "eth_getBlockByHash",
    "eth_getLogs",
]
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HEX = st.binary(max_size=40).map(lambda data: "0x" + data.hex())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
WORDS = (
    st.sampled_from(["latest", "pending", "earliest", "safe", "0x0", "0x1", "0x" + "ff" * 32, "0x" + "00" * 20, "0x" + "11" * 32])
    | HEX
)
FIELDS = st.sampled_from(
    [
        "from",
        "to",
        "data",
        "input",
        "gas",
        "value",
        "chainId",
        "fromBlock",
        "toBlock",
        "address",
        "topics",
        "blockHash",
        "blockNumber",
    ]
)
PARAMETERS = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rpc]:
    database = ChainDatabase(Path(tmp_path_factory.mktemp("node")) / "chain.sqlite", 20260)
    yield Rpc(Chain(database, 20260), threading.Condition(threading.RLock()))
    database.close()


def ask(rpc: Rpc, method: str, *parameters: object) -> dict[str, Any]:
    answer = rpc.handle(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": parameters}).encode())
    return dict(json.loads(answer))


def assert_alive(rpc: Rpc) -> None:
    assert ask(rpc, "eth_chainId") == {"jsonrpc": "2.0", "id": 7, "result": "0x4f24"}


@FEW
@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_request_get_an_error(rpc: Rpc, body: bytes) -> None:
    """Random bytes are answered with an error object, never an exception."""
    answer = json.loads(rpc.handle(body))
    assert answer["error"]["code"] in (-32700, -32600)


@FEW
@given(request=PARAMETERS)
def test_json_that_is_no_request_gets_an_error(rpc: Rpc, request: object) -> None:
    """Any JSON value is answered; a list answers each of its elements, or is refused when empty."""
    answer = json.loads(rpc.handle(json.dumps(request).encode()))
    answers = answer if isinstance(answer, list) else [answer]
    assert {each["error"]["code"] for each in answers} == {-32600}


@settings(parent=FEW, max_examples=300)
@given(method=st.sampled_from(METHODS), parameters=st.lists(PARAMETERS, max_size=4))
def test_malformed_parameters_never_cause_an_internal_error(rpc: Rpc, method: str, parameters: list[object]) -> None:
    """Every method answers every parameter list with a result or with an error that says what is wrong."""
    answer = ask(rpc, method, *parameters)
    assert answer["id"] == 7
    assert ("result" in answer) != ("error" in answer)
    assert "error" not in answer or answer["error"]["code"] in (-32602, -32000, 3)


@FEW
@given(raw=st.binary(max_size=300), kind=st.sampled_from([b"", b"\x01", b"\x02", b"\x03", b"\xf8"]))
def test_bytes_that_are_no_transaction_are_refused(rpc: Rpc, raw: bytes, kind: bytes) -> None:
    """Random bytes, also behind a valid type byte, are never taken for a transaction."""
    answer = ask(rpc, "eth_sendRawTransaction", "0x" + (kind + raw).hex())
    assert answer["error"]["code"] == -32000


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"[" * 9_999, b"9" * 10_000, b'{"a":NaN}', b"\xff\xfe", b""],
    ids=["deep", "less deep", "long", "nan", "latin", "empty"],
)
def test_json_bombs_are_parse_errors(rpc: Rpc, body: bytes) -> None:
    """Deep nesting, endless numbers and non-JSON constants are refused by the parser, and the node lives on."""
    assert json.loads(rpc.handle(body))["error"]["code"] == -32700
    assert_alive(rpc)


@pytest.mark.parametrize("request_id", [True, 1.5, [], {}])
def test_an_id_of_another_type_is_an_invalid_request(rpc: Rpc, request_id: object) -> None:
    """Ids are numbers, strings or null."""
    answer = json.loads(rpc.handle(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "eth_chainId"}).encode()))
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)


def test_an_unknown_method_is_named(rpc: Rpc) -> None:
    """The code is JSON-RPC's, and the message names the method."""
    error = ask(rpc, "debug_traceTransaction")["error"]
    assert error["code"] == -32601 and "debug_traceTransaction" in error["message"]


def test_a_batch_answers_each_request_in_order(rpc: Rpc) -> None:
    """A bad request in a batch costs only its own answer."""
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}, 5, {"jsonrpc": "2.0", "id": "x", "method": "eth_blockNumber"}]
    answers = json.loads(rpc.handle(json.dumps(batch).encode()))
    assert [(each["id"], "result" in each) for each in answers] == [(1, True), (None, False), ("x", True)]


def test_a_batch_has_an_upper_size(rpc: Rpc) -> None:
    """Too many requests at once are refused as a whole."""
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}] * (MAX_BATCH + 1)
    assert json.loads(rpc.handle(json.dumps(batch).encode()))["error"]["code"] == -32600


def test_a_block_that_does_not_exist_is_null_or_an_error(rpc: Rpc) -> None:
    """Asking for the block itself gives null; asking for a state at it names the head."""
    assert ask(rpc, "eth_getBlockByNumber", "0x5", False)["result"] is None
    error = ask(rpc, "eth_getBalance", "0x" + "00" * 20, "0x5")["error"]
    assert error["message"] == "block 5 does not exist; the head is block 0"


def test_a_call_for_another_chain_is_refused(rpc: Rpc) -> None:
    """A message that names a chain must name this one."""
    assert "this is chain 20260" in ask(rpc, "eth_call", {"chainId": "0x1"})["error"]["message"]


def test_data_and_input_must_agree(rpc: Rpc) -> None:
    """Two different payloads in one message are ambiguous."""
    assert '"data" and "input" differ' in ask(rpc, "eth_call", {"data": "0x01", "input": "0x02"})["error"]["message"]


@given(number=st.integers(0, 2**256 - 1))
def test_quantities_round_trip(number: int) -> None:
    """to_quantity inverts hex for every 256-bit number."""
    assert to_quantity(hex(number)) == number


@given(data=st.binary(max_size=64))
def test_data_round_trips(data: bytes) -> None:
    """to_data inverts hexadecimal for all bytes."""
    assert to_data("0x" + data.hex()) == data


@pytest.mark.parametrize("value", ["0x", "1a", "0x1g", "0x" + "f" * 65, "-0x1", "0x1\n", 1, None, True])
def test_quantities_are_strict(value: object) -> None:
    """Only "0x" and 1 to 64 hex digits are a quantity."""
    with pytest.raises(InvalidParams):
        to_quantity(value)


@pytest.mark.parametrize("value", ["", "0x1", "1a2b", "0xzz", "0x12\n", 1, None, b"\x12"])
def test_data_is_strict(value: object) -> None:
    """Only "0x" and whole bytes are data."""
    with pytest.raises(InvalidParams):
        to_data(value)
