"""The passphrase of new keys: from a file, or typed at a prompt and kept in that file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.key_files import Passphrase as Checked

Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", help="Opens the keys; asked for and written if FILE is not there. Keep a copy."
    ),
]
Unencrypted = Annotated[bool, typer.Option("--unencrypted", help="Keys without a passphrase, for trials.")]


def passphrase(file: Path | None, *, unencrypted: bool) -> str:
    """The absolute path of the passphrase's file, which is there when this returns; empty for keys without one.

    Raises:
      KeysError: what was typed is no passphrase.
    """
    if (file is None) != unencrypted:
        raise click.UsageError("Say how the keys are protected: --passphrase-file FILE, or --unencrypted.")
    if file is None:
        return ""
    if not file.exists():
        if not sys.stdin.isatty():
            raise click.UsageError(f"{file} is not there, and no terminal to ask for a passphrase: write the file first.")
        typed = typer.prompt("passphrase", hide_input=True, confirmation_prompt=True)
        Checked(typed)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, f"{typed}\n".encode(), mode=0o600)
    return str(file.absolute())
