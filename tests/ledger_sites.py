"""A federation of bare ledger accounts on a real node: real contract, real transactions, made-up digests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.records import EpochPhase, LedgerView, RoundPhase, RoundRecord, mask_of, members_in

CHAIN_ID = 20260
ADMIN: LocalAccount = Account.from_key(keccak(text="driver"))
CONFIG = ContractConfig(
    commit_window_s=600, aggregate_window_s=600, verify_window_s=600, open_grace_s=600, ceremony_window_s=600,
    min_commits=3, committee_max=4,
)  # fmt: skip
WEIGHTS = (100, 50, 70, 30, 20, 60, 10, 40)
_LAYERS = 64
_T = TypeVar("_T")


def digest(*what: object) -> bytes:
    """A digest that is different for everything."""
    return keccak(text=" ".join(map(str, what)))


class Onion:
    """A member's hash onion; `reveal` peels it as Identity does."""

    def __init__(self, seed: bytes) -> None:
        layers = [seed]
        for _ in range(_LAYERS):
            layers.append(keccak(layers[-1]))
        self.tip = layers[-1]
        self._inner = dict(zip(layers[1:], layers[:-1], strict=True))

    def reveal(self, anchor: bytes) -> bytes:
        """The preimage of an anchor."""
        return self._inner[anchor]


class Sites:
    """`n` members of a fresh contract, registered and with an open task whose ceremony is still to come."""

    def __init__(self, url: str, n: int = 4, config: ContractConfig = CONFIG) -> None:
        self.url, self.n = url, n
        self.admin = FederationLedger.deploy(Connection(url, CHAIN_ID, account=ADMIN), config)
        self.accounts = [Account.from_key(digest("account", self.admin.address, i)) for i in range(n)]
        self.onions = [Onion(digest("onion", i)) for i in range(n)]
        self.ledgers = [self.ledger_of(account) for account in self.accounts]

    def ledger_of(self, account: LocalAccount) -> FederationLedger:
        """The contract as another account sees it."""
        return FederationLedger.attach(Connection(self.url, CHAIN_ID, account=account), self.admin.address)

    # ---- steps

    def register(self) -> None:
        """Whitelist and register everybody, in the order of their numbers."""
        self.admin.whitelist([a.address for a in self.accounts], WEIGHTS[: self.n])
        for i, ledger in enumerate(self.ledgers):
            ledger.register(digest("sealing", i), self.onions[i].tip)

    def start(self, *, rounds: int = 2, threshold: int = 0) -> None:
        """Start a task."""
        self.admin.start_task(
            run_digest=digest("run"), initial_model=digest("model"), security_params=digest("params"),
            threshold=threshold, rounds=rounds,
        )  # fmt: skip

    def ceremony(self) -> None:
        """Every committee member takes every step."""
        epoch = self.view().epoch.epoch
        for step in (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH):
            self.take(step)
        self.each(self.committee(), lambda i: self.ledgers[i].confirm_key(epoch, digest("key", epoch)))

    def take(self, step: EpochPhase, members: Iterable[int] | None = None) -> None:
        """One step of the ceremony by some members (all of the committee)."""
        epoch = self.view().epoch.epoch
        send = {
            EpochPhase.COMMIT: FederationLedger.commit_seeds,
            EpochPhase.REVEAL: FederationLedger.reveal_seeds,
            EpochPhase.PUBLISH: FederationLedger.publish_key_parts,
        }[step]
        self.each(self.committee() if members is None else members, lambda i: send(self.ledgers[i], epoch, digest(step.name, i)))

    def commit(self, *members: int) -> None:
        """These members commit (everybody if none is named)."""
        number = self.view().round.number
        self.each(members or range(self.n), lambda i: self.commit_one(i, number))

    def commit_one(self, i: int, number: int) -> None:
        """Member i commits its update of a round."""
        self.ledgers[i].commit_update(number, digest("update", number, i), 1000 + i, WEIGHTS[i], digest("base", number))

    def aggregate(self, name: str = "aggregate", included: int | None = None, reasons: bytes = b"") -> None:
        """The coordinator submits an aggregate of everybody (or of a mask)."""
        r = self.view().round
        mask = r.committed if included is None else included
        weights = bytes([1]) * mask.bit_count()
        self.ledgers[r.coordinator].submit_aggregate(r.number, digest(name, r.number), 5000, mask, weights, reasons)

    def attest(self, members: Sequence[int] | None = None, *, ok: bool = True) -> None:
        """These members vote on the present aggregate, in this order (all that committed)."""
        r = self.view().round
        for i in members_in(r.committed) if members is None else members:
            self.attest_one(i, r, ok=ok)

    def attest_one(self, i: int, r: RoundRecord, *, ok: bool = True) -> None:
        """Member i votes and reveals its next layer."""
        anchor = self.admin.members()[i].onion_anchor
        layer = bytes(32) if self.view().round.revealed >> i & 1 else self.onions[i].reveal(anchor)
        self.ledgers[i].attest(r.number, r.aggregate, ok, layer)

    def release(self, *members: int) -> None:
        """These members are a quorum and release their shares."""
        number, quorum = self.view().round.number, mask_of(members)
        self.each(members, lambda i: self.ledgers[i].release_share(number, quorum, digest("share", number, i, quorum)))

    def whole_round(self) -> None:
        """Commit, aggregate, attest, open and finalise the open round."""
        self.commit()
        self.aggregate()
        self.attest()
        epoch = self.view().epoch
        self.release(*members_in(epoch.committee)[: epoch.threshold])
        self.admin.finalize(self.view().round.number)

    # ---- reading

    def view(self) -> LedgerView:
        """The ledger as the administrator reads it."""
        return self.admin.view()

    def committee(self) -> tuple[int, ...]:
        """Members of the newest epoch's committee."""
        return members_in(self.view().epoch.committee)

    def phase(self) -> RoundPhase:
        """Phase of the newest round."""
        return self.view().round.phase

    def others(self, *members: int) -> tuple[int, ...]:
        """Everybody else."""
        return tuple(i for i in range(self.n) if i not in members)

    def each(self, members: Iterable[int], action: Callable[[int], _T]) -> list[_T]:
        """Do something for several members at the same time, as sites do."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(action, members))
