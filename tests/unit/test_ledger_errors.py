"""Claims about refusals in words: revert data to names and arguments."""

from __future__ import annotations

from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.ledger.connection import decode_error
from bahefl_flwr.ledger.deployment import artifact

WHO = "0x" + "11" * 20


def revert_data(signature: str, types: list[str], *values: object) -> str:
    """Revert data of a custom error, as nodes send it."""
    return "0x" + (keccak(text=signature)[:4] + encode(types, values)).hex()


def test_a_custom_error_is_named_with_its_arguments() -> None:
    """Name and named arguments come back."""
    data = revert_data("AlreadyCommitted(uint256,address)", ["uint256", "address"], 3, WHO)
    assert decode_error(artifact()["abi"], data) == ("AlreadyCommitted", f"AlreadyCommitted(round=3, who={WHO})")


def test_an_error_of_the_access_library_is_known() -> None:
    """OpenZeppelin's errors are in the ABI as well."""
    data = revert_data("AccessControlUnauthorizedAccount(address,bytes32)", ["address", "bytes32"], WHO, bytes(32))
    assert decode_error(artifact()["abi"], data)[0] == "AccessControlUnauthorizedAccount"


def test_a_cut_error_keeps_its_name() -> None:
    """Arguments that do not decode are left out, the name stays."""
    data = revert_data("DeadlinePassed(uint256)", ["uint256"], 3)[:-2]
    assert decode_error(artifact()["abi"], data) == ("DeadlinePassed", "DeadlinePassed(?)")


@given(st.one_of(st.text(), st.binary().map(lambda b: "0x" + b.hex())))
def test_no_revert_data_breaks_the_decoder(data: str) -> None:
    """Whatever a node answers, there is a pair of texts."""
    name, text = decode_error(artifact()["abi"], data)
    assert text.startswith(name)
