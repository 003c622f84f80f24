"""`bahefl ledger`: a node for trials, the files of a Besu network, and a federation's contract. Arguments in, text out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from bahefl_flwr.commands.output import ChainOption, Format, FormatOption
from bahefl_flwr.commands.passphrase import Passphrase, Unencrypted, passphrase
from bahefl_flwr.ledger.node import CHAIN_ID

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    help="Set up a ledger of your own: a node for trials or a Besu network, and the contract on it.",
)  # fmt: skip


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", show_default=False, help="8545 if not given, 0 for a free one.")
    ] = 8545,
    chain_id: ChainOption = CHAIN_ID,
) -> None:
    """Serve a chain of one node, for trials on one machine, until SIGTERM or Ctrl-C; it listens on 127.0.0.1 only.

    FOLDER holds the chain, and is made if missing. Hospitals run a network instead: see genesis.
    """
    import threading

    from bahefl_flwr.errors import LedgerError
    from bahefl_flwr.ledger.node import serve as answer
    from bahefl_flwr.run_folder import LEDGER_DATABASE

    try:
        folder.mkdir(parents=True, exist_ok=True)
        answer(folder / LEDGER_DATABASE, chain_id=chain_id, port=port, end=threading.Event())
    except OSError as error:
        raise LedgerError(f"cannot serve {folder} on port {port}: {error}; give another folder or --port") from error


@app.command()
def deploy(
    home: Annotated[Path, typer.Argument(metavar="HOME", hidden=True)],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value]...", hidden=True)] = None,
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", help="JSON-RPC endpoint of a node of the chain; needed.")] = "",
    chain_id: ChainOption = CHAIN_ID,
    passphrase_file: Passphrase = None,
    unencrypted: Unencrypted = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Put a federation's contract on a chain, and make its administrator's home.

    HOME is a new folder for the administrator's keys; key=value are the settings of the federation's runs, as for
    flower-simulation. HOME/run-config.toml then holds all of them, for flwr run.
    """
    from bahefl_flwr.administration import Chain, deploy_federation

    if not rpc:
        raise click.UsageError("Missing option '--rpc'.")
    secret = passphrase(passphrase_file, unencrypted=unencrypted)
    ledger, settings_digest = deploy_federation(home, Chain(url=rpc, chain_id=chain_id), secret, overrides or ())
    facts = {
        "home": str(home),
        "contract": ledger.address,
        "chain_id": chain_id,
        "settings_digest": settings_digest,
        "run_config": str(home / "run-config.toml"),
    }
    if format is Format.JSON:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"contract {ledger.address} on chain {chain_id}, settings {settings_digest}")
    typer.echo(f"tell the sites all three; whitelist each with `bahefl members add --weight N {home} 0x...`; start runs with")
    typer.echo(f"  flwr run . NAME --stream --run-config {home / 'run-config.toml'}")


@app.command()
def genesis(
    # Needed both, but not so to typer: with the click of flwr's other dependencies it would print a stray backslash.
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="New folder for the network's files; needed.")
    ] = None,
    chain_id: Annotated[
        int,
        typer.Option("--chain-id", metavar="ID", show_default=False, help="A number that no other chain of yours has; needed."),
    ] = 0,
    validators: Annotated[
        int, typer.Option("--validators", metavar="N", show_default=False, help="Make N validators and their keys here.")
    ] = 0,
    public_key: Annotated[
        list[str] | None, typer.Option("--public-key", metavar="HEX", help="Or: an operator's node.pub; once for each validator.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Where the others reach a validator; once for each, in order. None: all on this machine.",
        ),
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option("--account", metavar="0x...", help="An account that may send; none given: any account.")
    ] = None,
    block_period: Annotated[
        int, typer.Option("--block-period", metavar="SECONDS", show_default=False, help="Time between blocks: 2 if not given.")
    ] = 2,
    image: Annotated[
        str, typer.Option("--image", metavar="NAME", help="Container image of Besu, instead of the one this version names.")
    ] = "",
    lab: Annotated[bool, typer.Option("--lab", help="Allow fewer than 4 validators: no fault is tolerated.")] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Write a Besu QBFT network with free gas: first block, node keys, permissions, compose files and the operators' page."""
    if output is None or not chain_id:
        raise click.UsageError(f"Missing option '{'--chain-id' if output else '--output'}'.")
    from bahefl_flwr.ledger.genesis import write_network
    from bahefl_flwr.ledger.network import IMAGE, plan

    network = plan(
        chain_id=chain_id, validators=validators, public_keys=public_key or (), hosts=host or (), accounts=account or (),
        block_period_s=block_period, image=image or IMAGE, lab=lab,
    )  # fmt: skip
    write_network(network, output)
    facts: dict[str, Any] = {
        "folder": str(output),
        "chain_id": chain_id,
        "tolerated_faults": network.tolerated,
        "validators": [{"address": v.address, "enode": v.enode} for v in network.validators],
    }
    if format is Format.JSON:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{output}: chain {chain_id}, {len(network.validators)} validators, {network.tolerated} may fail")
    for number, validator in enumerate(network.validators, start=1):
        typer.echo(f"  node-{number}  {validator.address}  {validator.host}")
    typer.echo(f"what to do now: {output / 'README.md'}")


@app.command("node-key")
def node_key(output: Annotated[Path, typer.Argument(metavar="DIR", hidden=True)]) -> None:
    """Make this operator's own node key; prints the public key, for whoever makes the network.

    DIR is a new folder for the key.
    """
    from bahefl_flwr.ledger.genesis import write_node_key

    typer.echo(write_node_key(output))
