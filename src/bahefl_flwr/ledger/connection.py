"""One account's way to one chain: reading what counts, sending until it counts, and refusals in plain words.

Knows web3 and JSON-RPC; knows nothing of what the contract means.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_account.signers.local import LocalAccount
from web3.contract.contract import ContractConstructor
from web3.exceptions import ContractLogicError, Web3Exception
from web3.types import TxReceipt

from bahefl_flwr.errors import LedgerError, TransactionReverted
from bahefl_flwr.ledger.endpoint import Endpoint
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.ledger.refusals import Payload, decode_error, name_of, refusal, signature
from bahefl_flwr.ledger.sending import Sender

__all__ = ["Connection", "Receipt", "decode_error", "signature"]

_DEFAULT_POLICY = ChainPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A transaction that took effect: its hash ("0x..."), the block it is in, and the gas it used."""

    transaction: str
    block_number: int
    gas_used: int


class Connection(Endpoint):
    """A JSON-RPC endpoint of a chain, and the account that signs there.

    Args:
      url: "http(s)://..." of the endpoint.
      chain_id: EIP-155 id the endpoint must have; checked by `check`.
      account: signs transactions; without one the connection can only read.
      policy: when a block counts, what gas may cost, how long to wait.
    """

    def __init__(
        self, url: str, chain_id: int, *, account: LocalAccount | None = None, policy: ChainPolicy = _DEFAULT_POLICY
    ) -> None:
        super().__init__(url, chain_id, policy)
        self._account = account
        self._sender = Sender(self, account) if account else None

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
        """Make sure that it is the right chain, and wait for what this account has sent before: a reading then contains it.

        Raises:
          LedgerUnreachable: no answer. LedgerError: another chain.
        """
        self.check_chain()
        if self._sender:
            self._sender.settle()

    def send(self, function: Payload) -> Receipt:
        """Sign and send a transaction, and wait until it is in a block that counts.

        Raises:
          TransactionReverted: the contract refused; `reason` is the name of its custom error, the message has the arguments.
          LedgerUnreachable: no answer, or no block with it within the policy's patience. LedgerError: the node did not take it.
        """
        return self.receipt_of(self._send(function), function)

    def deploy(self, constructor: ContractConstructor) -> str:
        """Send a contract's creation; its checksummed address. Raises as `send`."""
        receipt = self._send(constructor)
        self.receipt_of(receipt, constructor)
        return str(receipt["contractAddress"])

    def receipt_of(self, receipt: TxReceipt, function: Payload) -> Receipt:
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

    def _send(self, function: Payload) -> TxReceipt:
        account = self.account
        assert self._sender is not None
        try:
            return self._sender.send(function)
        except ContractLogicError as error:
            raise refusal(function, error) from error
        except Web3Exception as error:
            raise LedgerError(f"{self.url} did not take {name_of(function)} from {account.address}: {error}") from error

    def _why_reverted(self, function: Payload, receipt: TxReceipt) -> TransactionReverted:
        """Ask again what the contract has against it, now that the state is the one it met (or a later one)."""
        where = f"{name_of(function)} had no effect in block {receipt['blockNumber']}"
        try:
            self.read(lambda: function.estimate_gas({"from": self.account.address}, "pending"))
        except ContractLogicError as error:
            because = refusal(function, error)
            return TransactionReverted(f"{where}: {because}", reason=because.reason)
        except Web3Exception:
            pass
        return TransactionReverted(f"{where}; the state has changed since, read the ledger again")
