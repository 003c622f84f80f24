"""Options that several commands have, and how they print what they found."""

from enum import StrEnum
from typing import Annotated

import typer

from bahefl_flwr.ledger.node import CHAIN_ID


class Format(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"


RUN_HELP = "A run's folder, or a site's of a task (HOME/runs/...); while the run goes on, its newest model."

FormatOption = Annotated[Format, typer.Option("--format", show_default=False, help="text (the default) or json.")]
ChainOption = Annotated[
    int, typer.Option("--chain-id", metavar="ID", show_default=False, help=f"Of the ledger: {CHAIN_ID} if not given.")
]
