"""One account's transactions: at most one under way, never two with effect, replaced or sent again until one is confirmed.

Knows nonces, fees and blocks; knows nothing of what a transaction means.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from eth_account.datastructures import SignedTransaction
from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes
from web3.exceptions import TransactionNotFound, Web3RPCError
from web3.types import BlockIdentifier, Nonce, TxReceipt

from bahefl_flwr.errors import LedgerError, LedgerUnreachable
from bahefl_flwr.ledger.endpoint import Endpoint
from bahefl_flwr.ledger.policy import Fees
from bahefl_flwr.ledger.refusals import Payload, name_of

# Other sites' transactions may come first, and then the last one of a step pays for opening the next: up to 1.5 M gas more
# than estimated in the largest federations. Gas that is not used costs nothing.
_GAS_RESERVE = 2_000_000
_GAS_FACTOR = 1.3
_STUCK_BLOCKS = 3
_MAX_RAISES = 5
_MAX_TAKEN = 10
_FIRST_POLL_S = 0.05
_RECEIPT_LAG_S = 2.0
_LONGEST_POLL_S = 0.5


@dataclass(slots=True, kw_only=True)
class _Delivery:
    """One payload under one nonce. All transactions in `sent` share both, so that at most one of them can take effect."""

    payload: Payload
    fields: dict[str, Any]
    fees: Fees
    raises: int = 0
    sent: list[SignedTransaction] = field(default_factory=list)
    # Newest block and since when (seconds); when the last transaction was handed in, and the newest block then.
    head: tuple[int, float] = (-1, 0.0)
    handed_in_s: float = 0.0
    handed_in_at: int = -1

    @property
    def nonce(self) -> int:
        return int(self.fields["nonce"])

    def __str__(self) -> str:
        hashes = ", ".join(signed.hash.to_0x_hex() for signed in self.sent)
        return f"{name_of(self.payload)} (nonce {self.nonce}, transaction {hashes})"


class Sender:
    """Sends for one account through one endpoint. Threads take turns; of processes, one at a time should send.

    Args:
      endpoint: where to. account: who signs.
    """

    def __init__(self, endpoint: Endpoint, account: LocalAccount) -> None:
        self._endpoint, self._account = endpoint, account
        self._turn = threading.Lock()

    def send(self, payload: Payload) -> TxReceipt:
        """Sign, hand in, and wait until the transaction is in a block that counts; its receipt, of whatever status.

        Raises:
          ContractLogicError: the contract would refuse it; nothing was sent. LedgerError: the node did not take it.
          LedgerUnreachable: no answer, no blocks, or stuck for longer than the policy's patience. It may still take effect
            then; the next transaction of this account has its nonce again, so that never both do.
        """
        with self._turn:
            for _ in range(_MAX_TAKEN):
                receipt = self._deliver(self._prepared(payload))
                if receipt is not None:
                    return receipt
        raise LedgerError(
            f"{name_of(payload)} of {self._account.address}: {_MAX_TAKEN} nonces in a row were used by somebody else; "
            "does another process sign with this account? Give every site and driver an account of its own"
        )

    def settle(self) -> None:
        """Wait for what this account sent before (in another process, say), so that what is read next contains it.

        What stays stuck is left alone: the next transaction takes its nonce.
        """
        last, end = -1, time.monotonic() + self._endpoint.policy.patience_s
        while self._count("pending") > self._count(self._endpoint.confirmed_block()):
            head = self._endpoint.head()
            last = last if last >= 0 else head + _STUCK_BLOCKS + self._endpoint.policy.confirmations
            if head > last or time.monotonic() > end:
                return
            time.sleep(_FIRST_POLL_S)

    def _count(self, block: BlockIdentifier) -> Nonce:
        return self._endpoint.read(lambda: self._endpoint.web3.eth.get_transaction_count(self._account.address, block))

    def _prepared(self, payload: Payload) -> _Delivery:
        base_fee = self._endpoint.base_fee()
        # Not the pending one: what an earlier process left unmined is replaced, or it would block everything after it.
        nonce = self._count("latest")
        as_of: BlockIdentifier = "pending" if self._count("pending") == nonce else "latest"
        fields: dict[str, Any] = {"from": self._account.address, "chainId": self._endpoint.chain_id, "nonce": nonce}
        estimate = self._endpoint.read(lambda: payload.estimate_gas({"from": self._account.address}, as_of))
        fields["gas"] = int(estimate * _GAS_FACTOR) + _GAS_RESERVE
        return _Delivery(payload=payload, fields=fields, fees=Fees.first(self._endpoint.policy, base_fee))

    def _deliver(self, delivery: _Delivery) -> TxReceipt | None:
        """The receipt once it counts; None if another transaction of the account has taken the nonce."""
        pause = _FIRST_POLL_S
        try:
            self._hand_in(delivery, self._signed(delivery))
            while True:
                receipt = self._receipt(delivery)
                if receipt is not None and self._counts(receipt):
                    return receipt
                if receipt is None and self._is_taken(delivery):
                    return self._late_receipt(delivery)
                self._observe(delivery, receipt)
                if receipt is None:
                    self._push(delivery)
                time.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_POLL_S)
        except LedgerUnreachable as error:
            if not delivery.sent:
                raise
            raise LedgerUnreachable(f"{error}; {delivery} may still take effect, read the ledger before sending anew") from error

    def _signed(self, delivery: _Delivery) -> SignedTransaction:
        fees = {"maxFeePerGas": delivery.fees.most, "maxPriorityFeePerGas": delivery.fees.tip}
        transaction = delivery.payload.build_transaction({**delivery.fields, **fees})  # type: ignore[arg-type]
        return self._account.sign_transaction(transaction)  # type: ignore[arg-type]

    def _hand_in(self, delivery: _Delivery, signed: SignedTransaction) -> None:
        """Give a transaction to the node. That its nonce is in use is no error: `_deliver` finds out by whom.

        Raises:
          LedgerError: the node does not take it, and will not.
        """
        if signed not in delivery.sent:
            delivery.sent.append(signed)
        try:
            self._endpoint.read(lambda: self._endpoint.web3.eth.send_raw_transaction(signed.raw_transaction))
        except Web3RPCError as error:
            # The node may know it already, if only its answer was lost, or it may know another one of this nonce.
            if not self._is_known(signed.hash) and self._count("pending") <= delivery.nonce:
                raise LedgerError(
                    f"{self._endpoint.url} did not take {name_of(delivery.payload)} from {self._account.address}: {error}"
                ) from error
        delivery.handed_in_s, delivery.handed_in_at = time.monotonic(), -1

    def _is_known(self, transaction: HexBytes) -> bool:
        try:
            self._endpoint.read(lambda: self._endpoint.web3.eth.get_transaction(transaction))
        except TransactionNotFound:
            return False
        return True

    def _receipt(self, delivery: _Delivery) -> TxReceipt | None:
        for signed in reversed(delivery.sent):
            try:
                return self._endpoint.read(lambda h=signed.hash: self._endpoint.web3.eth.get_transaction_receipt(h))  # type: ignore[misc]
            except TransactionNotFound:
                continue
        return None

    def _late_receipt(self, delivery: _Delivery) -> TxReceipt | None:
        """The receipt of a nonce that is used up: nodes count a nonce a moment before they find its receipt."""
        end = time.monotonic() + _RECEIPT_LAG_S
        while (receipt := self._receipt(delivery)) is None and time.monotonic() < end:
            time.sleep(_FIRST_POLL_S)
        return receipt

    def _counts(self, receipt: TxReceipt) -> bool:
        confirmations = self._endpoint.policy.confirmations
        return not confirmations or self._endpoint.head() - receipt["blockNumber"] >= confirmations

    def _is_taken(self, delivery: _Delivery) -> bool:
        """Whether a block that counts holds a transaction of this nonce. If it is ours after all, its receipt is there."""
        return self._count(self._endpoint.confirmed_block()) > delivery.nonce

    def _observe(self, delivery: _Delivery, receipt: TxReceipt | None) -> None:
        """Make sure that the chain moves.

        Raises:
          LedgerUnreachable: it has made no block for longer than the policy's patience.
        """
        head, now = self._endpoint.head(), time.monotonic()
        if head != delivery.head[0]:
            delivery.head = (head, now)
        if delivery.handed_in_at < 0:
            delivery.handed_in_at = head
        if now - delivery.head[1] <= self._endpoint.policy.patience_s:
            return
        why = f"{self._endpoint.url} has made no block after {head} for {self._endpoint.policy.patience_s:g} s"
        if receipt is not None:
            need = self._endpoint.policy.confirmations
            why += f", block {receipt['blockNumber']} needs {need} more on top (a chain that rests needs ledger.confirmations=0)"
        raise LedgerUnreachable(f"{why}; do enough validators run?")

    def _push(self, delivery: _Delivery) -> None:
        """Send again what the node has lost; raise the fee of what it leaves lying.

        Raises:
          LedgerUnreachable: stuck, and nothing more can be offered.
        """
        newest = delivery.sent[-1]
        if not self._is_known(newest.hash):
            # Never taken because another transaction waits with this nonce, or forgotten as too cheap: more must be offered.
            outbid = self._count("pending") > delivery.nonce or self._endpoint.base_fee() > delivery.fees.most
            if not outbid:
                since = delivery.handed_in_s
                self._hand_in(delivery, newest)
                delivery.handed_in_s = since
            else:
                self._raise_fees(delivery)
        elif delivery.head[0] - delivery.handed_in_at >= _STUCK_BLOCKS:
            self._raise_fees(delivery)
        if time.monotonic() - delivery.handed_in_s > self._endpoint.policy.patience_s:
            cap = self._endpoint.policy.max_fee_gwei
            raise LedgerUnreachable(
                f"stuck for {self._endpoint.policy.patience_s:g} s while blocks were made (base fee "
                f"{self._endpoint.base_fee()} wei, ledger.max_fee_gwei={cap:g}); raise the cap, or ask the node's operator"
            )

    def _raise_fees(self, delivery: _Delivery) -> None:
        fees = delivery.fees.raised(self._endpoint.policy, self._endpoint.base_fee())
        if fees is not None and delivery.raises < _MAX_RAISES:
            delivery.fees, delivery.raises = fees, delivery.raises + 1
            self._hand_in(delivery, self._signed(delivery))
