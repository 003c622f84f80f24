"""`bahefl resume`: go on with a run that was cut off, or end it for good. Reads arguments and starts, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bahefl_flwr.errors import RunFailed, SettingsError

if TYPE_CHECKING:
    from bahefl_flwr.trained import Run

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    superlink: Annotated[
        str, typer.Option("--superlink", metavar="NAME", help="Of a deployment: its name in Flower's configuration.")
    ] = "",
    project: Annotated[
        Path,
        typer.Option("--project", metavar="DIR", show_default=False, help="Of a deployment: its Flower project, . if not given."),
    ] = Path(),
    app_module: Annotated[
        str, typer.Option("--app", metavar="MODULE", show_default=False, help="Of a simulation: bahefl_flwr.app if not given.")
    ] = "bahefl_flwr.app",
    end: Annotated[bool, typer.Option("--end", help="End it instead: its open round is abandoned.")] = False,
) -> None:
    """Go on with a run that was cut off, at the round that its ledger has open.

    RUN is the run's folder. A deployment goes on through its SuperLink, as by `flwr run` with the same settings.
    """
    from bahefl_flwr.trained import open_run

    begun = open_run(run.expanduser())
    if begun.summary is not None and begun.summary["outcome"] == "completed":
        raise RunFailed(f"{run} was completed; there is nothing to go on with")
    if end:
        _end(begun)
    elif begun.settings.federation.admission == "registrar":
        _deployed(begun, superlink, project)
    else:
        from bahefl_flwr.cli import terminable
        from bahefl_flwr.flower_project import read_project
        from bahefl_flwr.simulation import simulate

        with terminable():
            simulate(read_project(app_module), begun.settings, begun=begun.folder)


def _end(begun: Run) -> None:
    from bahefl_flwr.driver import end_task
    from bahefl_flwr.federation import administer, run_goes_on

    if begun.settings.ledger.kind == "embedded":
        raise SettingsError(f"{begun.folder.path}: the ledger is the run's own and stopped with it; there is nothing to end")
    if not run_goes_on(begun.settings, begun.folder):
        raise RunFailed(f"{begun.folder.path}: its task is not the one that the contract has open; nothing was ended")
    end_task(administer(begun.folder.path), "ended by its administrator")
    typer.echo("ended")


def _deployed(begun: Run, superlink: str, project: Path) -> None:
    if not superlink:
        raise SettingsError(f"{begun.folder.path} is a deployment's: name its SuperLink with --superlink")
    import tomli_w

    from bahefl_flwr.administration import RUN_CONFIG, nested

    config = begun.folder.path / RUN_CONFIG
    config.write_text(tomli_w.dumps(nested(begun.settings)))
    flwr = Path(sys.executable).with_name("flwr")
    done = subprocess.run([flwr, "run", str(project), superlink, "--stream", "--run-config", str(config)], check=False)
    # Flower's command ends with 0 even where the ServerApp failed.
    summary = begun.folder.summary()
    if done.returncode or summary is None or summary["outcome"] != "completed":
        raise RunFailed(f"{begun.folder.path} was not completed (flwr run: exit code {done.returncode})")
