"""The driver's own side of a run: its ledger account, the ledger node of a simulation, and where sites find both.

The driver's account may whitelist and start tasks; it holds no key material of the encryption and no model.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import LedgerError, SettingsError
from bahefl_flwr.homes import IDENTITY_FOLDER, AdministratorHome, load_administrator, protection
from bahefl_flwr.identity import Identity
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.ledger.node import NodeProcess
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.run_folder import CONFIG_FILE, LEDGER_DATABASE, LEDGER_FILE, RunFolder
from bahefl_flwr.settings import Settings, from_yaml

_DRIVER = "driver"

_log = logging.getLogger("bahefl_flwr.driver")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerAddress:
    """Where the ledger is: JSON-RPC `url`, chain id, and the contract's checksummed address."""

    url: str
    chain_id: int
    contract: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A running federation as the driver sees it."""

    settings: Settings
    folder: Path
    ledger: FederationLedger

    def run_digest(self, task: int) -> bytes:
        """32 bytes that name this run as a task in every manifest: the shared settings, on this contract, in this folder."""
        return _run_digest(self.settings, self.ledger, task, self.folder)


@contextmanager
def open_federation(settings: Settings, folder: Path) -> Iterator[Federation]:
    """Start (or continue) the run's ledger node, deploy (or find) the contract, tell the sites where, stop at the end.

    Args:
      folder: the run folder; holds the embedded chain's database, so the audit trail outlives the run.

    Raises:
      LedgerError: the node does not start or answer, or the contract is not ours.
    """
    driver = _administrator(settings, folder, create=True)
    with ExitStack() as stack:
        url = settings.ledger.url
        if settings.ledger.kind == "embedded":
            node = NodeProcess(folder / LEDGER_DATABASE, chain_id=settings.ledger.chain_id)
            url = stack.enter_context(node).url
        connection = Connection(url, settings.ledger.chain_id, account=driver.account, policy=chain_policy(settings))
        known = _read(folder)
        contract = settings.ledger.contract or (known.contract if known else "")
        if contract:
            ledger = FederationLedger.attach(connection, contract)
        else:
            ledger = FederationLedger.deploy(connection, contract_config(settings))
        _write(folder, LedgerAddress(url=url, chain_id=settings.ledger.chain_id, contract=ledger.address))
        yield Federation(settings=settings, folder=folder, ledger=ledger)


def _run_digest(settings: Settings, ledger: FederationLedger, task: int, folder: Path) -> bytes:
    where = f"{ledger.chain_id} {ledger.address} {task} {folder.resolve().name}"
    return hashlib.sha256(settings.digest() + where.encode()).digest()


def run_goes_on(settings: Settings, run: RunFolder) -> bool:
    """Whether a driver with these settings has to go on with a run that has not been completed.

    It has if the contract's open task was started from this folder; if that task has come to its end by itself, and only the last
    evaluations are missing; or if the run was cut off before it had a task.

    Raises:
      SettingsError: the run goes on, but with other settings. LedgerError: the ledger does not answer, or is not ours.
    """
    try:
        before = from_yaml((run.path / CONFIG_FILE).read_text())
    except (OSError, SettingsError) as error:
        _log.warning("%s is left alone: %s", run.path, error)
        return False
    same = before.digest() == settings.digest()
    if before.run.name != settings.run.name:
        return False
    connection = Connection(settings.ledger.url, settings.ledger.chain_id, policy=chain_policy(settings))
    ledger = FederationLedger.attach(connection, settings.ledger.contract)
    task = ledger.view().task
    if not task.number or _run_digest(before, ledger, task.number, run.path) != task.run_digest:
        return same and run.summary() is None and not run.metrics() and not task.open
    if not task.open:
        return same and not task.end_reason
    if not same:
        raise SettingsError(
            f"the run of {run.path} goes on with the settings of its config.yaml, and these are others: give the same ones, or "
            f"end it with `bahefl resume {run.path} --end`"
        )
    return True


def administer(folder: Path) -> FederationLedger:
    """The ledger of a run that is going on, seen by its administrator.

    Raises:
      LedgerError: the run has not started its ledger, or has stopped it. KeysError: the administrator's key is not there.
    """
    where, settings = ledger_address(folder), from_yaml((folder / CONFIG_FILE).read_text())
    driver = _administrator(settings, folder)
    connection = Connection(where.url, where.chain_id, account=driver.account, policy=chain_policy(settings))
    return FederationLedger.attach(connection, where.contract)


def _administrator(settings: Settings, run: Path, *, create: bool = False) -> Identity:
    """The administrator's keys: in the home that the settings name, in a plain folder of keys, or in the run's own folder."""
    folder = Path(settings.ledger.administrator).expanduser() if settings.ledger.administrator else run / _DRIVER
    home = load_administrator(folder)
    if home is not None:
        return Identity.load(folder / IDENTITY_FOLDER, protection(home.passphrase_file))
    return Identity.create_or_load(folder) if create else Identity.load(folder)


def chain_policy(settings: Settings, home: AdministratorHome | None = None) -> ChainPolicy:
    """When a block of the ledger counts, what its gas may cost, and how long its node is waited for.

    Args:
      home: of a site, whose owner decides what counts and what is paid; no settings of a run do.
    """
    s = settings.ledger
    decided = s if home is None else home
    return ChainPolicy(
        confirmations=decided.confirmations,
        max_fee_gwei=decided.max_fee_gwei,
        priority_fee_gwei=decided.priority_fee_gwei,
        timeout_s=s.timeout_s,
        patience_s=s.patience_s,
    )


def ledger_address(folder: Path) -> LedgerAddress:
    """Where the run in `folder` keeps its ledger.

    Raises:
      LedgerError: the run has not started its ledger.
    """
    known = _read(folder)
    if known is None:
        raise LedgerError(f"{folder} has no {LEDGER_FILE}: the run has not started its ledger; start the ServerApp first")
    return known


def _read(folder: Path) -> LedgerAddress | None:
    path = folder / LEDGER_FILE
    return LedgerAddress(**json.loads(path.read_text())) if path.exists() else None


def _write(folder: Path, where: LedgerAddress) -> None:
    content = {"url": where.url, "chain_id": where.chain_id, "contract": where.contract}
    atomic_write(folder / LEDGER_FILE, json.dumps(content, indent=1).encode())


def contract_config(settings: Settings) -> ContractConfig:
    """What a contract must be deployed with for a run of these settings; every site compares."""
    s = settings.ledger
    return ContractConfig(
        commit_window_s=s.commit_window_s,
        aggregate_window_s=s.aggregate_window_s,
        verify_window_s=s.verify_window_s,
        open_grace_s=s.open_grace_s,
        ceremony_window_s=s.ceremony_window_s,
        min_commits=settings.federation.min_sites,
        quorum_bps=round(s.quorum_percent * 100),
        max_attempts=s.max_attempts,
        cooldown_rounds=s.cooldown_rounds,
        committee_max=settings.he.committee,
        epoch_rounds=settings.he.epoch_rounds,
    )
