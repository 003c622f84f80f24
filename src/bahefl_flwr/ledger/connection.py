"""One account's way to one chain: bounded retries, signing, receipts, and refusals in plain words.

Knows web3 and JSON-RPC; knows nothing of what the contract means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_account.signers.local import LocalAccount
from eth_typing import ChecksumAddress
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import HTTPError, Timeout
from web3 import HTTPProvider, Web3
from web3.contract.contract import ContractConstructor, ContractFunction
from web3.exceptions import (
    BadFunctionCallOutput,
    BadResponseFormat,
    ContractLogicError,
    TimeExhausted,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import TxParams, TxReceipt

from bahefl_flwr.errors import LedgerError, LedgerUnreachable, TransactionReverted

_T = TypeVar("_T")
_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.1
_POLL_S = 0.05
# Other sites' transactions may come first, and then the last one of a step pays for opening the next: up to 1.5 M gas more
# than estimated in the largest federations. Gas that is not used costs nothing.
_GAS_RESERVE = 2_000_000
_GAS_FACTOR = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A transaction that took effect: its hash ("0x..."), the block it is in, and the gas it used."""

    transaction: str
    block_number: int
    gas_used: int


class Connection:
    """A JSON-RPC endpoint of a chain, and the account that signs there.

    Args:
      url: "http(s)://..." of the endpoint.
      chain_id: EIP-155 id the endpoint must have; checked by `check`.
      account: signs transactions; without one the connection can only read.
      timeout_s: longest wait for one answer, and for a sent transaction to be in a block.
    """

    def __init__(self, url: str, chain_id: int, *, account: LocalAccount | None = None, timeout_s: float = 30.0) -> None:
        self.url, self.chain_id = url, chain_id
        self._account, self._timeout_s = account, timeout_s
        provider = HTTPProvider(url, request_kwargs={"timeout": timeout_s}, exception_retry_configuration=None)
        self.web3 = Web3(provider)
        # Proof-of-authority chains (Besu QBFT) have block headers that web3 refuses otherwise.
        self.web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)

    def __repr__(self) -> str:
        return f"<Connection {self.url} chain={self.chain_id} account={self._account.address if self._account else None}>"

    @property
    def account(self) -> LocalAccount:
        """The account that signs.

        Raises:
          LedgerError: the connection can only read.
        """
        if self._account is None:
            raise LedgerError(f"the connection to {self.url} has no account: it can read, but not send")
        return self._account

    def check(self) -> None:
        """Compare the endpoint's chain id with the expected one.

        Raises:
          LedgerUnreachable: no answer. LedgerError: another chain.
        """
        got = self.read(lambda: self.web3.eth.chain_id)
        if got != self.chain_id:
            raise LedgerError(f"{self.url} is chain {got}, expected {self.chain_id}; check ledger.url and ledger.chain_id")

    def read(self, question: Callable[[], _T]) -> _T:
        """Ask something that changes nothing, again after 0.1, 0.2, 0.4 and 0.8 s if there is no answer.

        Raises:
          LedgerUnreachable: no answer to five attempts. LedgerError: an answer that makes no sense.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                return question()
            except (RequestsConnectionError, Timeout, HTTPError) as error:
                failure = error
            except (ContractLogicError, Web3RPCError):
                raise
            except (BadFunctionCallOutput, BadResponseFormat) as error:
                raise LedgerError(f"{self.url} answered nonsense ({error}); is it the right chain and contract?") from error
        kind = type(failure).__name__
        raise LedgerUnreachable(f"no answer from {self.url} in {_ATTEMPTS} attempts ({kind}); is the ledger node running?")

    def call(self, function: ContractFunction, block: str | int = "pending") -> Any:
        """The result of a view function, as of a transaction sent now.

        Raises:
          LedgerUnreachable, LedgerError: as `read`. TransactionReverted: the contract refused to answer.
        """
        try:
            return self.read(lambda: function.call(block_identifier=block))  # type: ignore[arg-type]
        except ContractLogicError as error:
            raise _refusal(function, error) from error
        except Web3Exception as error:
            raise LedgerError(f"{self.url} could not answer {_name(function)}: {error}") from error

    def send(self, function: ContractFunction | ContractConstructor) -> Receipt:
        """Sign and send a transaction, and wait until it is in a block.

        Raises:
          TransactionReverted: the contract refused; `reason` is the name of its custom error, the message has the arguments.
          LedgerUnreachable: no answer, or no block with it in `timeout_s`. LedgerError: the node did not take it.
        """
        return self.receipt_of(self._send(function), function)

    def deploy(self, constructor: ContractConstructor) -> str:
        """Send a contract's creation; its checksummed address. Raises as `send`."""
        receipt = self._send(constructor)
        self.receipt_of(receipt, constructor)
        return str(receipt["contractAddress"])

    def receipt_of(self, receipt: TxReceipt, function: ContractFunction | ContractConstructor) -> Receipt:
        """A receipt as a record.

        Raises:
          TransactionReverted: the transaction is in a block, but had no effect.
        """
        if receipt["status"] != 1:
            raise self._why_reverted(function, receipt)
        return Receipt(
            transaction=receipt["transactionHash"].to_0x_hex(),
            block_number=int(receipt["blockNumber"]),
            gas_used=int(receipt["gasUsed"]),
        )

    def _send(self, function: ContractFunction | ContractConstructor) -> TxReceipt:
        account = self.account
        try:
            transaction = self._transaction(function, account.address)
            signed = account.sign_transaction(transaction)  # type: ignore[arg-type]
            self.read(lambda: self._submit(signed.raw_transaction, signed.hash))
            return self._await(signed.hash, function)
        except ContractLogicError as error:
            raise _refusal(function, error) from error
        except Web3Exception as error:
            raise LedgerError(f"{self.url} did not take {_name(function)} from {account.address}: {error}") from error

    def _transaction(self, function: ContractFunction | ContractConstructor, sender: ChecksumAddress) -> TxParams:
        base_fee = self.read(lambda: self.web3.eth.get_block("latest"))["baseFeePerGas"]
        estimate = self.read(lambda: function.estimate_gas({"from": sender}, "pending"))
        common: Any = {
            "from": sender,
            "chainId": self.chain_id,
            "nonce": self.read(lambda: self.web3.eth.get_transaction_count(sender, "pending")),
            "gas": int(estimate * _GAS_FACTOR) + _GAS_RESERVE,
            # Free where the chain's gas is free (base fee 0: our own node, Besu with zeroBaseFee), valid where it is not.
            "maxFeePerGas": 2 * base_fee,
            "maxPriorityFeePerGas": 0,
        }
        return function.build_transaction(common)

    def _submit(self, raw: HexBytes, digest: HexBytes) -> None:
        """Hand in a signed transaction; the node may have it already, if only its answer was lost."""
        try:
            self.web3.eth.send_raw_transaction(raw)
        except Web3RPCError:
            try:
                self.web3.eth.get_transaction(digest)
            except TransactionNotFound:
                pass
            else:
                return
            raise

    def _await(self, digest: HexBytes, function: ContractFunction | ContractConstructor) -> TxReceipt:
        try:
            return self.read(lambda: self.web3.eth.wait_for_transaction_receipt(digest, self._timeout_s, _POLL_S))
        except TimeExhausted as error:
            raise LedgerUnreachable(
                f"{_name(function)} (transaction {digest.to_0x_hex()}) is in no block after {self._timeout_s:.0f} s; "
                "does the chain still make blocks?"
            ) from error

    def _why_reverted(self, function: ContractFunction | ContractConstructor, receipt: TxReceipt) -> TransactionReverted:
        """Ask again what the contract has against it, now that the state is the one it met (or a later one)."""
        where = f"{_name(function)} had no effect in block {receipt['blockNumber']}"
        try:
            self.read(lambda: function.estimate_gas({"from": self.account.address}, "pending"))
        except ContractLogicError as error:
            refusal = _refusal(function, error)
            return TransactionReverted(f"{where}: {refusal}", reason=refusal.reason)
        except Web3Exception:
            pass
        return TransactionReverted(f"{where}; the state has changed since, read the ledger again")


def _name(function: ContractFunction | ContractConstructor) -> str:
    if isinstance(function, ContractConstructor):
        return "the deployment"
    return f"{function.fn_name}({', '.join(_short(a) for a in function.args)})"


def _short(value: object) -> str:
    if isinstance(value, str) and is_address(value):
        return to_checksum_address(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()[:16]
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refusal(function: ContractFunction | ContractConstructor, error: ContractLogicError) -> TransactionReverted:
    """The contract's custom error in words: name and named arguments."""
    data = error.data if isinstance(error.data, str) else ""
    reason, text = decode_error(function.contract_abi if isinstance(function, ContractFunction) else function.abi, data)
    return TransactionReverted(f"the ledger refused {_name(function)}: {text or error}", reason=reason)


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
