"""A run and the model it chose, opened from its folder: what `bahefl evaluate`, `predict`, `export` and `report` work on.

Reads the files of a simulation's run folder, or those that a site keeps of a task in its home: between hospitals only sites have
the model. No torch at the top: the network is built when somebody asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bahefl_flwr.errors import SettingsError, StoreError
from bahefl_flwr.homes import SITE_FILE
from bahefl_flwr.run_folder import CONFIG_FILE, RoundLine, RunFolder, RunSummary
from bahefl_flwr.settings import Settings, from_yaml
from bahefl_flwr.site.lineage import Lineage, read_lineage
from bahefl_flwr.site.model import BEST_FILE, MODEL_FILE, Model, load_model
from bahefl_flwr.site.state import JOURNAL_FILE, SETTINGS_FILE

if TYPE_CHECKING:
    from bahefl_flwr.lesion.model import LightUNet

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder, or a site's folder of its task, read.

    Attributes:
      summary: None while the run has not ended, and at a site, which knows no other site's figures.
      lineage: what a site noted instead of lines and summary; None in a run folder.
    """

    folder: RunFolder
    settings: Settings
    lines: tuple[RoundLine, ...]
    summary: RunSummary | None
    lineage: Lineage | None = None

    @property
    def name(self) -> str:
        """The folder's own name, which holds its date."""
        return self.folder.path.resolve().name


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run and its model: that of the best round. `file`: where a site keeps it."""

    run: Run
    model: Model
    file: Path

    def network(self) -> LightUNet:
        """The model as a network that can be used.

        Raises:
          UpdateError: the run trained another application's model.
        """
        from bahefl_flwr.lesion.prediction import restored

        settings = self.run.settings
        return restored(settings.model, settings.data.image_size_px, self.model.arrays)

    def unlike(self, names: Sequence[str], folder: Path) -> str:
        """A warning where the model learned from slices of another kind, as far as settings and file names tell; else "".

        Args:
          names: of the slices in `folder`.
        """
        from bahefl_flwr.lesion.data import all_phantoms

        kind, generated = self.run.settings.data.kind, all_phantoms(names)
        if kind == "phantom" and not generated:
            return (
                f"the model was trained on generated phantoms (data.kind=phantom), and {folder} holds other slices: what it is "
                "worth there tells nothing of a model trained on slices of their kind (data=folder data.root=...)"
            )
        if kind == "folder" and generated:
            return (
                f"the model was trained on the slices of a folder (data.kind=folder), and {folder} holds generated phantoms, by "
                "their names: what it is worth there tells nothing of real CT"
            )
        return ""


def open_folder(path: Path) -> RunFolder:
    """A run's folder, of whichever version.

    Raises:
      SettingsError: it is none.
    """
    path = path.expanduser()
    if _is_sites(path):
        raise SettingsError(
            f"{path} is a site's folder, which knows its own models and no figures of others: evaluate, predict and export read "
            f"it; name the run's folder (with {CONFIG_FILE}, in run.root where the ServerApp ran)"
        )
    return _folder(path)


def _is_sites(path: Path) -> bool:
    return (path / SETTINGS_FILE).is_file() and (path / JOURNAL_FILE).is_file()


def _folder(path: Path, nor: str = "") -> RunFolder:
    """A run's folder.

    Args:
      nor: what else was looked for, to end the message with.

    Raises:
      SettingsError: it is none.
    """
    if not (path / CONFIG_FILE).is_file():
        raise SettingsError(f"{path} is no run folder (a folder with {CONFIG_FILE}, as in run.root){nor}")
    return RunFolder(path=path)


def open_run(path: Path) -> Run:
    """Read a run folder, also of a run that is going on.

    Raises:
      SettingsError: it is no run folder, or of a version with other settings. StoreError: its files are damaged.
    """
    return _read(open_folder(path))


def _read(folder: RunFolder) -> Run:
    settings = from_yaml((folder.path / CONFIG_FILE).read_text(encoding="utf-8"))
    return Run(folder=folder, settings=settings, lines=folder.metrics(), summary=folder.summary())


def open_trained(path: Path) -> Trained:
    """Read a run folder, or a site's of a task, and the model that was chosen; before the end, the newest model that is there.

    Of the chosen model's copies every one is read: of each that is damaged, or another model, a warning names the file.

    Raises:
      SettingsError: it is neither. StoreError: no site has the model that the summary names, or any at all; a site's file is
      another model than the site opened. JournalError: the site's journal is damaged.
    """
    path = path.expanduser()
    if _is_sites(path):
        return _of_site(path)
    return _of_run(_read(_folder(path, nor=f", and none that a site keeps {_of_a_home(path)}")))


def _of_run(run: Run) -> Trained:
    """The model that the summary names; without one, that of the site that is ahead."""
    path = run.folder.path
    files, best = (sorted(path.glob(f"sites/*/{name}")) for name in (MODEL_FILE, BEST_FILE))
    if not files:
        raise StoreError(
            f"{path}: no site keeps a {MODEL_FILE} here. Between hospitals each site has it in its home: name the folder that it "
            "keeps of the task, HOME/runs/... In a simulation, no site has started to train yet"
        )
    chosen = (run.summary.get("chosen") or run.summary.get("ledger")) if run.summary else None
    if chosen and chosen["model_digest"]:
        return _named(run, [*files, *best], chosen["model_digest"])
    models = [(load_model(file), file) for file in files]
    model, file = max(models, key=lambda pair: pair[0].round)
    if not model.round:
        raise StoreError(f"{path}: no round was finalised, so that the sites hold nothing but the first weights, untrained")
    return Trained(run=run, model=model, file=file)


def _named(run: Run, files: Sequence[Path], digest: str) -> Trained:
    """The model of this digest. A damaged or exchanged file is no harm where there is another copy, and is told.

    A sound file of another round than the chosen one is no copy of the model, so nothing is said of it.
    """
    found: Trained | None = None
    damaged, others = [], []
    for file in files:
        try:
            model = load_model(file)
        except StoreError as error:
            damaged.append(str(error))
            continue
        if model.digest().hex() != digest:
            others.append((model.round, f"{file} is model {model.digest().hex()[:16]} of round {model.round}"))
        elif found is None:
            found = Trained(run=run, model=model, file=file)
    if found is None:
        reasons = "; ".join([*damaged, *(text for _, text in others)])
        raise StoreError(f"no site has the model {digest[:16]} that was chosen in {run.folder.path}: {reasons}")
    exchanged = [f"{text}, chosen was {digest[:16]}: exchanged" for number, text in others if number == found.model.round]
    for text in (*damaged, *exchanged):
        _log.warning("%s (a good copy was taken, %s)", text, found.file)
    return found


def _of_a_home(path: Path) -> str:
    """What a site's folder looks like; the ones there are, if the path is a home."""
    looks = f"of a task (HOME/runs/..., with {SETTINGS_FILE} and {JOURNAL_FILE})"
    if not (path / SITE_FILE).is_file():
        return looks
    tasks = ", ".join(str(task) for task in sorted((path / "runs").glob("*")))
    return f"{looks}; this is a home{f', name one of {tasks}' if tasks else ', which has taken part in no task yet'}"


def _of_site(folder: Path) -> Trained:
    """The model that the site tested as the run's, or else the newest one; each only if it is the one that the site opened."""
    lineage = read_lineage(folder)
    settings = from_yaml((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    run = Run(folder=RunFolder(path=folder), settings=settings, lines=_lines(lineage), summary=None, lineage=lineage)
    files = [file for name in (MODEL_FILE, BEST_FILE) if (file := folder / name).is_file()]
    if not files:
        raise StoreError(f"{folder}: there is no {MODEL_FILE}; the same model is at every other site")
    if digest := lineage.chosen_digest():
        trained = _named(run, files, digest)
    else:
        trained = Trained(run=run, model=load_model(files[0]), file=files[0])
    lineage.expect(trained.model, trained.file)
    return trained


def _lines(lineage: Lineage) -> tuple[RoundLine, ...]:
    """What a site knows of the finalised rounds; abandoned ones leave no trace there."""
    return tuple(
        {
            "round": number,
            "finalised": True,
            "included": note["included"],
            "aggregate_digest": note["aggregate"],
            "coordinator": {"address": note["coordinator"]},
        }
        for number, note in lineage.rounds.items()
    )
