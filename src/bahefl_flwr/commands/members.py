"""`bahefl members`: who takes part in a federation. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from bahefl_flwr.commands.output import Format, FormatOption
from bahefl_flwr.errors import LedgerError
from bahefl_flwr.records import MemberStatus

if TYPE_CHECKING:
    from bahefl_flwr.ledger.contract import FederationLedger

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    help="Who takes part in a federation: list, add, suspend, reinstate. HOME is the administrator's, of bahefl ledger deploy.",
)  # fmt: skip

_Home = Annotated[Path, typer.Argument(metavar="HOME", hidden=True)]
_Address = Annotated[str, typer.Argument(metavar="ADDRESS", hidden=True)]
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_NO_WAY_BACK = (
    "the contract takes no whitelisting back: of whom you did not mean, lower the weight until it registers (bahefl members add "
    "HOME ADDRESS --weight 1), and suspend it then"
)


@app.command("list")
def list_members(home: _Home, format: FormatOption = Format.TEXT) -> None:
    """List the members: index, address, standing, cap of the weight, score, faults; and who is whitelisted only.

    HOME is the administrator's. Whoever is whitelisted registers when it first answers a run.
    """
    ledger = _ledger(home)
    members: list[dict[str, Any]] = [
        {
            "site": m.index,
            "address": m.address,
            "standing": m.status.name.lower(),
            "max_weight": m.max_weight,
            "score": m.score,
            "included": m.included,
            "coordinator_faults": m.coordinator_faults,
        }
        for m in ledger.members()
    ]
    invited = ledger.invited()
    if format is Format.JSON:
        waiting = [{"site": None, "address": a, "standing": "whitelisted", "max_weight": cap} for a, cap in invited.items()]
        typer.echo(json.dumps([*members, *waiting], indent=2))
        return
    if not members:
        typer.echo("no member has registered yet")
    for m in members:
        faults = f", {m['coordinator_faults']} faults as coordinator" if m["coordinator_faults"] else ""
        typer.echo(f"site {m['site']}  {m['address']}  {m['standing']}, score {m['score']}, in {m['included']} rounds{faults}")
    for address, cap in invited.items():
        typer.echo(f"-       {address}  whitelisted, not registered yet, at most {cap} examples count")
    if invited:
        typer.echo(_NO_WAY_BACK)


@app.command()
def add(
    home: _Home,
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...", hidden=True)],
    weight: Annotated[
        int, typer.Option("--weight", metavar="N", show_default=False, help="Training examples of each that count; needed.")
    ] = 0,
) -> None:
    """Whitelist sites: each registers by itself when it first answers a run.

    HOME is the administrator's; ADDRESS is what `bahefl site init` printed. Ask for it by a way you trust. A site's share of the
    model is its examples, N at most, of all sites' N: near the true numbers weighs by data, 1 for everybody weighs all alike.
    """
    if weight < 1:
        raise click.UsageError("Option '--weight' is needed, and at least 1.")
    for address in addresses:
        _check(address)
    ledger = _ledger(home)
    _expect(ledger, addresses, MemberStatus.NONE, MemberStatus.WHITELISTED)
    ledger.whitelist(addresses, [weight] * len(addresses))
    typer.echo(f"whitelisted {', '.join(addresses)}")


@app.command()
def suspend(
    home: _Home,
    address: _Address,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="It stands on the ledger.")] = "by the registrar",
) -> None:
    """Take a site out of everything to come; its part of the key is replaced.

    HOME is the administrator's, ADDRESS the member's.
    """
    _check(address)
    ledger = _ledger(home)
    _expect(ledger, [address], MemberStatus.ACTIVE)
    ledger.suspend(address, reason)
    typer.echo(f"suspended {address}")


@app.command()
def reinstate(home: _Home, address: _Address) -> None:
    """Let a suspended site back in, from the next round on.

    HOME is the administrator's, ADDRESS the member's.
    """
    _check(address)
    ledger = _ledger(home)
    _expect(ledger, [address], MemberStatus.SUSPENDED)
    ledger.reinstate(address)
    typer.echo(f"reinstated {address}")


_STANDINGS = {
    MemberStatus.NONE: "unknown to the ledger: `bahefl members list` has all addresses",
    MemberStatus.WHITELISTED: f"whitelisted and has not registered yet, so that there is no member; {_NO_WAY_BACK}",
    MemberStatus.ACTIVE: "an active member already, and the cap of a member's weight stays",
    MemberStatus.SUSPENDED: "suspended",
}


def _expect(ledger: FederationLedger, addresses: list[str], *standings: MemberStatus) -> None:
    """The contract would refuse, in its own words."""
    for address, found in ledger.standings(addresses).items():
        if found not in standings:
            raise LedgerError(f"{address} is {_STANDINGS[found]}; nothing was changed")


def _check(address: str) -> None:
    if _ADDRESS.fullmatch(address) is None:
        raise click.UsageError(f"{address!r} is no address: 0x and 40 hexadecimal digits.")
    if not int(address, 16):
        raise click.UsageError(f"{address!r} is nobody's address: no key belongs to it.")
    from bahefl_flwr.identity import expect_well_typed

    expect_well_typed(address)


def _ledger(home: Path) -> FederationLedger:
    from bahefl_flwr.administration import administration

    return administration(home.expanduser())
