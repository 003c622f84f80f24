"""An application as Flower's project files describe it: its two components and its own run-config.

Reads pyproject.toml only; nothing of the application is imported here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.settings import OTHER_APPS_EXPERIMENT, PREFIX, Scalar

_FILE = "pyproject.toml"
_OUR_OWN = "bahefl_flwr"
# What Hydra reads as it stands; anything else is quoted.
_PLAIN = re.compile(r"[A-Za-z0-9_.:/-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerProject:
    """What to run.

    Attributes:
      serverapp, clientapp: "module:attribute", as in `[tool.flwr.app.components]`.
      folder: of its pyproject.toml; None for a module without one.
      config: the application's own run-config, flat; None for our own application, whose run-config is our settings.
      overrides: what its `bahefl.` keys say of our settings, as `key=value`.
    """

    serverapp: str
    clientapp: str
    folder: Path | None = None
    config: Mapping[str, Scalar] | None = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    def told(self, words: Sequence[str]) -> tuple[FlowerProject, list[str]]:
        """The project with those `key=value` words applied that name its own keys, and all words that are for our settings.

        A setting that a word names wins over the project's. Where nothing names one, another application's experiment is
        `numpyclient`.

        Raises:
          SettingsError: a value is not of the type that the project's own has.
        """
        own, ours = dict(self.config or {}), []
        for word in words:
            key, given, text = word.partition("=")
            if given and key in own:
                own[key] = _like(own[key], text, word)
            else:
                ours.append(word.removeprefix(PREFIX))
        if self.config is None:
            return self, ours
        named = {word.partition("=")[0] for word in ours}
        default = (f"experiment={OTHER_APPS_EXPERIMENT}", *self.overrides)
        # The last of a name counts, as a later word wins over an earlier one.
        ours = list({word.partition("=")[0]: word for word in default if word.partition("=")[0] not in named}.values()) + ours
        return replace(self, config=own), ours


def read_project(app: str) -> FlowerProject:
    """The application that `--app` names: a project's folder, or a module that assigns `server_app` and `client_app`.

    A module that is a component of the project in the working directory runs with that project's run-config.

    Raises:
      SettingsError: the project's file is not TOML, names no components, or has values that a run-config cannot carry.
    """
    if (Path(app) / _FILE).is_file():
        return _read(Path(app).absolute())
    module = FlowerProject(serverapp=f"{app}:server_app", clientapp=f"{app}:client_app")
    if app.partition(".")[0] == _OUR_OWN:
        return replace(module, config=None)
    if not Path(_FILE).is_file():
        return module
    try:
        here = _read(Path.cwd())
    except SettingsError:
        # The folder of something else.
        return module
    return here if app in (here.serverapp.partition(":")[0], here.clientapp.partition(":")[0]) else module


def _read(folder: Path) -> FlowerProject:
    try:
        content = tomllib.loads((folder / _FILE).read_text(encoding="utf-8"))
        components = content["tool"]["flwr"]["app"]["components"]
        serverapp, clientapp = str(components["serverapp"]), str(components["clientapp"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{folder / _FILE} is not a Flower project's ({type(error).__name__}: {error}); it needs serverapp and clientapp in "
            "[tool.flwr.app.components], as `flwr new` writes them"
        ) from None
    if serverapp.startswith(f"{_OUR_OWN}."):
        return FlowerProject(serverapp=serverapp, clientapp=clientapp, folder=folder, config=None)
    flat = dict(_flatten(content["tool"]["flwr"]["app"].get("config", {}), "", folder))
    ours = tuple(f"{key.removeprefix(PREFIX)}={_hydra(value)}" for key, value in flat.items() if key.startswith(PREFIX))
    own = {key: value for key, value in flat.items() if not key.startswith(PREFIX)}
    return FlowerProject(serverapp=serverapp, clientapp=clientapp, folder=folder, config=own, overrides=ours)


def _flatten(tree: Mapping[str, Any], before: str, folder: Path) -> Iterator[tuple[str, Scalar]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{before}{key}.", folder)
        elif isinstance(value, bool | int | float | str):
            yield before + key, value
        else:
            kind = type(value).__name__
            raise SettingsError(f"{folder / _FILE}: {before}{key} is a {kind}; Flower carries bool, int, float and str only")


def _hydra(value: Scalar) -> str:
    """A value in Hydra's syntax."""
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _like(present: Scalar, text: str, word: str) -> Scalar:
    """A value of the application, read as TOML where that gives the type it has; a text needs no quotes."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if isinstance(present, str):
        return value if isinstance(value, str) else text
    if isinstance(present, float) and type(value) is int:
        return float(value)
    if type(value) is type(present):
        return value
    raise SettingsError(f"{word}: the project's own value is {present!r}, so this must be of type {type(present).__name__}, too")
