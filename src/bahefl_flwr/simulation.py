"""One simulated run from checked settings to its folder. Shared by the single command and the sweep."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bahefl_flwr.errors import RunFailed, SettingsError
from bahefl_flwr.flower_project import FlowerProject
from bahefl_flwr.run_folder import RunFolder, find, lead_to
from bahefl_flwr.setting_groups import StoreSettings
from bahefl_flwr.settings import Settings, check_data_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A run that ended without an error. `folder` is None for an app that keeps none."""

    run_id: int
    folder: RunFolder | None


def simulate(app: FlowerProject, settings: Settings, *, verbose: bool = False, begun: RunFolder | None = None) -> Simulation:
    """Run an app on Flower's Ray engine with `settings.federation.sites` sites.

    An app of somebody else's gets its own run-config, and beside it our settings.

    Args:
      begun: folder of a run with these settings that was cut off, to go on with.

    Raises:
      SettingsError: there is no such module, or run.root or the store's folder cannot be written. StoreUnavailable: no store
        answers at store.url. DataError: the data folder is missing, or its slices cannot be read or split. All before anything
        is started.
      BaheflError: whatever the ServerApp raised.
    """
    root = Path(settings.run.root).expanduser().absolute()
    _check(app, settings, root)
    # Ray's workers must not depend on where they were started.
    settings = settings.model_copy(update={"run": settings.run.model_copy(update={"root": str(root)})})
    _announce(app, settings)
    # Takes 2 s and is of no use to --help or a misspelt setting.
    from bahefl_flwr._flwr_compat import new_run_id, run_simulation

    run_id = new_run_id()
    if begun is not None:
        lead_to(begun, root, run_id)
    run_simulation(
        app.serverapp,
        app.clientapp,
        settings.federation.sites,
        settings.flat() if app.config is None else settings.beside(app.config),
        run_id=run_id,
        use_gpu=settings.train.device != "cpu",
        verbose=verbose,
    )
    try:
        return Simulation(run_id=run_id, folder=find(root, run_id))
    except RunFailed:
        return Simulation(run_id=run_id, folder=None)


def _announce(app: FlowerProject, settings: Settings) -> None:
    # How many rounds another app runs is its own business.
    what = f"{settings.experiment}: " if app.config is None else f"{app.serverapp}: "
    rounds = f", {settings.federation.rounds} rounds" if app.config is None else ""
    print(f"{what}{settings.federation.sites} sites{rounds}; Flower's Ray engine takes about 10 s to start", flush=True)


def _check(app: FlowerProject, settings: Settings, root: Path) -> None:
    """All that can be told before anything is started."""
    check_data_folder(settings.data)
    _check_app(app)
    _check_writable(root, "run.root")
    _check_store(settings.store)
    _check_slices(settings)


def _check_writable(root: Path, name: str) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise SettingsError(f"{name}={root} cannot be written: {error}; give {name}=<a folder of yours>") from error


def _check_store(store: StoreSettings) -> None:
    """A folder that cannot be written, or a server that is not there: told before anything is started."""
    if store.kind == "local" and Path(store.path).is_absolute():
        _check_writable(Path(store.path), "store.path")
    if store.kind == "http":
        # Loads the HTTP client, which other stores do without.
        from bahefl_flwr.stores import greet

        greet(store)


def _check_slices(settings: Settings) -> None:
    """Read and split a folder once, so that its problems are told once and before anything is started."""
    if settings.data.kind == "folder":
        # OpenCV takes a second to import; phantoms need no check.
        from bahefl_flwr.lesion.sites import site_data

        site_data(settings.data, site=0, sites=settings.federation.sites, seed=settings.run.seed)


def _check_app(app: FlowerProject) -> None:
    # As Flower does with an app's folder; last, so that a file here cannot stand in for an installed module.
    if (folder := str(app.folder or Path.cwd())) not in sys.path:
        sys.path.append(folder)
    for component in (app.serverapp, app.clientapp):
        module = component.rpartition(":")[0]
        try:
            found = importlib.util.find_spec(module) if ":" not in module else None
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise SettingsError(
                f"--app {module}: no such module; give a Flower project's folder, or give the importable module that assigns "
                "server_app and client_app, e.g. bahefl_flwr.app"
            )
