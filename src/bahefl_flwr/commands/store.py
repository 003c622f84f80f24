"""`bahefl store`: serve a folder to the sites of a federation, and clear what nobody refers to. Arguments in, text out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from bahefl_flwr.commands.output import ChainOption, Format, FormatOption
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.ledger.node import CHAIN_ID

if TYPE_CHECKING:
    from bahefl_flwr.store.gc import Needed, Plan, Sweepable
    from bahefl_flwr.store.roster import Roster

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    help="Run a store for a federation: serve it, clear it.",
)  # fmt: skip

_GIB = 1 << 30
_DEFAULT_PORT = 8790

_Rpc = Annotated[str, typer.Option("--rpc", metavar="URL", help="JSON-RPC endpoint of the ledger.")]


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    rpc: _Rpc = "",
    contract: Annotated[str, typer.Option("--contract", metavar="0x...", help="Its active members may read and write.")] = "",
    chain_id: ChainOption = CHAIN_ID,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", metavar="FILE", help="Or: a file with the addresses that may, one a line.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", show_default=False, help="Interface to listen on: 127.0.0.1 if not given.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", show_default=False, help=f"{_DEFAULT_PORT} if not given, 0 for a free one.")
    ] = _DEFAULT_PORT,
    certificate: Annotated[Path | None, typer.Option("--certificate", metavar="FILE", help="PEM file for TLS.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its key.")] = None,
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="Another host adds TLS: any --host goes.")] = False,
    total_gib: Annotated[
        float, typer.Option("--total-gib", metavar="N", show_default=False, help="Most bytes in all: 100 GiB if not given.")
    ] = 100.0,
    account_gib: Annotated[
        float, typer.Option("--account-gib", metavar="N", show_default=False, help="Most bytes of one account: 20 GiB.")
    ] = 20.0,
    account_files: Annotated[
        int, typer.Option("--account-files", metavar="N", show_default=False, help="Most parts and manifests of one: 200000.")
    ] = 200_000,
    clock_window: Annotated[
        float, typer.Option("--clock-window", metavar="S", show_default=False, help="How far clocks may differ: 120 s.")
    ] = 120.0,
    requests: Annotated[
        int, typer.Option("--requests", metavar="N", show_default=False, help="Answered at once, up to 3 MiB of memory each: 64.")
    ] = 64,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Serve FOLDER to the members of a federation until SIGTERM or Ctrl-C.

    FOLDER is made if missing. Who may use it is on the ledger (--rpc and --contract), or in a file.
    """
    if bool(contract) == (accounts is not None) or bool(contract) != bool(rpc):
        raise click.UsageError("Say who may use the store: --rpc and --contract, or --accounts.")
    from bahefl_flwr.store.local import LocalStore
    from bahefl_flwr.store.service import StoreService
    from bahefl_flwr.store.serving import Listening
    from bahefl_flwr.store.serving import serve as answer
    from bahefl_flwr.store.shelf import Shelf
    from bahefl_flwr.store.usage import Quotas, Usage

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    where = Listening(host=host, port=port, certificate=certificate, key=key, behind_proxy=behind_proxy, connections=4 * requests)
    roster, store = _roster(rpc, chain_id, contract, accounts), LocalStore(folder)
    if contract:
        from bahefl_flwr.storekeeping import Contract, note_served

        note_served(folder, Contract(chain_id=chain_id, address=contract))
    quotas = Quotas(total_bytes=int(total_gib * _GIB), account_bytes=int(account_gib * _GIB), account_files=account_files)
    shelf = Shelf(store, Usage(store, quotas))
    service = StoreService(shelf, roster, window_s=clock_window, most_requests=requests)
    answer(service, where, ready=lambda url: typer.echo(json.dumps({"url": url})), with_parent=with_parent)


def _roster(rpc: str, chain_id: int, contract: str, accounts: Path | None) -> Roster:
    if accounts is not None:
        from bahefl_flwr.store.roster import AccountsFile

        return AccountsFile(accounts)
    from bahefl_flwr.storekeeping import LedgerRoster

    return LedgerRoster.of(rpc, chain_id, contract)


