"""A run and the model it chose, opened from its folder: what `bahefl evaluate`, `predict`, `export` and `report` work on.

Reads the files of a simulation's run folder, or those that a site keeps of a task in its home: between hospitals only sites have
the model. No torch at the top: the network is built when somebody asks for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run and its model: that of the best round. `file`: where a site keeps it. Without slots: the digest is computed once."""

    run: Run
    model: Model
    file: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model, hexadecimal."""
        return self.model.digest().hex()

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

    Of a run every site's newest and best file is read: a warning names each that is damaged, or holds another model than the one
    which its round gave, by the lines of the run (a site's folder: by its own notes, once a model is chosen).

    Raises:
      SettingsError: it is neither. StoreError: no site has the model that the summary names, or any at all; before the end, sites
      differ in the newest one and nothing tells which is right; a site's file is another model than the site opened.
      JournalError: the site's journal is damaged.
    """
    path = path.expanduser()
    if _is_sites(path):
        return _of_site(path)
    return _of_run(_read(_folder(path, nor=f", and none that a site keeps {_of_a_home(path)}")))


def _of_run(run: Run) -> Trained:
    """The model that the summary names; without one, the newest that a site has."""
    path = run.folder.path
    files = [file for name in (MODEL_FILE, BEST_FILE) for file in sorted(path.glob(f"sites/*/{name}"))]
    if not files:
        raise StoreError(
            f"{path}: no site keeps a {MODEL_FILE} here. Between hospitals each site has it in its home: name the folder that it "
            "keeps of the task, HOME/runs/... In a simulation, no site has started to train yet"
        )
    summary: Mapping[str, Any] = run.summary or {}
    chosen = summary.get("chosen") or summary.get("ledger") or {}
    if digest := chosen.get("model_digest"):
        return _named(run, files, digest, chosen.get("round", 0))
    return _newest(run, files)


def _named(run: Run, files: Sequence[Path], digest: str, number: int) -> Trained:
    """The model of this digest. A damaged or exchanged file is no harm where there is another copy, and is told.

    Args:
      number: the round that chose it. After a held round the same model stands under a later number, too.
    """
    whole, damaged = _read_all(run, files)
    copies = [copy for copy in whole if copy.digest == digest]
    if not copies:
        reasons = "; ".join([*damaged, *map(_told, whole)])
        raise StoreError(f"no site has the model {digest[:16]} that was chosen in {run.folder.path}: {reasons}")
    taken = max(copies, key=lambda copy: copy.model.round == number)
    unknown = [f"{_told(copy)}, which the record of rounds lacks: not compared" for copy in whole if _untold(run, copy)]
    _warn([*damaged, *_exchanged(run, whole).values(), *unknown], taken)
    return taken


def _newest(run: Run, files: Sequence[Path]) -> Trained:
    """The model of the newest round that any file holds, of those that are what they say.

    The newest round has its line only when the next one has begun. Until then its model is the one that most files of it hold.

    Raises:
      StoreError: there is none, or the files of a round without a line hold models of which none is in most of them.
    """
    whole, damaged = _read_all(run, files)
    exchanged = _exchanged(run, whole)
    sound = [copy for copy in whole if copy.file not in exchanged and copy.model.round]
    told = [*damaged, *exchanged.values()]
    if not sound:
        untrained = "no round was finalised, so that the sites hold nothing but the first weights, untrained"
        raise StoreError(f"{run.folder.path}: {'no site has a good model: ' + '; '.join(told) if told else untrained}")
    number = max(copy.model.round for copy in sound)
    newest = [copy for copy in sound if copy.model.round == number]
    digest, count = Counter(copy.digest for copy in newest).most_common(1)[0]
    if 2 * count <= len(newest):
        raise StoreError(
            f"{run.folder.path}: sites differ in the model of round {number}, of which metrics.jsonl has no line yet: "
            f"{'; '.join(map(_told, newest))}. Let the run go on (bahefl resume), or move the wrong files away"
        )
    taken = next(copy for copy in newest if copy.digest == digest)
    other = [f"{_told(copy)}, most sites have {digest[:16]}: exchanged" for copy in newest if copy.digest != digest]
    unsure = [f"{_told(taken)}, of which metrics.jsonl has no line yet: not compared"] if _untold(run, taken) else []
    _warn([*told, *other, *unsure], taken)
    return taken


def _read_all(run: Run, files: Sequence[Path]) -> tuple[list[Trained], list[str]]:
    """The files that are whole, and what is wrong with each other one."""
    whole, damaged = [], []
    for file in files:
        try:
            whole.append(Trained(run=run, model=load_model(file), file=file))
        except StoreError as error:
            damaged.append(str(error))
    return whole, damaged


def _exchanged(run: Run, copies: Sequence[Trained]) -> dict[Path, str]:
    """What is wrong with each file that holds another model than the one which its round gave, by the run's lines."""
    given = {line["round"]: line["model_digest"] if line["finalised"] else "" for line in run.lines}
    return {
        copy.file: f"{_told(copy)}, a round that gave {given[copy.model.round][:16] or 'none'}: exchanged"
        for copy in copies
        if copy.digest != given.get(copy.model.round, copy.digest)
    }


def _untold(run: Run, copy: Trained) -> bool:
    """Whether the model is of a round of which the run has no line; of the first weights it has none."""
    return copy.model.round not in {0, *(line["round"] for line in run.lines)}


def _told(copy: Trained) -> str:
    return f"{copy.file} is model {copy.digest[:16]} of round {copy.model.round}"


def _warn(texts: Sequence[str], taken: Trained) -> None:
    for text in texts:
        _log.warning("%s (the model of round %d was taken from %s)", text, taken.model.round, taken.file)


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
        trained = _named(run, files, digest, lineage.chosen)
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
            "model_digest": note["model"],
            "coordinator": {"address": note["coordinator"]},
        }
        for number, note in lineage.rounds.items()
    )
