"""Where a site lives: in the run folder of a simulation, or in a home of its own, whose owner decides what it takes part in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context

from bahefl_flwr.errors import KeysError, SettingsError
from bahefl_flwr.federation import LedgerAddress, chain_policy, ledger_address
from bahefl_flwr.homes import (
    IDENTITY_FOLDER,
    NODE_KEY_FILE,
    SITE_HOME,
    SiteHome,
    load_site,
    own_data_root,
    protection,
    with_own_data,
)
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
      settings: the run's, with the data that this site trains on.
      folder: from the ledger's present task, and the run that a message is about, to the folder of journal, keys and model.
      binding: its signature over its SuperNode's key; empty in a simulation.
      home: what its owner decides; None in a simulation.
    """

    identity: Identity
    ledger: LedgerAddress
    policy: ChainPolicy
    base: Path
    store: StoreSettings
    settings: Settings
    folder: Callable[[Task, bytes], Path]
    binding: bytes = b""
    home: SiteHome | None = None


def place_of(context: Context, settings: Settings) -> Place:
    """The place that a node's config names: `site-home`, or else its `partition-id` in the run's folder.

    Raises:
      RunFailed: the driver has not created the run folder. LedgerError: the run has no ledger. KeysError: the keys cannot be
      used. SettingsError: the node-config names neither, or the run asks for what this site does not take part in.
    """
    node: Mapping[str, Any] = context.node_config
    if SITE_HOME in node:
        return _at_home(Path(str(node[SITE_HOME])).expanduser(), node, settings)
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
        store=settings.store.model_copy(update={"url": str(node.get("store-url", settings.store.url))}),
        settings=settings,
        folder=lambda *_: folder,
    )


def _at_home(folder: Path, node: Mapping[str, Any], settings: Settings) -> Place:
    home = load_site(folder)
    expect_conditions(home, settings)
    identity = Identity.load(folder / IDENTITY_FOLDER, protection(home.passphrase_file))
    where = LedgerAddress(url=home.ledger_url, chain_id=home.chain_id, contract=home.contract)
    return Place(
        identity=identity,
        ledger=where,
        policy=chain_policy(settings, home),
        base=folder,
        store=settings.store.model_copy(
            update={
                "url": home.store_url,
                "certificate": home.store_certificate,
                "endpoint": home.store_endpoint,
                "path": home.store_path,
            }
        ),
        settings=with_own_data(settings, own_data_root(node, home)),
        folder=lambda task, run: _task_folder(folder / "runs", where.contract, task, run),
        binding=identity.sign_text(binding_text(_node_key(folder), where.chain_id, where.contract)),
        home=home,
    )


def expect_conditions(home: SiteHome, settings: Settings) -> None:
    """What the owner of a home asks of every run, since settings come from whoever starts it.

    Raises:
      SettingsError: naming every condition that the run does not meet.
    """
    refused = []
    if settings.attack.name != "none":
        refused.append(f"attack.name={settings.attack.name} is for simulations only")
    if (settings.he.threshold == 1 or settings.committee_size < 3) and not home.single_key:
        refused.append(
            f"he.threshold={settings.he.threshold} in a committee of {settings.committee_size} lets one or two key holders open "
            "every update (single-key: true allows it)"
        )
    if settings.federation.admission != "registrar":
        refused.append("federation.admission=automatic lets anybody in")
    if settings.screening.kind == "off" and not home.unscreened:
        refused.append("screening.kind=off adds poisoned updates (unscreened: true allows it)")
    if settings.federation.min_sites < home.min_sites:
        refused.append(f"federation.min_sites={settings.federation.min_sites} is below min-sites: {home.min_sites}")
    if home.settings_digest not in ("", settings.digest().hex()):
        refused.append(f"its settings have digest {settings.digest().hex()}, agreed was settings-digest: {home.settings_digest}")
    if settings.store.kind == "local" and not Path(home.store_path).is_absolute():
        refused.append("store.kind=local needs store-path, the folder that all sites share")
    if settings.store.kind != "local" and not home.store_url:
        refused.append(f"store.kind={settings.store.kind} needs store-url: what a run says of it does not count")
    if refused:
        raise SettingsError(f"this site takes no part, by its site.yaml: {'; '.join(refused)}")


def _node_key(home: Path) -> bytes:
    path = home / f"{NODE_KEY_FILE}.pub"
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error}; `ssh-keygen -y -f {home / NODE_KEY_FILE}` prints what it held") from None


def _task_folder(runs: Path, contract: str, task: Task, run: bytes) -> Path:
    """The folder of the ledger's present task, or of the next one where a message is about none and no task is open."""
    number = task.number if task.open or run == task.run_digest else task.number + 1
    folder = runs / f"{contract[2:10].lower()}-{number:04d}"
    if not folder.is_dir():
        # What earlier tasks' keys opened has been opened; nobody needs them any more, and nobody shall find them.
        for old in runs.glob(f"{contract[2:10].lower()}-*/epochs"):
            # Another process of the site may be doing the same.
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
