"""`bahefl site`: the home of a site between hospitals. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import click
import typer

from bahefl_flwr.commands.output import ChainOption, Format, FormatOption
from bahefl_flwr.commands.passphrase import Passphrase, Unencrypted, passphrase
from bahefl_flwr.ledger.node import CHAIN_ID

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="A site's own keys and what it takes part in.",
)  # fmt: skip

_Home = Annotated[Path, typer.Argument(metavar="HOME", hidden=True)]


@app.command()
def init(
    home: _Home,
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", help="JSON-RPC endpoint of a ledger node you trust; needed.")] = "",
    contract: Annotated[str, typer.Option("--contract", metavar="0x...", help="The federation's contract; needed.")] = "",
    chain_id: ChainOption = CHAIN_ID,
    passphrase_file: Passphrase = None,
    unencrypted: Unencrypted = False,
    data: Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="This site's data: frames/ and masks/.")] = None,
    store_url: Annotated[
        str, typer.Option("--store-url", metavar="URL", help="The store, if this site reaches it under another address.")
    ] = "",
    store_certificate: Annotated[
        Path | None, typer.Option("--store-certificate", metavar="FILE", help="PEM file of the authority that vouches for it.")
    ] = None,
    settings_digest: Annotated[
        str,
        typer.Option("--settings-digest", metavar="HEX", help="Only runs with the settings of bahefl ledger deploy."),
    ] = "",
    confirmations: Annotated[
        int, typer.Option("--confirmations", metavar="N", show_default=False, help="Blocks on a block before it counts: 1.")
    ] = 1,
    min_sites: Annotated[
        int, typer.Option("--min-sites", metavar="N", show_default=False, help="Fewest updates in any sum it helps to open: 3.")
    ] = 3,
    format: FormatOption = Format.TEXT,
) -> None:
    """Make a site's keys and its site.yaml, and print what the others need to know.

    HOME is a new folder. What it holds is worth a backup: without its keys the site has to register anew.
    """
    if not rpc or not contract:
        raise click.UsageError(f"Missing option '{'--contract' if rpc else '--rpc'}'.")
    from bahefl_flwr.administration import make_site
    from bahefl_flwr.homes import parsed_site

    site = parsed_site(
        {
            "ledger-url": rpc,
            "chain-id": chain_id,
            "contract": contract,
            "passphrase-file": str(passphrase_file.absolute()) if passphrase_file else "",
            "store-url": store_url,
            "store-certificate": str(store_certificate.absolute()) if store_certificate else "",
            "data-root": str(data.absolute()) if data else "",
            "min-sites": min_sites,
            "settings-digest": settings_digest,
            "confirmations": confirmations,
        }
    )
    passphrase(passphrase_file, unencrypted=unencrypted)
    _tell(home, make_site(home, site).address, format)


def _tell(home: Path, address: str, format: Format) -> None:
    """What a new site's owner does with its address and keys."""
    from bahefl_flwr.homes import NODE_KEY_FILE, SITE_FILE

    node_key = home.absolute() / NODE_KEY_FILE
    if format is Format.JSON:
        typer.echo(json.dumps({"home": str(home.absolute()), "address": address, "node_key": f"{node_key}.pub"}, indent=2))
        return
    typer.echo(
        f"""\
address {address}
tell the administrator, who whitelists it:
  bahefl members add --weight N ADMINISTRATOR {address}
give the SuperLink's operator the public key of your SuperNode:
  flwr supernode register {node_key}.pub NAME
what this site takes part in, and where everything is, stands in {home / SITE_FILE}; start it with
  bahefl-supernode --superlink HOST:PORT --root-certificates FILE --auth-supernode-private-key {node_key} \
--node-config 'site-home="{home.absolute()}"'"""
    )


@app.command()
def show(home: _Home) -> None:
    """Print a site's address and its settings; opens its keys, so that it says whether they can be opened.

    HOME is the site's folder.
    """
    from bahefl_flwr.homes import IDENTITY_FOLDER, SITE_FILE, load_site, protection
    from bahefl_flwr.identity import Identity

    identity = Identity.load(home / IDENTITY_FOLDER, protection(load_site(home).passphrase_file))
    typer.echo(f"# address {identity.address}\n{(home / SITE_FILE).read_text()}", nl=False)
