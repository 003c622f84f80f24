"""What a site has at hand while it answers one message, and what it checks before it acts.

Opening and checking only; the actions themselves are the other modules of this package.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from flwr.app import Context

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import ProtocolError, SettingsError, WrongEpoch, WrongRound
from bahefl_flwr.federation import contract_config
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.homes import SiteHome
from bahefl_flwr.identity import Identity
from bahefl_flwr.journal import Journal
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.records import EpochPhase, EpochRecord, LedgerView, Member, RoundPhase, RoundRecord, Task, members_in
from bahefl_flwr.settings import Scalar, Settings
from bahefl_flwr.site.place import place_of
from bahefl_flwr.store import Store
from bahefl_flwr.stores import open_store

JOURNAL_FILE = "journal"
SETTINGS_FILE = "settings.yaml"
"""In a site's own home: what it took part with, with its own data."""
# A few blocks' time. Bounded, since the hint comes from the driver.
_CATCH_UP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the driver asked, as read from its message. Believed only as far as the ledger says the same.

    Attributes:
      run: the task's run digest. number: round or key epoch. quorum: mask of the members asked for shares.
      last_try: the driver will not ask again; a site that cannot act should say so on the ledger.
      block: the driver's newest block that counts. Only a hint: a site whose own node is behind waits a little for it.
      evaluate: with training, whether to evaluate the newest model, too. evaluation: what the NumPyClient's evaluate is told.
    """

    run: bytes
    number: int
    quorum: int = 0
    last_try: bool = False
    block: int = 0
    evaluate: bool = True
    evaluation: Mapping[str, Scalar | bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What a site reports back: plain figures only, never anything secret or large."""

    metrics: dict[str, float | int] = field(default_factory=dict)
    evaluation: dict[str, float | int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, str | int] = field(default_factory=dict)
    gas: int = 0

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the wall seconds of the block to `seconds[phase]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One site, opened to answer one message. Everything secret in it is a type that does not print.

    Attributes:
      binding: its signature over the key of its SuperNode (`node_binding`); empty in a simulation.
      home: what its owner decides; None in a simulation.
    """

    folder: Path
    identity: Identity
    ledger: FederationLedger
    store: Store
    journal: Journal
    settings: Settings
    binding: bytes = b""
    home: SiteHome | None = None

    @property
    def address(self) -> str:
        """This site's checksummed Ethereum address."""
        return self.identity.address

    def me(self) -> Member:
        """This site's entry on the ledger.

        Raises:
          ProtocolError: the site is not registered.
        """
        member = self.ledger.member(self.address)
        if member is None:
            raise ProtocolError(f"{self.address} is not registered on the ledger; the registrar must whitelist it first")
        return member

    def addresses(self) -> dict[int, str]:
        """Checksummed address of every registered member, by index; one question to the ledger."""
        return {m.index: m.address for m in self.ledger.members()}

    def round_folder(self, number: int) -> Path:
        """Folder for this site's own objects of a round, created on first use."""
        path = self.folder / "rounds" / f"{number:05d}"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def epoch_folder(self, epoch: int) -> Path:
        """Folder for this site's keys of a key epoch, created on first use, mode 0700."""
        path = self.folder / "epochs" / f"{epoch:05d}"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


@contextmanager
def open_site(context: Context, settings: Settings, request: Request) -> Iterator[Site]:
    """Open the site that answers in this process, alone: a second process of the same site waits for the first.

    A site with a node of its own is often a block behind the driver: it waits a little for `request.block` rather than refuse
    what it will know in a moment.

    Raises:
      RunFailed: the driver has not created the run folder. LedgerError: the ledger is not there or not ours.
      SettingsError: the node does not say where its site lives, or the run asks for what this site does not take part in.
    """
    place = place_of(context, settings)
    connection = Connection(place.ledger.url, place.ledger.chain_id, account=place.identity.account, policy=place.policy)
    connection.catch_up(request.block, _CATCH_UP_S)
    ledger = FederationLedger.attach(connection, place.ledger.contract)
    task = ledger.view().task
    folder = place.folder(task, request.run)
    journal = Journal(folder / JOURNAL_FILE)
    if place.home and request.run == task.run_digest:
        keep_settings(folder, place.settings)
    with journal.lock(), open_store(place.store, place.base, place.identity) as store:
        yield Site(
            folder=folder,
            identity=place.identity,
            ledger=ledger,
            store=store,
            journal=journal,
            settings=settings,
            binding=place.binding,
            home=place.home,
        )


def keep_settings(folder: Path, settings: Settings) -> None:
    """Keep what the site first took part with beside its models: they cannot be used without, and no later message changes it."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        atomic_write(path, settings.yaml().encode())


def task_params(settings: Settings) -> SecurityParams:
    """The parameters a task starts with: its digest is on the ledger, and every site compares it with its own settings."""
    return _params(settings, settings.he.threshold or settings.committee_size // 2 + 1, settings.committee_size)


def security_params(settings: Settings, epoch: EpochRecord) -> SecurityParams:
    """The parameters of `epoch`: everything that can change a guarantee, with the ledger's committee and threshold.

    Every step that makes keys, encrypts or opens calls this.

    Raises:
      WrongEpoch: the epoch opens with fewer key holders than this site's own settings ask for.
    """
    wanted = task_params(settings).threshold
    if epoch.threshold < wanted:
        raise WrongEpoch(
            f"key epoch {epoch.epoch} opens with {epoch.threshold} of {epoch.committee.bit_count()} key holders, this site's "
            f"settings ask for {wanted}; nothing is encrypted or opened under it"
        )
    return _params(settings, epoch.threshold, epoch.committee.bit_count())


def _params(settings: Settings, threshold: int, committee: int) -> SecurityParams:
    return SecurityParams(
        update_range=settings.he.update_range,
        weight_bits=settings.he.weight_bits,
        threshold=threshold,
        committee=committee,
        sites=settings.federation.sites,
    )


def expect_task(site: Site, task: Task) -> None:
    """The task, and the contract it runs on, are what this site's own settings name.

    Raises:
      SettingsError: they differ; names each difference.
    """
    _refuse(site, task, [*_screened_otherwise(site, task), *_set_otherwise(site, task)])


def _refuse(site: Site, task: Task, differing: Sequence[str]) -> None:
    if differing:
        raise SettingsError(
            f"task {task.number} was started on contract {site.ledger.address} with other settings than this site has "
            f"({'; '.join(differing)}): agree on one set; this site takes no part until then"
        )


def _screened_otherwise(site: Site, task: Task) -> Iterator[str]:
    kind = site.settings.screening.kind
    if task.screened is (kind == "off"):
        yield f"its updates are {'' if task.screened else 'not '}screened, here screening.kind={kind}"


def _set_otherwise(site: Site, task: Task) -> Iterator[str]:
    own = task_params(site.settings).digest()
    if task.security_params != own:
        yield (
            f"its security parameters are {task.security_params.hex()[:16]}, here {own.hex()[:16]}: he.update_range, "
            "he.weight_bits, he.threshold, he.committee or federation.sites"
        )
    wanted, found = contract_config(site.settings), site.ledger.config()
    for name in (each.name for each in fields(ContractConfig)):
        if getattr(found, name) != getattr(wanted, name):
            yield f"{name} is {getattr(found, name)}, here {getattr(wanted, name)}"


def expect_run(site: Site, request: Request) -> LedgerView:
    """The ledger's present state, if the request is about its present task.

    Raises:
      WrongRound: the message is of another run.
      SettingsError: the task is screened and this site's settings have it off, or the other way round. Settings come with every
        message, so that one driver could start a task screened, and another have its sums opened unscreened.
    """
    view = site.ledger.view()
    if request.run != view.task.run_digest:
        raise WrongRound(f"message of run {request.run.hex()[:16]}, the ledger runs {view.task.run_digest.hex()[:16]}; ignored")
    _refuse(site, view.task, list(_screened_otherwise(site, view.task)))
    return view


def expect_epoch(site: Site, request: Request, phase: EpochPhase) -> LedgerView:
    """The ledger's present state, if the request is about its present key epoch and step.

    Raises:
      WrongRound: the message is of another run or epoch. ProtocolError: the epoch is at another step than the action belongs to.
    """
    view = site.ledger.view()
    epoch = view.epoch
    if (request.run, request.number) != (view.task.run_digest, epoch.epoch):
        raise WrongRound(f"message of key epoch {request.number}, the ledger is at epoch {epoch.epoch} of its own run; ignored")
    if epoch.phase is not phase:
        raise ProtocolError(f"epoch {epoch.epoch} is in phase {epoch.phase.name}, this action belongs to {phase.name}")
    return view


def expect_round(site: Site, request: Request, *phases: RoundPhase) -> tuple[LedgerView, RoundRecord]:
    """The ledger's open round, if the request is about it.

    Raises:
      WrongRound: the message is of another run or round (a replay, a late or a forged message).
      SettingsError: as `expect_run`.
      ProtocolError: the round is in another phase than the action belongs to.
    """
    view = expect_run(site, request)
    if request.number != view.round.number:
        raise WrongRound(f"message of round {request.number}, the ledger is at round {view.round.number}; ignored")
    if view.round.phase not in phases:
        allowed = " or ".join(p.name for p in phases)
        raise ProtocolError(f"round {view.round.number} is in phase {view.round.phase.name}, this action belongs to {allowed}")
    return view, view.round


def expect_quorum(site: Site, view: LedgerView, r: RoundRecord, quorum: int) -> None:
    """A mask of exactly as many key holders as it takes to open something, this site among them.

    Raises:
      ProtocolError: it is none.
    """
    committee = view.epoch.committee
    if quorum & ~committee or quorum.bit_count() != view.epoch.threshold or not quorum >> site.me().index & 1:
        raise ProtocolError(
            f"round {r.number}: sites {members_in(quorum)} are no quorum of {site.address} and committee {members_in(committee)}"
        )
