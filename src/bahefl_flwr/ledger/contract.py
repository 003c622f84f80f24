"""The typed client of contracts/FederationLedger.sol: one method per transaction, one per view.

What the contract checks is written there; this module checks only that it talks to that very contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Self, TypeVar

from web3 import Web3
from web3.contract import Contract

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.connection import Connection, Receipt
from bahefl_flwr.ledger.deployment import artifact, check_deployed
from bahefl_flwr.ledger.readings import (
    accusation_of,
    ballot_of,
    ceremony_of,
    epoch_of,
    member_of,
    named,
    round_of,
    share_of,
    task_of,
    update_of,
    view_of,
)
from bahefl_flwr.records import (
    AccusationRecord,
    BallotRecord,
    CeremonyRecord,
    EpochPhase,
    EpochRecord,
    LedgerView,
    Member,
    MemberStatus,
    RoundOutcome,
    RoundRecord,
    ShareRecord,
    Task,
    UpdateRecord,
)

MAX_REASON_BYTES = 200
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractConfig:
    """What the contract is deployed with.

    Attributes:
      commit_window_s: chain seconds for training and committing, 1 s to a year, as all windows.
      aggregate_window_s: for one coordinator's aggregate.
      verify_window_s: for a majority of attestations, again for decryption shares, and again to confirm what they open.
      open_grace_s: for late attestations and confirmations, once a majority confirmed one model; 0 to a year.
      ceremony_window_s: for each step of a ceremony, and for a dispute.
      min_commits: fewest updates in an aggregate, at least 2. quorum_bps: votes that settle a verification, 5001..10000.
      max_attempts: coordinators tried per round; failed key ceremonies in a row, without an exclusion, that end the task.
      cooldown_rounds: rounds a coordinator sits out.
      committee_max: most members of a key committee, 2..10.
      epoch_rounds: finalised rounds after which new keys are made; 0 = only when members change or `renew_keys` asks for it.
    """

    commit_window_s: int = 600
    aggregate_window_s: int = 120
    verify_window_s: int = 120
    open_grace_s: int = 20
    ceremony_window_s: int = 120
    min_commits: int = 3
    quorum_bps: int = 5001
    max_attempts: int = 3
    cooldown_rounds: int = 2
    committee_max: int = 7
    epoch_rounds: int = 0

    def as_tuple(self) -> tuple[int, ...]:
        """In the order of the contract's `Config`."""
        return astuple(self)


