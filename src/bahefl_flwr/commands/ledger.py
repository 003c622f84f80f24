"""`bahefl ledger`: the files of a Besu network, and an operator's node key. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from bahefl_flwr.commands.output import Format

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    help="Set up a ledger of your own: a Besu QBFT network.",
)  # fmt: skip

_Format = Annotated[Format, typer.Option("--format", show_default=False, help="text (the default) or json.")]


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
    format: _Format = Format.TEXT,
) -> None:
    """Write a Besu QBFT network with free gas: first block, node keys, permissions, compose files and the operators' page."""
    if output is None or not chain_id:
        raise click.UsageError(f"Missing option '{'--chain-id' if output else '--output'}'.")
    from bahefl_flwr.ledger.genesis import IMAGE, plan, write_network

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
