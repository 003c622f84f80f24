"""The reading side of a JSON-RPC endpoint: bounded back-off, the right chain, and nothing that is not confirmed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, TypeVar

from eth_typing import BlockNumber
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import HTTPError, Timeout
from web3 import HTTPProvider, Web3
from web3.contract.contract import ContractFunction
from web3.exceptions import (
    BadFunctionCallOutput,
    BadResponseFormat,
    ContractLogicError,
    Web3Exception,
)
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import BlockIdentifier, RPCEndpoint

from bahefl_flwr.errors import LedgerError, LedgerUnreachable
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.ledger.refusals import name_of, refusal

_T = TypeVar("_T")
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
# Too many requests, and what a proxy answers while the node behind it restarts, pass by themselves.
_PASSING_STATUS = frozenset((408, 429))
# The first failure may be no more than a connection that the node closed while it was idle.
_TELL_AT = 2

_log = logging.getLogger("bahefl_flwr.ledger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A chain's newest block: its `number`, Unix time `made_s`, and the seconds since the one before it (0 for the first)."""

    number: int
    made_s: int
    period_s: int


class Endpoint:
    """A JSON-RPC endpoint of a chain, to be asked.

    Args:
      url: "http(s)://...". chain_id: EIP-155 id it must have; checked by `check_chain`.
      policy: when a block counts, and how long to wait.
    """

    def __init__(self, url: str, chain_id: int, policy: ChainPolicy) -> None:
        self.url, self.chain_id, self.policy = url, chain_id, policy
        # web3 asks for the chain id four times a transaction; a node never changes it.
        provider = HTTPProvider(
            url, request_kwargs={"timeout": policy.timeout_s}, exception_retry_configuration=None,
            cache_allowed_requests=True, cacheable_requests={RPCEndpoint("eth_chainId")},
        )  # fmt: skip
        self.web3 = Web3(provider)
        # Proof-of-authority chains (Besu QBFT) have block headers that web3 refuses otherwise.
        self.web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)

    def check_chain(self) -> None:
        """Compare the endpoint's chain id with the expected one.

        Raises:
          LedgerUnreachable: no answer. LedgerError: another chain.
        """
        got = self.read(lambda: self.web3.eth.chain_id)
        if got != self.chain_id:
            raise LedgerError(f"{self.url} is chain {got}, expected {self.chain_id}; check ledger.url and ledger.chain_id")

    def read(self, question: Callable[[], _T]) -> _T:
        """Ask something that changes nothing, again after 0.1, 0.2, 0.4 ... 2 s while there is no answer. A warning says so once.

        Raises:
          LedgerUnreachable: no answer within the policy's patience. LedgerError: an answer that makes no sense.
        """
        end = time.monotonic() + self.policy.patience_s
        pause, attempts, told = _FIRST_PAUSE_S, 0, False
        while True:
            attempts += 1
            try:
                return question()
            except (RequestsConnectionError, Timeout, HTTPError) as error:
                failure = self._passing(error)
            except (BadFunctionCallOutput, BadResponseFormat, JSONDecodeError) as error:
                raise LedgerError(f"{self.url} answered nonsense ({error}); is it the right chain and contract?") from error
            if time.monotonic() + pause > end:
                raise LedgerUnreachable(
                    f"no answer from {self.url} in {self.policy.patience_s:g} s, {attempts} attempts ({type(failure).__name__}): "
                    "is the ledger node running? Start it, or give its right address: --rpc, ledger.url, or ledger-url in a home"
                )
            if not told and (attempts >= _TELL_AT or isinstance(failure, Timeout)):
                told, left_s = True, end - time.monotonic()
                _log.warning("no answer from the ledger node at %s yet: asking again for at most %.0f s", self.url, left_s)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _passing(self, error: RequestsConnectionError | Timeout | HTTPError) -> Exception:
        """The error, if waiting may help against it."""
        status = error.response.status_code if isinstance(error, HTTPError) and error.response is not None else 0
        if 400 <= status < 500 and status not in _PASSING_STATUS:
            raise LedgerError(f"{self.url} refuses to answer (HTTP {status}); check ledger.url and who may use it") from error
        return error

    def head(self) -> BlockNumber:
        """Number of the newest block."""
        return self.read(lambda: self.web3.eth.block_number)

    def confirmed_block(self) -> BlockIdentifier:
        """The newest block that counts: everything the contract is asked is asked as of it (docs/adr/0006)."""
        return self._confirmed_number() if self.policy.confirmations else "latest"

    def _confirmed_number(self) -> BlockNumber:
        return BlockNumber(max(0, self.head() - self.policy.confirmations))

    def catch_up(self, number: int, within_s: float) -> None:
        """Wait until block `number` counts here, or the time is over: another node may have seen it first."""
        end = time.monotonic() + within_s
        while number and self._confirmed_number() < number and time.monotonic() < end:
            time.sleep(_FIRST_PAUSE_S)

    def call(self, function: ContractFunction, block: BlockIdentifier | None = None) -> Any:
        """The result of a view function, as of the newest block that counts (or, for auditors, of the block named).

        Raises:
          LedgerUnreachable, LedgerError: as `read`. TransactionReverted: the contract refused to answer.
        """
        as_of = self.confirmed_block() if block is None else block
        try:
            return self.read(lambda: function.call(block_identifier=as_of))
        except ContractLogicError as error:
            raise refusal(function, error) from error
        except Web3Exception as error:
            raise LedgerError(f"{self.url} could not answer {name_of(function)}: {error}") from error

    def pulse(self) -> Pulse:
        """How the chain is doing."""
        newest = self.read(lambda: self.web3.eth.get_block("latest"))
        number, made_s = int(newest["number"]), int(newest["timestamp"])
        before_s = int(self.read(lambda: self.web3.eth.get_block(number - 1))["timestamp"]) if number else made_s
        return Pulse(number=number, made_s=made_s, period_s=made_s - before_s)

    def base_fee(self) -> int:
        """What the newest block asks for a unit of gas, in wei.

        Raises:
          LedgerError: the chain is older than EIP-1559.
        """
        fee = self.read(lambda: self.web3.eth.get_block("latest")).get("baseFeePerGas")
        if fee is None:
            raise LedgerError(f"{self.url} is a chain without base fees (before London); the contract needs London or later")
        return int(fee)
