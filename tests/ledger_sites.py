"""A federation of bare ledger accounts on a real chain: real contract, real transactions, made-up digests.

Only the chain's clock is ours: deadlines pass when a test says so, not when a busy machine lets them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar
from unittest.mock import patch

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger import server
from bahefl_flwr.ledger.ballots import ballot_commitment
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.records import EpochPhase, LedgerView, Member, RoundOutcome, RoundPhase, RoundRecord, mask_of, members_in

CHAIN_ID = 20260
WINDOW_S = 600
ADMIN: LocalAccount = Account.from_key(keccak(text="driver"))
STRANGER: LocalAccount = Account.from_key(keccak(text="stranger"))
CONFIG = ContractConfig(
    commit_window_s=WINDOW_S, aggregate_window_s=WINDOW_S, verify_window_s=WINDOW_S, open_grace_s=WINDOW_S,
    ceremony_window_s=WINDOW_S, min_commits=3, committee_max=3,
)  # fmt: skip
WEIGHTS = (100, 50, 70, 30, 20)
N = len(WEIGHTS)
NO_LAYER = bytes(32)
NO_EVIDENCE = bytes(32)
_LAYERS = 32
_T = TypeVar("_T")


class Clock:
    """Wall clock that can be put forward."""

    def __init__(self) -> None:
        self._ahead = 0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def advance(self, seconds: int) -> None:
        """Let this much chain time pass at once."""
        self._ahead += seconds


@dataclass(frozen=True, slots=True)
class RunningChain:
    """Endpoint and clock of a chain."""

    url: str
    clock: Clock


@contextmanager
def running_chain(database: Path) -> Iterator[RunningChain]:
    """The embedded ledger, in this process, with our clock; blocks are sealed at once, since nobody shares them."""
    with (
        patch.object(server, "COALESCE_S", 0.002),
        server.LedgerServer(database, chain_id=CHAIN_ID, funded=(), port=0) as running,
    ):
        clock = Clock()
        running._chain._clock = clock
        yield RunningChain(running.url, clock)


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """The block must be refused by the contract with this custom error."""
    with pytest.raises(TransactionReverted) as caught:
        yield
    assert caught.value.reason == reason, str(caught.value)


def digest(*what: object) -> bytes:
    """A digest that is different for everything."""
    return keccak(text=" ".join(map(str, what)))


def onion(i: int) -> list[bytes]:
    """Member i's hash onion: the seed first, the tip last."""
    layers = [digest("onion", i)]
    for _ in range(_LAYERS):
        layers.append(keccak(layers[-1]))
    return layers


