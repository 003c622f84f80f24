"""Where a site lives: in the run folder of a simulation, or in a home of its own, whose owner decides what it takes part in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.federation import LedgerAddress, chain_policy, ledger_address
from bahefl_flwr.homes import IDENTITY_FOLDER, NODE_KEY_FILE, SITE_HOME, SiteHome, load_site, protection
from bahefl_flwr.identity import Identity
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.node_binding import binding_text
from bahefl_flwr.records import Task
from bahefl_flwr.run_folder import find
from bahefl_flwr.setting_groups import StoreSettings
from bahefl_flwr.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a site brings to every message.

    Attributes:
      identity: its long-term keys. ledger, policy: the chain it believes, and how it deals with it.
      base: folder that a relative `store.path` starts from. store: the store, as this site reaches it.
      folder: from the ledger's present task, and the run that a message is about, to the folder of journal, keys and model.
      binding: its signature over its SuperNode's key; empty in a simulation.
    """

    identity: Identity
    ledger: LedgerAddress
    policy: ChainPolicy
    base: Path
    store: StoreSettings
    folder: Callable[[Task, bytes], Path]
    binding: bytes = b""


def place_of(context: Context, settings: Settings) -> Place:
    """The place that a node's config names: `site-home`, or else its `partition-id` in the run's folder.

    Raises:
      RunFailed: the driver has not created the run folder. LedgerError: the run has no ledger. KeysError: the keys cannot be
      used. SettingsError: the node-config names neither, or the run asks for what this site does not take part in.
    """
    node: Mapping[str, Any] = context.node_config
    if SITE_HOME in node:
        return _at_home(Path(str(node[SITE_HOME])).expanduser(), settings)
    if "partition-id" not in node:
        raise SettingsError(f"this node has no {SITE_HOME}: start its SuperNode with --node-config '{SITE_HOME}=\"<folder>\"'")
    return _in_run_folder(find(settings.run.root, context.run_id).path, node, settings)


def _in_run_folder(run: Path, node: Mapping[str, Any], settings: Settings) -> Place:
    """A simulated site; its keys are made on first use. It asks the nodes that its node-config names, or else the run's."""
    folder = run / "sites" / f"{int(node['partition-id']):03d}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = Identity.create_or_load(folder / IDENTITY_FOLDER)
    where = ledger_address(run)
    return Place(
        identity=identity,
        # A site that runs a node of its own believes nothing about the chain that comes from elsewhere.
        ledger=LedgerAddress(url=str(node.get("ledger-url", where.url)), chain_id=where.chain_id, contract=where.contract),
        policy=chain_policy(settings),
        base=run,
        store=_reached(settings.store, url=str(node.get("store-url", ""))),
        folder=lambda *_: folder,
    )


def _at_home(folder: Path, settings: Settings) -> Place:
    home = load_site(folder)
    expect_conditions(home, settings)
    identity = Identity.load(folder / IDENTITY_FOLDER, protection(home.passphrase_file))
    where = LedgerAddress(url=home.ledger_url, chain_id=home.chain_id, contract=home.contract)
    node_key = (folder / f"{NODE_KEY_FILE}.pub").read_bytes()
    return Place(
        identity=identity,
        ledger=where,
        policy=chain_policy(settings, max_fee_gwei=home.max_fee_gwei, priority_fee_gwei=home.priority_fee_gwei),
        base=folder,
        store=_reached(settings.store, url=home.store_url, certificate=home.store_certificate, path=home.store_path),
        folder=lambda task, run: _task_folder(folder / "runs", where.contract, task, run),
        binding=identity.sign_text(binding_text(node_key, where.chain_id, where.contract)),
    )


def expect_conditions(home: SiteHome, settings: Settings) -> None:
    """What the owner of a home asks of every run, since settings come from whoever starts it.

    Raises:
      SettingsError: naming every condition that the run does not meet.
    """
    refused = []
    if settings.attack.name != "none":
        refused.append(f"attack.name={settings.attack.name} is for simulations only")
    if settings.he.threshold == 1 and not home.single_key:
        refused.append("he.threshold=1 lets every key holder open every update (single-key: true allows it)")
    if settings.screening.kind == "off" and not home.unscreened:
        refused.append("screening.kind=off adds poisoned updates (unscreened: true allows it)")
    if settings.federation.min_sites < home.min_sites:
        refused.append(f"federation.min_sites={settings.federation.min_sites} is below min-sites: {home.min_sites}")
    if home.settings_digest not in ("", settings.digest().hex()):
        refused.append(f"its settings have digest {settings.digest().hex()}, agreed was settings-digest: {home.settings_digest}")
    if settings.store.kind == "local" and not Path(home.store_path).is_absolute():
        refused.append("store.kind=local needs store-path, the folder that all sites share (store=http and store=s3 need none)")
    if refused:
        raise SettingsError(f"this site takes no part, by its site.yaml: {'; '.join(refused)}")


def _reached(store: StoreSettings, **own: str) -> StoreSettings:
    """The run's store, as this site calls it."""
    return store.model_copy(update={name: value for name, value in own.items() if value})


def _task_folder(runs: Path, contract: str, task: Task, run: bytes) -> Path:
    """The folder of the ledger's present task, or of the next one where a message is about none and no task is open."""
    number = task.number if task.open or run == task.run_digest else task.number + 1
    folder = runs / f"{contract[2:10].lower()}-{number:04d}"
    if not folder.is_dir():
        # What earlier tasks' keys opened has been opened; nobody needs them any more, and nobody shall find them.
        for old in runs.glob(f"{contract[2:10].lower()}-*/epochs"):
            shutil.rmtree(old)
        folder.mkdir(parents=True, mode=0o700)
    return folder
