"""What a report is made of: a run folder, read once. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.report.outcome import ChosenModel
from bahefl_flwr.run_folder import CONFIG_FILE, RoundLine, RunFolder, RunSummary
from bahefl_flwr.settings import Settings, from_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A run, ended or not.

    Attributes:
      settings: None where config.yaml is missing or of another version; the report leaves out what they would say.
      summary: None while the run has not ended.
      chosen: None where the run's model was not measured again.
    """

    name: str
    settings: Settings | None
    lines: tuple[RoundLine, ...]
    summary: RunSummary | None
    chosen: ChosenModel | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture of the report: `name` of its file without ending, heading, one sentence below, and the PNG."""

    name: str
    heading: str
    caption: str
    png: bytes


def read(folder: RunFolder, chosen: ChosenModel | None = None) -> Facts:
    """Read a run folder.

    Raises:
      StoreError: a file of it is damaged.
    """
    return Facts(
        name=folder.path.resolve().name,
        settings=_settings(folder),
        lines=folder.metrics(),
        summary=folder.summary(),
        chosen=chosen,
    )


def _settings(folder: RunFolder) -> Settings | None:
    config = folder.path / CONFIG_FILE
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    try:
        return from_yaml(text) if text else None
    except SettingsError:
        return None
