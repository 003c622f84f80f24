"""What must hold in every schedule: promises P1 to P4 (docs/protocol.md), checked from outside the code that is to keep them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bahefl_flwr.he.ckks import add
from bahefl_flwr.he.seal_format import PartKind, encode_part
from bahefl_flwr.records import ExclusionReason, ObjectKind, RoundPhase, RoundRecord, members_in
from bahefl_flwr.store.manifest import Manifest, part_ref
from simulated.crypto import toy_params
from simulated.ledger import ZERO, Chain
from simulated.store import Shelf, intact

PATIENCE_S = 20
"""How long a state may last past its deadline while a driver runs: a wait for replies under way, refusals, a hung answer."""

_UNREADABLE = (ExclusionReason.MISSING, ExclusionReason.CORRUPT, ExclusionReason.MALFORMED)


class PromiseBroken(BaseException):
    """What was promised, and what happened. No Exception: nothing under test is to catch it."""


class Promises:
    """Watches the ledger, the store and the sites' own steps.

    Attributes:
      computed: digests of the aggregates that each site added up itself.
      ciphertexts: every update that was ever encrypted, by the digest of its first part; made: their number by site and round.
    """

    def __init__(self, chain: Chain, shelf: Shelf, honest: Iterable[int], settings: object) -> None:
        self._chain, self._shelf, self._honest, self._settings = chain, shelf, frozenset(honest), settings
        self.computed: dict[int, set[bytes]] = {}
        self.ciphertexts: dict[bytes, np.ndarray] = {}
        self._finalized: list[int] = []
        self._votes: set[tuple[int, int, int]] = set()
        self._shares: set[tuple[int, int, int, int]] = set()
        self._helped: dict[tuple[int, int], set[bytes]] = {}
        self._late: set[tuple[int, int]] = set()
        self._driver_since = 0.0
        chain.on_change.append(self.ledger_changed)

    # ---- P1, P2, P4 on the ledger

    def ledger_changed(self) -> None:
        """After every transaction."""
        self._history_grows()
        number = self._chain.model.round.number
        if number:
            r = self._chain.round(number)
            self._note_late(r)
            self._votes_are_right(r)
            self._shares_are_of_checked_sums(r)

    def _history_grows(self) -> None:
        now = self._chain.finalized
        _hold(now[: len(self._finalized)] == self._finalized, f"P1: finalised were {self._finalized}, now {now}")
        for number in now[len(self._finalized) :]:
            r, results = self._chain.round(number), self._chain.rounds[number].results
            agreed = sum(1 for model, _ in results.values() if model in (r.opened, self._chain.rounds[number].opened))
            _hold(
                2 * agreed > r.committed.bit_count(),
                f"P1: round {number} was finalised though {agreed} of {r.committed.bit_count()} confirmed its model",
            )
        self._finalized = list(now)

    def _votes_are_right(self, r: RoundRecord) -> None:
        for i in members_in(r.voted_ok):
            if (r.number, r.attempt, i) in self._votes or i not in self._honest:
                continue
            self._votes.add((r.number, r.attempt, i))
            wrong = self._wrong_sum(r) or self._wrongly_left_out(r)
            _hold(not wrong, f"P2: site {i} attests the aggregate of attempt {r.attempt} in round {r.number}, but {wrong}")

    def _shares_are_of_checked_sums(self, r: RoundRecord) -> None:
        for share in self._chain.shares(r.number):
            key = r.number, r.attempt, share.member, share.quorum
            if key in self._shares or share.member not in self._honest:
                continue
            self._shares.add(key)
            own = self.computed.get(share.member, ())
            _hold(r.aggregate in own, f"P2: site {share.member} releases a share of a sum that it never computed")
            wrong = self._wrong_sum(r)
            _hold(not wrong, f"P2: site {share.member} releases a share in round {r.number}, but {wrong}")
            opened = self._helped.setdefault((r.number, share.member), set())
            opened.add(r.aggregate)
            spoils = self._chain.rounds[r.number].spoils
            _hold(
                len(opened) <= 1 + spoils,
                f"P2: site {share.member} helps to open {len(opened)} aggregates of round {r.number}, {spoils} of them spoiled",
            )

    def _wrong_sum(self, r: RoundRecord) -> str:
        """Why the aggregate is not the sum that the ledger says it is; empty if it is."""
        manifest = self._shelf.manifests.get(r.aggregate)
        if manifest is None:
            return "nobody ever stored such an aggregate"
        epoch = self._chain.epoch(r.epoch)
        params = toy_params(self._settings, epoch.threshold, epoch.committee.bit_count())  # type: ignore[arg-type]
        weights = dict(zip(members_in(r.included), r.weights, strict=True))
        for half, ref in zip([h for h in (r.included & ~r.split, r.split) if h], manifest.parts, strict=False):
            sums = add((self._ciphertext(r.number, m) for m in members_in(half)), [weights[m] for m in members_in(half)], params)
            if part_ref(encode_part(sums, PartKind.CIPHERTEXT, params)) != ref:
                return f"it is not the sum of the updates of sites {members_in(half)}"
        return ""

    def _note_late(self, r: RoundRecord) -> None:
        """Whose update is not there while key holders answer about sketches: out, even if it comes later (docs/screening.md)."""
        if r.phase is RoundPhase.AGGREGATE and r.screen_seed != ZERO:
            self._late |= {(r.number, m) for m in members_in(r.committed) if not self._is_there(r, m)}

    def _is_there(self, r: RoundRecord, member: int) -> bool:
        return intact(self._shelf, self._chain.named[r.number].updates[member].digest)

    def _wrongly_left_out(self, r: RoundRecord) -> str:
        for m, reason in zip(members_in(r.committed & ~r.included), r.reasons, strict=True):
            in_time = m in self._honest and self._is_there(r, m) and (r.number, m) not in self._late
            if in_time and reason in _UNREADABLE:
                return f"it leaves out site {m} as {ExclusionReason(reason).name.lower()}, whose update is there"
        return ""

    def _ciphertext(self, number: int, member: int) -> np.ndarray:
        manifest = self._shelf.manifests[self._chain.named[number].updates[member].digest]
        return self.ciphertexts[manifest.parts[0].digest]

    # ---- P3, and what may be read when (rule 2)

    def encrypting(self, site: int, number: int) -> None:
        """A site is about to encrypt an update."""
        named = self._chain.named[number].updates
        _hold(site not in named, f"P3: site {site} makes a second ciphertext in round {number}, after committing to one")

    def encrypted(self, ciphertext: np.ndarray, part: bytes) -> None:
        """It did."""
        self.ciphertexts[part_ref(part).digest] = ciphertext

    def put(self, manifest: Manifest) -> None:
        """Somebody puts an object."""
        site = self._member(manifest.site)
        if site not in self._honest or manifest.round == 0:
            return
        named, r = self._chain.named[manifest.round], self._chain.rounds[manifest.round]
        what = f"the {manifest.kind.value} of site {site} in round {manifest.round}"
        if manifest.kind is ObjectKind.UPDATE:
            mine = named.updates.get(site)
            _hold(mine and mine.digest == manifest.digest, f"P3: {what} becomes readable, but the ledger names another or none")
            _hold(r.phase is not RoundPhase.COMMIT, f"P3: {what} becomes readable before commits have closed")
        if manifest.kind is ObjectKind.SHARE:
            _hold(manifest.digest in named.shares.values(), f"P2: {what} becomes readable before the ledger names it")

    def _member(self, address: str) -> int:
        return self._chain.addresses.index(address) if address in self._chain.addresses else -1

    # ---- P4

    def driver_starts(self) -> None:
        """From now on somebody moves the ledger on."""
        self._driver_since = self._chain.clock.now

    def time_passes(self) -> None:
        """No state outlasts its deadline."""
        model = self._chain.model
        if not model.task.open:
            return
        deadline = model.epoch_deadline if model._in_ceremony() else model.round_deadline
        overdue = self._chain.clock.now - max(deadline, self._driver_since)
        what = f"epoch {model.epoch.number} in {model.epoch.phase.name}, round {model.round.number} in {model.round.phase.name}"
        _hold(overdue < PATIENCE_S, f"P4: {overdue:.0f} s after its deadline the ledger is still at {what}")

    def ended(self, quiet_from: float) -> None:
        """The task is over. Once nothing goes wrong any more, every round that is opened is finalised."""
        _hold(not self._chain.model.task.open, "P4: the driver stopped while the task is open")
        for number, r in self._chain.rounds.items():
            _hold(
                r.phase is RoundPhase.FINALIZED or (r.phase is RoundPhase.ABORTED and r.abort_reason),
                f"P4: round {number} was left in {r.phase.name}, for reason {r.abort_reason!r}",
            )
            quiet = self._chain.named[number].opened_at > quiet_from
            # The driver ends a task after three abandoned rounds, of which each is looked at by itself.
            expected = quiet and self._can_be_opened(number) and r.abort_reason != "ended"
            _hold(not expected or r.phase is RoundPhase.FINALIZED, f"P4: round {number} failed without a fault: {r.abort_reason}")

    def _can_be_opened(self, number: int) -> bool:
        """Whether its keys have a quorum of honest holders: as many as open it, whoever else refuses or lies."""
        epoch = self._chain.epoch(self._chain.named[number].epoch)
        honest = sum(1 for m in members_in(epoch.committee) if m in self._honest)
        return honest >= epoch.threshold

    def models(self, found: dict[int, str], *, all_of_them: bool) -> None:
        """What the sites open after the run: the model of the last finalised round, all of them or at least one."""
        if not self._finalized:
            return
        opened = self._chain.round(self._finalized[-1]).opened.hex()
        wrong = {i: model[:12] or "none" for i, model in found.items() if i in self._honest and model != opened}
        differing = {i: model for i, model in wrong.items() if model != "none"}
        _hold(not differing, f"P1: round {self._finalized[-1]} led to model {opened[:12]}, but sites open {differing}")
        enough = not wrong if all_of_them else len(wrong) < len(self._honest)
        _hold(enough, f"P1: the model after round {self._finalized[-1]} is lost to sites {sorted(wrong)}")

    def reported(self, numbers: list[int]) -> None:
        """What all drivers together told of, one continuing where the other's record ends: every round once, in order."""
        last = max((n for n, r in self._chain.rounds.items() if r.phase not in (RoundPhase.COMMIT, RoundPhase.NONE)), default=0)
        expected = list(range(1, last + 1))
        _hold(numbers == expected, f"P1: rounds {expected} ended, the drivers told of {numbers}")


def _hold(condition: object, otherwise: str) -> None:
    if not condition:
        raise PromiseBroken(otherwise)


__all__ = ["PATIENCE_S", "ZERO", "PromiseBroken", "Promises"]
