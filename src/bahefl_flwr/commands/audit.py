"""`bahefl audit`: a run checked by anybody, and the bundle that carries it elsewhere. Arguments in, text out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from typer.core import TyperGroup

from bahefl_flwr.commands.output import Format
from bahefl_flwr.errors import SettingsError

if TYPE_CHECKING:
    from bahefl_flwr.audit.objects import Access

_DEFAULT = "run"


class _RunByDefault(TyperGroup):
    """`bahefl audit RUN` is short for `bahefl audit run RUN`."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What most people ask for is the default's arguments and options: those of `run`, and what there is besides."""
        check = self.commands[_DEFAULT]
        formatter.write_usage(ctx.command_path, "[OPTIONS] RUN")
        check.format_help_text(ctx, formatter)
        check.format_options(typer.Context(check, info_name=_DEFAULT, parent=ctx), formatter)
        self.format_commands(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A first word that is no sub-command belongs to `run`, which is put before it."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    help="Check a run from ledger and store alone.",
)  # fmt: skip

_Store = Annotated[Path | None, typer.Option("--store", metavar="FOLDER", help="The store's folder, where it is not in RUN.")]
_Identity = Annotated[
    Path | None, typer.Option("--identity", metavar="FOLDER", help="A member's keys, to read a served store with.")
]
_Passphrase = Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="What opens them.")]

# Hidden, because typer does not show what an argument is with the click of flwr's other dependencies; the texts below do.
_Run = Annotated[Path, typer.Argument(metavar="RUN", hidden=True)]


@app.command(_DEFAULT)
def check(
    run: _Run,
    round: Annotated[int | None, typer.Option("--round", metavar="K", help="Only this round.")] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Add up every aggregate again (check 8).")] = False,
    model: Annotated[Path | None, typer.Option("--model", metavar="FILE", help="The model file to compare (check 13).")] = None,
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", help="Ask this JSON-RPC endpoint instead of RUN's database.")] = "",
    store: _Store = None,
    identity: _Identity = None,
    passphrase_file: _Passphrase = None,
    format: Annotated[Format, typer.Option("--format", show_default=False, help="How the result is printed.")] = Format.TEXT,
) -> None:
    """Check a run: exit 0 if every check holds, 10 if one does not. The default: `bahefl audit RUN`.

    RUN is a run folder (of run.root), or a bundle that `bahefl audit export` wrote.
    """
    from bahefl_flwr.audit.auditing import audit
    from bahefl_flwr.audit.report import as_json, as_text, exit_code

    access = _access(store, identity, passphrase_file)
    report = audit(run, round=round, recompute=recompute, model=model, rpc=rpc, access=access)
    typer.echo(as_json(report) if format is Format.JSON else as_text(report))
    raise typer.Exit(exit_code(report))


@app.command()
def export(
    run: _Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    store: _Store = None,
    identity: _Identity = None,
    passphrase_file: _Passphrase = None,
) -> None:
    """Write one file with all that an audit needs.

    RUN is a run folder, FILE the bundle to write, for instance run.zip; it verifies elsewhere with `bahefl audit FILE`.
    """
    from bahefl_flwr.audit.auditing import export as write

    digest = write(run, file, _access(store, identity, passphrase_file))
    typer.echo(f"{file}  {file.stat().st_size:,} bytes\nsha256 {digest}")


def _access(store: Path | None, identity: Path | None, passphrase_file: Path | None) -> Access:
    from bahefl_flwr.audit.objects import Access
    from bahefl_flwr.identity import Identity
    from bahefl_flwr.key_files import THROW_AWAY, Passphrase

    if identity is None:
        return Access(folder=store)
    try:
        passphrase = Passphrase(passphrase_file.read_text(encoding="utf-8").rstrip("\n")) if passphrase_file else THROW_AWAY
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read the passphrase in {passphrase_file}: {error}") from None
    return Access(folder=store, identity=Identity.load(identity, passphrase))
