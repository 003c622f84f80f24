"""`bahefl keys`: the key epochs of a run, and new keys on demand. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bahefl_flwr.commands.output import Format

if TYPE_CHECKING:
    from bahefl_flwr.ledger.contract import FederationLedger

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Key epochs of a run whose ledger is up: show them, renew them."
)

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder; its ledger must be running.")]


@app.command()
def show(run: _Run, format: Annotated[Format, typer.Option("--format", help="How the result is printed.")] = Format.TEXT) -> None:
    """List the key epochs: who holds the shares, how many open an aggregate, who was accused."""
    epochs = _epochs(_ledger(run))
    if format is Format.JSON:
        typer.echo(json.dumps(epochs, indent=2))
        return
    for e in epochs:
        key = f", key {e['key'][:16]}" if e["key"] else ""
        accused = f"; accused: {', '.join(e['accused'])}" if e["accused"] else ""
        typer.echo(f"epoch {e['epoch']}: {e['phase']}, {e['threshold']} of {len(e['committee'])} key holders open{key}{accused}")
        for address in e["committee"]:
            typer.echo(f"  {address}")


@app.command()
def renew(run: _Run) -> None:
    """Have a new committee make new keys when the round in hand ends.

    Needs the administrator's key, in ledger.administrator or RUN/driver.
    """
    ledger = _ledger(run)
    ledger.renew_keys()
    typer.echo(f"epoch {ledger.view().epoch.epoch} is the last with these keys: a new ceremony follows the open round")


def _ledger(run: Path) -> FederationLedger:
    from bahefl_flwr.federation import administer

    return administer(run)


def _epochs(ledger: FederationLedger) -> list[dict[str, Any]]:
    from bahefl_flwr.records import members_in

    address = {m.index: m.address for m in ledger.members()}
    records = [ledger.epoch(n) for n in range(1, ledger.view().epoch.epoch + 1)]
    return [
        {
            "epoch": e.epoch,
            "phase": e.phase.name,
            "threshold": e.threshold,
            "committee": [address[m] for m in members_in(e.committee)],
            "accused": [address[m] for m in members_in(e.accused)],
            "key": e.key_digest.hex() if any(e.key_digest) else "",
        }
        for e in records
    ]