class Sites:
    """The N members and the administrator of one contract.

    Attributes:
      weights: the members' caps on their weights; one for each member.
      admin: the contract as administrator and registrar. ledgers: as each member. stranger: as nobody.
    """

    weights: tuple[int, ...] = WEIGHTS

    def __init__(self, chain: RunningChain, address: str) -> None:
        self.chain = chain
        self.accounts = [Account.from_key(digest("account", i)) for i in range(len(self.weights))]
        self._address = address
        self.admin = self.ledger_of(ADMIN)
        self.ledgers = [self.ledger_of(account) for account in self.accounts]
        self.stranger = self.ledger_of(STRANGER)

    @classmethod
    def deployed(cls, chain: RunningChain, config: ContractConfig) -> Self:
        """A federation on a new contract."""
        return cls(chain, FederationLedger.deploy(Connection(chain.url, CHAIN_ID, account=ADMIN), config).address)

    def ledger_of(self, account: LocalAccount) -> FederationLedger:
        """The contract as an account sees it."""
        return FederationLedger(Connection(self.chain.url, CHAIN_ID, account=account), self._address)

    # ---- steps

    def pass_deadline(self) -> None:
        """Let the present deadline pass, whatever it is."""
        self.chain.clock.advance(WINDOW_S + 2)

    def register(self) -> None:
        """Whitelist and register everybody, in the order of their numbers."""
        self.admin.whitelist([a.address for a in self.accounts], self.weights)
        for i, ledger in enumerate(self.ledgers):
            ledger.register(digest("sealing", i), onion(i)[-1])

    def start(self, *, rounds: int = 2, threshold: int = 0, screened: bool = False) -> None:
        """Start a task."""
        self.admin.start_task(
            run_digest=digest("run"), initial_model=digest("model"), security_params=digest("params"),
            threshold=threshold, rounds=rounds, screened=screened,
        )  # fmt: skip

    def ceremony(self) -> None:
        """Every committee member takes every step."""
        for step in (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH, EpochPhase.CONFIRM):
            self.take(step)

    def reveal(self) -> None:
        """Everybody commits and reveals: from now on somebody can prove a fault."""
        self.take(EpochPhase.COMMIT)
        self.take(EpochPhase.REVEAL)

    def take(self, step: EpochPhase, *members: int, key: str = "key") -> None:
        """One step of the ceremony by some members (the committee if none is named)."""
        epoch = self.view().epoch.epoch
        send = {
            EpochPhase.COMMIT: FederationLedger.commit_seeds,
            EpochPhase.REVEAL: FederationLedger.reveal_seeds,
            EpochPhase.PUBLISH: FederationLedger.publish_key_parts,
            EpochPhase.CONFIRM: FederationLedger.confirm_key,
        }[step]
        for i in members or self.committee():
            send(self.ledgers[i], epoch, digest(key, epoch) if step is EpochPhase.CONFIRM else digest(step.name, epoch, i))

    def commit(self, *members: int) -> None:
        """These members commit (everybody if none is named)."""
        number = self.view().round.number
        for i in members or range(len(self.weights)):
            self.ledgers[i].commit_update(number, digest("update", number, i), 1000 + i, self.weights[i], self.round().base)

    def reveal_layers(self, *members: int) -> None:
        """These members reveal their layers before they vote (everybody that committed, if none is named)."""
        r = self.view().round
        for i in members or members_in(r.committed):
            self.ledgers[i].reveal(r.number, self.layer(i))

    def sketch(self, *members: int, quorum: int | None = None) -> None:
        """These members name their parts of the sketches' openings for a quorum (themselves)."""
        number, mask = self.view().round.number, mask_of(members) if quorum is None else quorum
        for i in members:
            self.ledgers[i].release_sketch(number, mask, digest("sketch", number, i, mask))

    def aggregate(self, name: str = "aggregate", included: int | None = None, reasons: bytes = b"", split: int = 0) -> None:
        """The coordinator submits an aggregate of all committed updates (or of a mask), with two halves if `split` is one."""
        r = self.view().round
        mask = r.committed if included is None else included
        self.coordinator().submit_aggregate(
            r.number, digest(name, r.number), 5000, mask, split, bytes([1]) * mask.bit_count(), reasons
        )  # fmt: skip

    def attest(self, members: Sequence[int] | None = None, *, ok: bool = True) -> None:
        """These members vote on the present aggregate, in this order (all that committed), with their next layer."""
        r = self.view().round
        for i in members_in(r.committed) if members is None else members:
            self.ledgers[i].attest(r.number, r.aggregate, ok, NO_LAYER if r.revealed >> i & 1 else self.layer(i))

    def layer(self, i: int) -> bytes:
        """The layer under member i's present anchor."""
        layers = onion(i)
        return layers[layers.index(self.member(i).onion_anchor) - 1]

    def release(self, *members: int, quorum: int | None = None) -> None:
        """These members release their shares for a quorum (themselves)."""
        number, mask = self.view().round.number, mask_of(members) if quorum is None else quorum
        for i in members:
            self.ledgers[i].release_share(number, mask, digest("share", number, i, mask), self.view().round.aggregate)

    def open(self) -> None:
        """The first possible quorum of the committee releases its shares."""
        self.release(*self.committee()[: self.view().epoch.threshold])

    def confirm(self, *members: int, model: str = "model after", outcome: RoundOutcome = RoundOutcome.WHOLE) -> None:
        """These members confirm what the open quorum's shares lead to (everybody that committed, if none is named)."""
        r = self.view().round
        for i in members or members_in(r.committed):
            self.ledgers[i].confirm_opening(r.number, r.open_quorum, digest(model, r.number), outcome)

    def verified_round(self) -> None:
        """Everybody commits to the open round and attests its aggregate."""
        self.commit()
        self.aggregate()
        self.attest()

    def opened_round(self) -> None:
        """As `verified_round`; the first possible quorum's shares are released, too."""
        self.verified_round()
        self.open()

    def whole_round(self) -> None:
        """Commit, aggregate, attest, open, confirm and finalise the open round."""
        self.opened_round()
        self.confirm()
        self.admin.finalize(self.view().round.number)

    def accuse(self, accuser: int, culprit: int, evidence: bytes = NO_EVIDENCE) -> None:
        """One member accuses another, in the newest epoch."""
        epoch = self.view().epoch.epoch
        self.ledgers[accuser].accuse(epoch, self.accounts[culprit].address, evidence, "bad share")

    # ---- reading

    def view(self) -> LedgerView:
        """The ledger as the administrator reads it."""
        return self.admin.view()

    def round(self) -> RoundRecord:
        """The newest round."""
        return self.view().round

    def phase(self) -> RoundPhase:
        """Phase of the newest round."""
        return self.view().round.phase

    def member(self, i: int) -> Member:
        """Member i on the ledger."""
        return self.admin.members()[i]

    def coordinator(self) -> FederationLedger:
        """The contract as the present coordinator sees it."""
        return self.ledgers[self.view().round.coordinator]

    def committee(self) -> tuple[int, ...]:
        """Members of the newest epoch's committee, ascending."""
        return members_in(self.view().epoch.committee)

    def others(self, *members: int) -> tuple[int, ...]:
        """Everybody else, ascending."""
        return tuple(i for i in range(len(self.weights)) if i not in members)


class SixSites(Sites):
    """One member more: the fewest whose aggregate may have two halves."""

    weights = (*WEIGHTS, 40)

    def split_round(self, split: int = 0b111000) -> None:
        """Everybody commits; the aggregate has two halves, all attest it, and the first possible quorum opens it."""
        self.commit()
        self.aggregate(split=split)
        self.attest()
        self.open()

    def cast(self, *members: int, choice: int = 1) -> None:
        """These members cast ballots (everybody, if none is named)."""
        number = self.round().number
        for i in members or range(len(self.weights)):
            sealed = ballot_commitment(number, self.accounts[i].address, choice, digest("salt", i))
            self.ledgers[i].cast_ballot(number, sealed)

    def show(self, *members: int, choice: int = 1) -> None:
        """These members show their ballots (everybody, if none is named)."""
        for i in members or range(len(self.weights)):
            self.ledgers[i].reveal_ballot(self.round().number, choice, digest("salt", i))

    def counted_round(self, choice: int = 1) -> None:
        """As `split_round`; all have voted on the halves."""
        self.split_round()
        self.cast(choice=choice)
        self.show(choice=choice)


def at_once(members: Iterable[int], action: Callable[[int], _T]) -> list[_T]:
    """Do something for several members at the same time, as sites do."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(action, members))
