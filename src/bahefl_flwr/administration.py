"""What is done once for a federation, before and between its runs: its contract, its members, the home of each site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from bahefl_flwr.durable import atomic_write, create_once
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.federation import chain_policy, contract_config
from bahefl_flwr.homes import (
    ADMINISTRATOR_FILE,
    IDENTITY_FOLDER,
    NODE_KEY_FILE,
    SITE_FILE,
    AdministratorHome,
    SiteHome,
    load_administrator,
    protection,
    write_home,
)
from bahefl_flwr.identity import Identity, expect_well_typed
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.node_binding import new_node_key
from bahefl_flwr.settings import Settings, compose

RUN_CONFIG = "run-config.toml"
APP_CONFIG = "app-config.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """JSON-RPC endpoint of a node, and the chain it must be of."""

    url: str
    chain_id: int


def deploy_federation(home: Path, chain: Chain, passphrase_file: str, overrides: Sequence[str]) -> tuple[FederationLedger, str]:
    """Make the administrator's home, put a contract on the chain, and write the settings of its runs.

    Args:
      passphrase_file: absolute path; empty for keys without a passphrase.
      overrides: the federation's settings, in Hydra's syntax.

    Returns:
      The contract, and the digest of the settings that all sites share, in hexadecimal: what a site may agree to.

    Raises:
      SettingsError: `home` has a contract already, or a setting is wrong. KeysError: the passphrase cannot be used.
      LedgerError: the chain does not answer, is another one, or refuses.
    """
    if (home / ADMINISTRATOR_FILE).exists():
        raise SettingsError(f"{home} has a contract already; name a new folder for another federation")
    settings = settings_on(chain, home.absolute(), overrides)
    identity = Identity.create_or_load(home / IDENTITY_FOLDER, protection(passphrase_file))
    connection = Connection(chain.url, chain.chain_id, account=identity.account, policy=chain_policy(settings))
    ledger = FederationLedger.deploy(connection, contract_config(settings))
    written = AdministratorHome(
        ledger_url=chain.url,
        chain_id=chain.chain_id,
        contract=ledger.address,
        passphrase_file=passphrase_file,
        confirmations=settings.ledger.confirmations,
        max_fee_gwei=settings.ledger.max_fee_gwei,
        priority_fee_gwei=settings.ledger.priority_fee_gwei,
    )
    # The ServerApp may be started in any folder.
    run = settings.run.model_copy(update={"root": str(Path(settings.run.root).expanduser().absolute())})
    on_chain = settings.ledger.model_copy(update={"contract": ledger.address})
    deployed = settings.model_copy(update={"ledger": on_chain, "run": run})
    atomic_write(home / RUN_CONFIG, tomli_w.dumps(nested(deployed)).encode(), mode=0o644)
    atomic_write(home / APP_CONFIG, tomli_w.dumps(_of_an_app(deployed)).encode(), mode=0o644)
    write_home(home, written)
    return ledger, settings.digest().hex()


def settings_on(chain: Chain, owner: Path, overrides: Sequence[str]) -> Settings:
    """The settings of a federation between hospitals: what every one needs, and over it what this one has agreed on.

    Args:
      owner: the home of whoever asks; nothing that sites share depends on it. overrides: in Hydra's syntax.

    Raises:
      SettingsError: a setting is wrong.
    """
    told = (
        "ledger=hospitals", f"ledger.url={chain.url}", f"ledger.chain_id={chain.chain_id}", f"ledger.administrator='{owner}'",
        "federation.admission=registrar",
        # A message takes a process and seconds, and hospitals do not start at the same minute.
        "federation.hello_timeout_s=900",
    )  # fmt: skip
    return compose([*told, *overrides])


def nested(settings: Settings) -> dict[str, object]:
    """The settings as `flwr run --run-config FILE` takes them: complete, a table for each group."""
    return {"resolved": True, **settings.model_dump()}


def _of_an_app(settings: Settings) -> dict[str, object]:
    """The part of another project's pyproject.toml that gives it these settings."""
    return {"tool": {"flwr": {"app": {"config": {"bahefl": settings.model_dump()}}}}}


def administration(home: Path) -> FederationLedger:
    """The contract as the administrator whose home this is may change it.

    Raises:
      SettingsError: the home has no contract. KeysError: its keys cannot be opened. LedgerError: the chain does not answer.
    """
    found = load_administrator(home)
    if found is None:
        raise SettingsError(f"{home} is no administrator's home; `bahefl ledger deploy` makes one")
    identity = Identity.load(home / IDENTITY_FOLDER, protection(found.passphrase_file))
    policy = ChainPolicy(
        confirmations=found.confirmations, max_fee_gwei=found.max_fee_gwei, priority_fee_gwei=found.priority_fee_gwei
    )
    connection = Connection(found.ledger_url, found.chain_id, account=identity.account, policy=policy)
    return FederationLedger.attach(connection, found.contract)


def make_site(folder: Path, home: SiteHome) -> Identity:
    """Make a site's home: its keys, its SuperNode's key, and the file that says where everything is.

    Raises:
      SettingsError: there is a home already, or an entry cannot be right. KeysError: the passphrase cannot be used, or the folder
      not be written.
    """
    if (folder / SITE_FILE).exists():
        raise SettingsError(f"{folder} is a site's home already; edit {folder / SITE_FILE}, or name a new folder")
    expect_well_typed(home.contract)
    if home.data_root and not Path(home.data_root).is_dir():
        raise SettingsError(f"data-root {home.data_root} is no folder; name that of this site's data, or none")
    identity = Identity.create_or_load(folder / IDENTITY_FOLDER, protection(home.passphrase_file))
    private, public = new_node_key()
    # The public key last: a home that was half made gets a whole new pair.
    if not (folder / f"{NODE_KEY_FILE}.pub").exists():
        atomic_write(folder / NODE_KEY_FILE, private, mode=0o600)
        create_once(folder / f"{NODE_KEY_FILE}.pub", public)
    write_home(folder, home)
    return identity
