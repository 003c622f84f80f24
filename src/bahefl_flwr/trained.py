"""A run and the model it chose, opened from its folder: what `bahefl evaluate`, `predict`, `export` and `report` work on.

Reads the files of a simulation's run folder. No torch at the top: the network is built when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bahefl_flwr.errors import SettingsError, StoreError
from bahefl_flwr.run_folder import RoundLine, RunFolder, RunSummary
from bahefl_flwr.settings import Settings, from_yaml
from bahefl_flwr.site.model import BEST_FILE, MODEL_FILE, Model, load_model

if TYPE_CHECKING:
    from bahefl_flwr.lesion.model import LightUNet

_CONFIG = "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder, read.

    Attributes:
      summary: None while the run has not ended.
    """

    folder: RunFolder
    settings: Settings
    lines: tuple[RoundLine, ...]
    summary: RunSummary | None

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


def open_folder(path: Path) -> RunFolder:
    """A run's folder, of whichever version.

    Raises:
      SettingsError: it is none.
    """
    path = path.expanduser()
    if not (path / _CONFIG).is_file():
        raise SettingsError(f"{path} is no run folder (a folder with {_CONFIG}, as in run.root)")
    return RunFolder(path=path)


def open_run(path: Path) -> Run:
    """Read a run folder, also of a run that is going on.

    Raises:
      SettingsError: it is no run folder, or of a version with other settings. StoreError: its files are damaged.
    """
    folder = open_folder(path)
    settings = from_yaml((folder.path / _CONFIG).read_text(encoding="utf-8"))
    return Run(folder=folder, settings=settings, lines=folder.metrics(), summary=folder.summary())


def open_trained(path: Path) -> Trained:
    """Read a run folder and the model that it chose; of a run that has not ended, the newest model that a site has.

    Raises:
      SettingsError: it is no run folder. StoreError: no site has the model that the summary names, or any at all.
    """
    run = open_run(path)
    files, best = (sorted(run.folder.path.glob(f"sites/*/{name}")) for name in (MODEL_FILE, BEST_FILE))
    if not files:
        raise StoreError(
            f"{path}: no site keeps a {MODEL_FILE} here; the run has not started to train, or its sites run elsewhere"
        )
    chosen = (run.summary.get("chosen") or run.summary.get("ledger")) if run.summary else None
    if chosen and chosen["model_digest"]:
        return _named(run, [*files, *best], chosen["model_digest"])
    models = [(load_model(file), file) for file in files]
    model, file = max(models, key=lambda pair: pair[0].round)
    return Trained(run=run, model=model, file=file)


def _named(run: Run, files: Sequence[Path], digest: str) -> Trained:
    """The model of this digest. One site's damaged file is no harm where another site has the model."""
    reasons = []
    for file in files:
        try:
            model = load_model(file)
        except StoreError as error:
            reasons.append(str(error))
            continue
        if model.digest().hex() == digest:
            return Trained(run=run, model=model, file=file)
        reasons.append(f"{file} is model {model.digest().hex()[:16]} of round {model.round}")
    raise StoreError(f"no site has the model {digest[:16]} that was chosen in {run.folder.path}: " + "; ".join(reasons))