class FederationLedger:
    """A deployed FederationLedger, seen by one account.

    Every transaction method raises TransactionReverted if the contract refuses it (`reason` is the custom error's name),
    LedgerUnreachable if the chain does not answer or makes no blocks, and returns once the transaction is in a block.

    Attributes:
      address: the contract's checksummed address. chain_id: EIP-155 id of its chain.
    """

    def __init__(self, connection: Connection, address: str) -> None:
        self._connection = connection
        self.address = Web3.to_checksum_address(address)
        self.chain_id = connection.chain_id
        self._contract: Contract = connection.web3.eth.contract(address=self.address, abi=artifact()["abi"])
        self._outputs = {e["name"]: e["outputs"] for e in artifact()["abi"] if e["type"] == "function"}

    def __repr__(self) -> str:
        return f"<FederationLedger {self.address} chain={self.chain_id}>"

    @classmethod
    def deploy(cls, connection: Connection, config: ContractConfig) -> Self:
        """Put a new contract on the chain; the connection's account becomes administrator and registrar.

        Raises:
          LedgerError: another chain, or the settings are out of range. LedgerUnreachable: no answer.
        """
        connection.check()
        factory = connection.web3.eth.contract(abi=artifact()["abi"], bytecode=artifact()["bytecode"])
        return cls(connection, connection.deploy(factory.constructor(connection.account.address, config.as_tuple())))

    @classmethod
    def attach(cls, connection: Connection, address: str) -> Self:
        """The contract at `address`, if its code and that of its parts are byte for byte those this package ships.

        Raises:
          LedgerError: another chain, no contract there, or another one. LedgerUnreachable: no answer.
        """
        connection.check()
        if not Web3.is_address(address):
            raise LedgerError(f"{address!r} is no contract address; check ledger.contract")
        check_deployed(connection, address)
        return cls(connection, address)

    # ---- reading

    def config(self) -> ContractConfig:
        """What the contract was deployed with, or last set to between tasks."""
        return ContractConfig(**dict(zip(ContractConfig.__dataclass_fields__, self._read("config").values(), strict=True)))

    def view(self) -> LedgerView:
        """One consistent reading of everything that decides what comes next, in one call, as of a transaction sent now."""
        return view_of(self._read("snapshot"))

    def members(self) -> tuple[Member, ...]:
        """Every registered member, by index."""
        return self._list("getMembers", member_of)

    def member(self, address: str) -> Member | None:
        """The registered member of an address; None if it is not registered."""
        checksummed = Web3.to_checksum_address(address)
        return next((m for m in self.members() if m.address == checksummed), None)

    def invited(self) -> dict[str, int]:
        """Accounts that are whitelisted and have not registered yet, with the cap on their weight; it reads the ledger's past."""
        from bahefl_flwr.ledger.history import History

        members = {m.address for m in self.members()}
        events = History(self._connection, self.address).events(name="Whitelisted")
        whitelisted = dict.fromkeys(e.values["member"] for e in events)
        return {a: int(cap) for a in whitelisted if a not in members and (cap := self._call("allowance", a))}

    def status(self, address: str) -> MemberStatus:
        """Standing of an address, also of one that is not registered."""
        return self.standings([address])[address]

    def standings(self, addresses: Iterable[str]) -> dict[str, MemberStatus]:
        """Standing of each address, as `status`; the members are read once."""
        members = {m.address: m.status for m in self.members()}
        named = {a: Web3.to_checksum_address(a) for a in addresses}
        invited = {a for a, c in named.items() if c not in members and self._call("allowance", c)}
        return {a: MemberStatus.WHITELISTED if a in invited else members.get(c, MemberStatus.NONE) for a, c in named.items()}

    def task(self, number: int) -> Task:
        """A task, also an earlier one; `number` 0 in the result where there was none."""
        return task_of(self._read("getTask", number))

    def epoch(self, number: int) -> EpochRecord:
        """A key epoch."""
        return epoch_of(self._read("getEpoch", number))

    def ceremony(self, epoch: int) -> tuple[CeremonyRecord, ...]:
        """What each committee member put on the ledger in an epoch's ceremony, by ascending member index."""
        return self._list("getCeremony", ceremony_of, epoch)

    def accusations(self, epoch: int) -> tuple[AccusationRecord, ...]:
        """Who accused whom in an epoch, in order."""
        return self._list("getAccusations", accusation_of, epoch)

    def round(self, number: int) -> RoundRecord:
        """A round; phase NONE if there was none of that number."""
        return round_of(self._read("getRound", number))

    def finalized_before(self, number: int) -> int:
        """The finalised round that round `number` builds on, 0 for the task's initial model."""
        return int(self._read("getRound", number)["parentRound"])

    def updates(self, number: int) -> tuple[UpdateRecord, ...]:
        """The committed updates of a round, by ascending member index."""
        return self._list("getUpdates", update_of, number)

    def shares(self, number: int) -> tuple[ShareRecord, ...]:
        """The decryption shares released in a round, quorum by quorum, those of one quorum by ascending member index."""
        return self._list("getShares", share_of, number)

    def former_shares(self, r: RoundRecord) -> tuple[ShareRecord, ...]:
        """The decryption shares of all aggregates of a round, newest first: the contract's views show only those of the last."""
        # It loads py-evm, and few rounds need it.
        from bahefl_flwr.ledger.history import History

        index = {m.address: m.index for m in self.members()}
        events = History(self._connection, self.address).events(since=r.opened_at, name="ShareReleased")
        released = [e.values for e in events if e.values["round"] == r.number]
        return tuple(ShareRecord(member=index[v["member"]], quorum=v["quorum"], digest=v["digest"]) for v in reversed(released))

    def sketches(self, number: int) -> tuple[ShareRecord, ...]:
        """The parts of the openings of a round's sketches, likewise; after a spoiled aggregate, of those asked for since."""
        return self._list("getSketches", share_of, number)

    def ballots(self, number: int) -> tuple[BallotRecord, ...]:
        """The ballots cast on the two halves of a round's aggregate, by ascending member index."""
        return self._list("getBallots", ballot_of, number)

    # ---- administration

    def whitelist(self, addresses: Sequence[str], max_weights: Sequence[int]) -> Receipt:
        """Registrar: allow accounts to register, each with a cap on its weight (1..2**32-1)."""
        return self._send("whitelist", [Web3.to_checksum_address(a) for a in addresses], list(max_weights))

    def suspend(self, address: str, reason: str) -> Receipt:
        """Registrar: take a member out of everything to come."""
        return self._send("suspend", Web3.to_checksum_address(address), _reason(reason))

    def reinstate(self, address: str) -> Receipt:
        """Registrar: let a suspended member back in, from the next round on."""
        return self._send("reinstate", Web3.to_checksum_address(address))

    def set_config(self, config: ContractConfig) -> Receipt:
        """Administrator, between tasks: change the settings."""
        return self._send("setConfig", config.as_tuple())

    def start_task(
        self, *, run_digest: bytes, initial_model: bytes, security_params: bytes, threshold: int, rounds: int, screened: bool
    ) -> Receipt:
        """Administrator: start a run of `rounds` finalised rounds; its key ceremony opens at once.

        Args:
          run_digest: 32 bytes, as `initial_model` and `security_params`; see records.Task.
          threshold: key holders that open an aggregate; 0 = majority of the committee, 1 = the single-key experiment.
          screened: whether updates are judged by their sketches: no coordinator is at fault before these can be opened.
        """
        return self._send("startTask", run_digest, initial_model, security_params, threshold, rounds, screened)

    def end_task(self, reason: str) -> Receipt:
        """Administrator: stop the run; the open round is aborted with the reason. Not while sites may be opening it."""
        return self._send("endTask", _reason(reason))

    def select_sites(self, number: int, selected: int) -> Receipt:
        """Administrator: narrow the open round to the members of a mask, before anybody has answered."""
        return self._send("selectSites", number, selected)

    # ---- members

    def register(self, sealing_key: bytes, onion_anchor: bytes) -> Receipt:
        """Become a member: raw X25519 public key and tip of the hash onion, 32 bytes each."""
        return self._send("register", sealing_key, onion_anchor)

    def rotate_onion(self, anchor: bytes) -> Receipt:
        """Anchor a fresh hash onion; not while layers of the open round may be public."""
        return self._send("rotateOnion", anchor)

    # ---- key ceremony

    def commit_seeds(self, epoch: int, digest: bytes) -> Receipt:
        """Step 1: commit to one's seed contributions."""
        return self._send("act", epoch, int(EpochPhase.COMMIT), digest)

    def reveal_seeds(self, epoch: int, digest: bytes) -> Receipt:
        """Step 2: name the stored object with the seeds, sealed to their holders."""
        return self._send("act", epoch, int(EpochPhase.REVEAL), digest)

    def publish_key_parts(self, epoch: int, digest: bytes) -> Receipt:
        """Step 3: name the stored object with one's public key parts."""
        return self._send("act", epoch, int(EpochPhase.PUBLISH), digest)

    def confirm_key(self, epoch: int, key_digest: bytes) -> Receipt:
        """Step 4: confirm the collective key; the last equal confirmation opens the first round."""
        return self._send("act", epoch, int(EpochPhase.CONFIRM), key_digest)

    def expire_epoch(self, epoch: int) -> Receipt:
        """Anyone, after a step's deadline: start over without the members that did not act; after a dispute's: with all."""
        return self._send("expireEpoch", epoch)

    def accuse(self, epoch: int, culprit: str, evidence: bytes, reason: str) -> Receipt:
        """Committee member: accuse another; a majority of accusers excludes it for the rest of the task.

        In a ceremony this ends the epoch. While its key is in use, it strikes the quorum that opened the round with a share of
        the accused. A repeated accusation is refused (AlreadyActed) unless it strikes, or starts a DISPUTE.

        Args:
          evidence: digest of the stored object that gives up one's own key of this epoch to prove it, 32 zero bytes if none;
            with it a ceremony stops for a DISPUTE; refused before PUBLISH (WrongEpochPhase), when not all have revealed.
        """
        return self._send("accuse", epoch, Web3.to_checksum_address(culprit), evidence, _reason(reason))

    def renew_keys(self) -> Receipt:
        """Administrator: make new keys before the next round."""
        return self._send("renewKeys")

    # ---- rounds

    def commit_update(self, number: int, digest: bytes, size_bytes: int, weight: int, base: bytes) -> Receipt:
        """Selected site: commit to an encrypted update. `base`: the round's; otherwise as in records.UpdateRecord."""
        return self._send("commitUpdate", number, digest, size_bytes, weight, base)

    def decline(self, number: int, reason: str) -> Receipt:
        """Selected site: say that it takes no part in this round, so that nobody waits for it."""
        return self._send("decline", number, _reason(reason))

    def close_commits(self, number: int) -> Receipt:
        """Anyone, after the deadline: go on with the commits there are."""
        return self._send("closeCommits", number)

    def reveal(self, number: int, layer: bytes) -> Receipt:
        """Committed site, once commits have closed: reveal its next onion layer before its vote, for the screening's seed."""
        return self._send("reveal", number, layer)

    def draw_seed(self, number: int) -> Receipt:
        """Anyone, once a majority has revealed: fix the seed. By itself it is fixed once all active committed sites have."""
        return self._send("drawSeed", number)

    def release_sketch(self, number: int, quorum: int, digest: bytes) -> Receipt:
        """Key holder: name the stored object with its part of the openings of all sketches, made for one quorum (a mask)."""
        return self._send("releaseSketch", number, quorum, digest)

    def submit_aggregate(
        self, number: int, digest: bytes, size_bytes: int, included: int, split: int, weights: bytes, reasons: bytes
    ) -> Receipt:
        """Coordinator: name the aggregate. `included`, `split`, `weights` and `reasons` as in records.RoundRecord."""
        return self._send("submitAggregate", number, digest, size_bytes, included, split, weights + reasons)

    def resign(self, number: int, reason: str) -> Receipt:
        """Coordinator: give up the office for this round; cheaper than silence."""
        return self._send("resign", number, _reason(reason))

    def replace_coordinator(self, number: int) -> Receipt:
        """Anyone, after the deadline: pass the office on to the next candidate."""
        return self._send("replaceCoordinator", number)

    def attest(self, number: int, digest: bytes, ok: bool, reveal: bytes) -> Receipt:
        """Committed site: whether it recomputed the aggregate to `digest`, and its next onion layer if that is not public yet."""
        return self._send("attest", number, digest, ok, reveal)

    def release_share(self, number: int, quorum: int, digest: bytes, aggregate: bytes) -> Receipt:
        """Key holder: name the stored object with its share of the decryption of `aggregate`, made for one quorum (a mask)."""
        return self._send("releaseShare", number, quorum, digest, aggregate)

    def cast_ballot(self, number: int, commitment: bytes) -> Receipt:
        """Committed site: vote on the two halves of the aggregate; `commitment` as `ballots.ballot_commitment` makes it."""
        return self._send("castBallot", number, commitment)

    def reveal_ballot(self, number: int, choice: int, salt: bytes) -> Receipt:
        """Once casting is over: show the ballot. `choice`: 0 both are good, 1 rather the first, 2 rather the second."""
        return self._send("revealBallot", number, choice, salt)

    def close_ballots(self, number: int) -> Receipt:
        """Anyone, after the deadline of either stage of the vote: go on without the missing ballots."""
        return self._send("closeBallots", number)

    def confirm_opening(self, number: int, quorum: int, digest: bytes, outcome: RoundOutcome) -> Receipt:
        """Committed site: the shares of `quorum` open the aggregate, and lead to this result.

        Args:
          digest: SHA-256 of the model after the round, the round's `base` with RoundOutcome.NONE; with
            RoundOutcome.SPOILED the digest of the list of places that are out of range.
        """
        return self._send("confirmOpening", number, quorum, digest, int(outcome))

    def finalize(self, number: int) -> Receipt:
        """Anyone, once a majority confirmed one model: settle the round and open the next one, or end the task."""
        return self._send("finalize", number)

    def abandon(self, number: int, reason: str) -> Receipt:
        """Anyone, once verified but with no model confirmed in time; the administrator before: give the round up."""
        return self._send("abandon", number, _reason(reason))

    # ---- internals

    def _call(self, name: str, *arguments: object) -> Any:
        return self._connection.call(self._contract.functions[name](*arguments))

    def _read(self, name: str, *arguments: object) -> Mapping[str, Any]:
        return named(self._outputs[name][0]["components"], self._call(name, *arguments))

    def _list(self, name: str, make: Callable[[Mapping[str, Any]], _T], *arguments: object) -> tuple[_T, ...]:
        components = self._outputs[name][0]["components"]
        return tuple(make(named(components, entry)) for entry in self._call(name, *arguments))

    def _send(self, name: str, *arguments: object) -> Receipt:
        return self._connection.send(self._contract.functions[name](*arguments))


def _reason(text: str) -> str:
    """A reason as the contract takes it: 1..200 bytes, cut between characters."""
    return text.encode()[:MAX_REASON_BYTES].decode(errors="ignore") or "no reason given"
