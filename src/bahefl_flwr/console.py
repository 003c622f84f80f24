"""The `bahefl` command: finds the sub-command, and turns every error of this package into one line and its exit code.

A further sub-command is a module of `bahefl_flwr.commands` with a typer `app`, and its name in `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from bahefl_flwr import logs
from bahefl_flwr.errors import BaheflError

COMMANDS = (
    "audit",
    "data",
    "doctor",
    "evaluate",
    "export",
    "keys",
    "ledger",
    "members",
    "predict",
    "report",
    "resume",
    "site",
    "store",
)
INTERRUPTED = 130

_EPILOG = (
    "Exit codes: 0 done; 2 bad usage; 3 data folder; 4 ledger; 5 store, bundle or run folder; 7 keys; 10 an audit check does not "
    "hold; 12 the doctor found a failure; 130 stopped by Ctrl-C; 1 anything else."
)


class _Commands(TyperGroup):
    """The sub-commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of this name and take its `app`; None, which click makes bad usage, for a name not in `COMMANDS`."""
        if cmd_name not in COMMANDS:
            return None
        command: Any = import_module(f"bahefl_flwr.commands.{cmd_name}")
        found = typer.main.get_command(command.app)
        found.name = cmd_name
        return found


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Operator's and auditor's tools of bahefl_flwr.", epilog=_EPILOG,
)  # fmt: skip


@app.callback()
def options(
    context: typer.Context, verbose: Annotated[bool, typer.Option("--verbose", help="Tracebacks of errors.")] = False
) -> None:
    """Operator's and auditor's tools of bahefl_flwr."""
    context.obj = verbose


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code.

    Args:
      argv: arguments after the program's name; None takes those of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        logs.configure(os.environ.get(logs.VARIABLE, ""))
        app(args=arguments, prog_name="bahefl")
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaheflError as error:
        if "--verbose" in arguments:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def bahefl() -> None:
    """Console script `bahefl`."""
    code = main()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # A simulation that was stopped: Flower's threads may wait for replies that never come.
        from bahefl_flwr.cli import leave

        leave(code)
    sys.exit(code)
