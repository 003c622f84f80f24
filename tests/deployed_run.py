"""A federation as it is deployed, in one process: a ledger node of its own, a store that all reach, and a home for every site.

Only Flower's transport is in-process; its nodes have the keys that their SuperNodes would authenticate with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.app import Context
from flwr.client import NumPyClient

from bahefl_flwr import secure_run
from bahefl_flwr.administration import Chain, administration, deploy_federation, make_site
from bahefl_flwr.federation import open_federation
from bahefl_flwr.homes import NODE_KEY_FILE, load_administrator, parsed_site
from bahefl_flwr.run_folder import RoundLine, RunFolder
from bahefl_flwr.settings import Settings
from bahefl_flwr.site import secure_client_app
from bahefl_flwr.site.client_app import ClientFn
from bahefl_flwr.strategy import BaheflStrategy
from federation_run import KnownClient, well_behaved
from in_process_grid import InProcessGrid, Tamper, plain_delivery

PASSPHRASE = "five random words are good"


class HomesGrid(InProcessGrid):
    """Nodes with a home each, that are known by their SuperNodes' keys."""

    def __init__(
        self, settings: Settings, homes: Sequence[Path], *, tamper: Tamper = plain_delivery, client_fn: ClientFn | None = None
    ) -> None:
        client_app = secure_client_app(client_fn or known_client)
        super().__init__(client_app, len(homes), dict(settings.flat()), tamper=tamper)
        self.keys = {1000 + i: public_key(home) for i, home in enumerate(homes)}
        for context, home in zip(self._sites.values(), homes, strict=True):
            context.node_config["site-home"] = str(home)

    def get_nodes(self) -> Iterable[Any]:
        return [SimpleNamespace(node_id=node, public_key=self.keys[node]) for node in self.get_node_ids()]


def known_client(context: Context) -> NumPyClient:
    """As in federation_run.py; whose update it makes is told by the partition."""
    return KnownClient(int(context.node_config["partition-id"]), well_behaved)


def public_key(home: Path) -> bytes:
    """A SuperNode's public key, as Flower's SuperLink keeps it."""
    key = load_ssh_public_key((home / f"{NODE_KEY_FILE}.pub").read_bytes())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Deployed:
    """What the administrator and the sites have made before the first run."""

    folder: Path
    homes: list[Path]
    addresses: list[str]
    settings: Settings

    @property
    def administrator(self) -> Path:
        return self.folder / "administrator"

    def whitelist(self, *sites: int) -> None:
        """The administrator admits these sites."""
        administration(self.administrator).whitelist([self.addresses[i] for i in sites], [100] * len(sites))

    def shorten(self, rounds: int) -> None:
        """Runs from now on are of so many rounds."""
        shorter = self.settings.federation.model_copy(update={"rounds": rounds})
        self.settings = self.settings.model_copy(update={"federation": shorter})

    def run(self, grid: HomesGrid, *, stop_after: int = 0, stop_before: int = 0) -> tuple[BaheflStrategy, RunFolder]:
        """One driver, as the ServerApp runs it; it dies once the line of round `stop_after` is written, or `stop_before` is."""
        folder = secure_run._folder(self.settings, grid.run_id)

        def on_round(line: RoundLine) -> None:
            if line["round"] == stop_before:
                raise DriverKilled
            folder.append_metrics(line)
            if line["round"] == stop_after:
                raise DriverKilled

        with closing(grid), open_federation(self.settings, folder.path) as federation:
            strategy = BaheflStrategy(federation, on_round=on_round, rounds_before=folder.metrics())
            strategy.start(grid=grid)
        return strategy, folder


class DriverKilled(BaseException):
    """Ends a driver where it stands."""


def deployed(
    folder: Path, ledger_url: str, *overrides: str, sites: int = 3, data_roots: Sequence[Path] | None = None
) -> Deployed:
    """A contract, a store in a folder that all sites share, and homes; nobody is whitelisted yet.

    Args:
      data_roots: folder of each site's own slices.
    """
    secret = folder / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    told = (
        f"federation.sites={sites}", "federation.rounds=3", "he.update_range=0.25", f"run.root={folder / 'runs'}",
        f"store.path={folder / 'store'}", "ledger.confirmations=0", *overrides,
    )  # fmt: skip
    administrator = folder / "administrator"
    deploy_federation(administrator, Chain(url=ledger_url, chain_id=20260), str(secret), told)
    found = load_administrator(administrator)
    assert found
    homes = [folder / f"site-{i}" for i in range(sites)]
    entries = {"ledger-url": ledger_url, "chain-id": 20260, "contract": found.contract, "passphrase-file": str(secret),
               "store-path": str(folder / "store"), "confirmations": 0, "sketch-parameters": 1}  # fmt: skip
    roots = [str(root) for root in data_roots or ()] or [""] * sites
    addresses = [
        make_site(home, parsed_site({**entries, "data-root": root})).address for home, root in zip(homes, roots, strict=True)
    ]
    return Deployed(folder=folder, homes=homes, addresses=addresses, settings=run_settings(administrator))


def run_settings(administrator: Path) -> Settings:
    """The settings that `flwr run --run-config` takes from the administrator's home, as the ServerApp gets them."""
    import tomllib

    from flwr.common.config import flatten_dict

    from bahefl_flwr.settings import from_run_config

    return from_run_config(flatten_dict(tomllib.loads((administrator / "run-config.toml").read_text())))  # type: ignore[arg-type]