@app.command()
def gc(
    where: Annotated[str, typer.Argument(metavar="STORE", hidden=True)],
    rpc: _Rpc = "",
    contract: Annotated[
        list[str] | None, typer.Option("--contract", metavar="0x...", help="A contract that uses the store; once for each.")
    ] = None,
    chain_id: ChainOption = CHAIN_ID,
    grace_hours: Annotated[
        float, typer.Option("--grace-hours", metavar="H", show_default=False, help="Younger objects stay: 24 hours if not given.")
    ] = 24.0,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it; without this it is only told.")] = False,
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="URL", help="Of an S3 service other than Amazon's.")] = "",
    region: Annotated[str, typer.Option("--region", metavar="NAME", show_default=False, help="Of S3: us-east-1.")] = "us-east-1",
    format: FormatOption = Format.TEXT,
) -> None:
    """Tell, and with --delete clear, what no ledger refers to. Everything that an audit needs stays.

    STORE is a run's folder (its own chain is asked), a store's folder, or s3://bucket/prefix; the latter two need --rpc and
    --contract. A served store may go on meanwhile: name its folder, on its own machine.
    """
    from bahefl_flwr.store.gc import carry_out, plan

    started = time.time()
    store, needed_now = _sweepable(where, rpc, chain_id, contract or [], endpoint, region)
    # The list first: whatever is put from now on is not on it.
    files = list(store.files())
    with needed_now() as needed:
        decided = plan(store, files, needed, older_than=started - 3600 * grace_hours)
    if delete:
        carry_out(store, decided)
    _tell(decided, deleted=delete, format=format)


def _sweepable(
    where: str, rpc: str, chain_id: int, contracts: list[str], endpoint: str, region: str
) -> tuple[Sweepable, Callable[[], Any]]:
    """The store, and a way to read, later, what is needed of it."""
    from bahefl_flwr.run_folder import LEDGER_FILE
    from bahefl_flwr.store.local import LocalStore

    folder = Path(where)
    if (folder / LEDGER_FILE).is_file():
        from bahefl_flwr.trained import open_run

        settings = open_run(folder).settings.store
        if settings.kind != "local" or Path(settings.path).is_absolute():
            raise SettingsError(f"the store of {folder} is elsewhere and may be others' too: name it, with every --contract")
        return LocalStore(folder / settings.path), lambda: _needed_by_run(folder, rpc)
    if not rpc or not contracts:
        raise click.UsageError("Name the ledger that refers to the store: --rpc and --contract (or give a run's folder).")
    if where.startswith("s3://"):
        from bahefl_flwr.store.s3 import BucketAddress, S3Store

        address = BucketAddress(url=where, endpoint=endpoint, region=region)
        return S3Store(address, timeout_s=30.0, patience_s=60.0), lambda: _needed_by(rpc, chain_id, contracts)
    from bahefl_flwr.storekeeping import Contract, refuse_unnamed

    if not (folder / "objects").is_dir():
        raise SettingsError(f"{where} is no store: give a folder with objects/ in it, a run's folder, or s3://bucket/prefix")
    refuse_unnamed(folder, [Contract(chain_id=chain_id, address=each) for each in contracts])
    return LocalStore(folder), lambda: _needed_by(rpc, chain_id, contracts)


@contextmanager
def _needed_by_run(run: Path, rpc: str) -> Iterator[Needed]:
    from bahefl_flwr.audit.subject import open_subject
    from bahefl_flwr.storekeeping import needed_by

    with open_subject(run, rpc) as subject:
        yield needed_by(subject.connection, [subject.contract])


@contextmanager
def _needed_by(rpc: str, chain_id: int, contracts: list[str]) -> Iterator[Needed]:
    from bahefl_flwr.storekeeping import chain, needed_by

    yield needed_by(chain(rpc, chain_id), contracts)


def _tell(decided: Plan, *, deleted: bool, format: Format) -> None:
    facts = {
        "deleted": deleted,
        "files": len(decided.remove),
        "bytes": sum(f.size_bytes for f in decided.remove),
        "kept_files": len(decided.kept),
        "kept_bytes": sum(f.size_bytes for f in decided.kept),
        "young_files": decided.young,
        "damaged_manifests": list(decided.damaged),
    }
    if format is Format.JSON:
        typer.echo(json.dumps(facts, indent=2))
        return
    what = "deleted" if deleted else "would be deleted (--delete does it)"
    typer.echo(f"{facts['files']} files, {facts['bytes']:,} bytes, that no ledger refers to: {what}")
    typer.echo(
        f"{facts['kept_files']} files, {facts['kept_bytes']:,} bytes, kept; {decided.young} of them only until they are older"
    )
    for cid in decided.damaged:
        typer.echo(f"damaged manifest, no part is deleted while there is one: {cid}; restore it, or delete its file")
