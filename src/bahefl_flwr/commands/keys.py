"""`bahefl keys`: the key epochs of a run, and new keys on demand. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bahefl_flwr.commands.output import Format, FormatOption
from bahefl_flwr.errors import LedgerError

if TYPE_CHECKING:
    from bahefl_flwr.ledger.contract import FederationLedger

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    help="Key epochs of a run whose ledger is up: show them, renew them.",
)  # fmt: skip

# Hidden, because typer does not show what an argument is with the click of flwr's other dependencies; the texts below do.
_Run = Annotated[Path, typer.Argument(metavar="RUN", hidden=True)]


@app.command()
def show(run: _Run, format: FormatOption = Format.TEXT) -> None:
    """List the key epochs: who holds the shares, how many open an aggregate, who was accused.

    RUN is the run's folder (of run.root); its ledger must be running.
    """
    _refuse_ended(run, also_elsewhere=False)
    epochs = _epochs(_ledger(run))
    if format is Format.JSON:
        typer.echo(json.dumps(epochs, indent=2))
        return
    if not epochs:
        typer.echo("no key epoch yet")
    for e in epochs:
        key = f", key {e['key'][:16]}" if e["key"] else ""
        accused = f"; accused: {', '.join(_name(m) for m in e['accused'])}" if e["accused"] else ""
        renewal = "; new keys follow the open round" if e["renewal"] else ""
        seats = len(e["committee"])
        typer.echo(f"epoch {e['epoch']}: {e['phase']}, {e['threshold']} of {seats} key holders open{key}{accused}{renewal}")
        for member in e["committee"]:
            typer.echo(f"  {_name(member)}")


@app.command()
def renew(run: _Run) -> None:
    """Have a new committee make new keys when the round in hand ends.

    RUN is the folder of a run that is going on. Needs the administrator's key, in ledger.administrator or RUN/driver.
    """
    _refuse_ended(run, also_elsewhere=True)
    ledger = _ledger(run)
    ledger.renew_keys()
    typer.echo(f"epoch {ledger.view().epoch.epoch} is the last with these keys: a new ceremony follows the open round")


def _refuse_ended(run: Path, *, also_elsewhere: bool) -> None:
    """Say at once that a run is over: its own node is gone, and nobody makes keys any more."""
    from bahefl_flwr.trained import open_run

    found = open_run(run)
    if found.summary is None:
        return
    if found.settings.ledger.kind == "embedded":
        raise LedgerError(f"{run}: the run is over and its ledger stopped; `bahefl audit {run}` reads what it left")
    if also_elsewhere:
        raise LedgerError(f"{run}: the run is over, no round follows that new keys could serve; renew the keys of a running one")


def _ledger(run: Path) -> FederationLedger:
    from bahefl_flwr.federation import administer

    return administer(run.expanduser())


def _name(member: dict[str, Any]) -> str:
    return f"site {member['site']}  {member['address']}"


def _epochs(ledger: FederationLedger) -> list[dict[str, Any]]:
    from bahefl_flwr.records import members_in

    address = {m.index: m.address for m in ledger.members()}

    def named(mask: int) -> list[dict[str, Any]]:
        """The members whose bits are set, by ascending index."""
        return [{"site": m, "address": address[m]} for m in members_in(mask)]

    records = [ledger.epoch(n) for n in range(1, ledger.view().epoch.epoch + 1)]
    return [
        {
            "epoch": e.epoch,
            "phase": e.phase.name,
            "threshold": e.threshold,
            "committee": named(e.committee),
            "accused": named(e.accused),
            "renewal": e.renewal and e is records[-1],
            "key": e.key_digest.hex() if any(e.key_digest) else "",
        }
        for e in records
    ]
