"""`bahefl report`: figures and tables of a run, at any time. Reads arguments and prints, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bahefl_flwr.report.outcome import ChosenModel

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, of a run that has ended or that goes on.")],
    slices: Annotated[
        bool | None,
        typer.Option("--slices/--no-slices", help="Show slices and measure each site again; default: for phantoms only."),
    ] = None,
) -> None:
    """Write RUN/report.html, one self-contained page, and RUN/report/ with each figure as PNG and each table as CSV.

    With --slices a report of a run on real slices holds pictures of patients: do not pass it on.
    """
    from bahefl_flwr.report import write
    from bahefl_flwr.trained import open_folder

    folder = open_folder(run)
    path = write(folder, _chosen(run, slices))
    typer.echo(f"{path}\n{path.parent / 'report'}: figures as PNG, tables as CSV")


def _chosen(run: Path, wanted: bool | None) -> ChosenModel | None:
    """The run's model, measured; None if nobody asked for it and it cannot be had without asking."""
    from bahefl_flwr.errors import BaheflError

    if wanted is False:
        return None
    try:
        from bahefl_flwr.report.chosen_model import measure
        from bahefl_flwr.trained import open_trained

        trained = open_trained(run)
        if wanted is None and trained.run.settings.data.kind != "phantom":
            return None
        return measure(trained)
    except BaheflError as error:
        if wanted:
            raise
        typer.echo(f"without slices: {error}", err=True)
        return None
