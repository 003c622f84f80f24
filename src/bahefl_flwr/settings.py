"""The one validated form of all settings: `conf/` holds every value, the frozen models here hold meaning and allowed range.

No default lives here. Every leaf is a scalar, so that the same settings travel unchanged through Flower's flat run-config.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

from bahefl_flwr.composition import compose_tree, did_you_mean, flatten
from bahefl_flwr.errors import DataError, SettingsError
from bahefl_flwr.setting_groups import (
    AttackSettings,
    DataSettings,
    FederationSettings,
    Group,
    HeSettings,
    LedgerSettings,
    ModelSettings,
    RunSettings,
    ScreeningSettings,
    StoreSettings,
    TrainSettings,
)

Scalar = bool | int | float | str

DEFAULT_EXPERIMENT = "default"
OTHER_APPS_EXPERIMENT = "numpyclient"
PREFIX = "bahefl."
"""In the run-config of an application with keys of its own, what ours begin with."""
# In a run-config: true when every value is final, false (or absent) while `experiment` is still to be composed.
_RESOLVED = "resolved"
# What a setting without `bahefl.` in front was certainly meant for; the other groups are our own application's.
_PROTOCOL = ("federation", "he", "ledger", "screening", "store")
_OF_ONE_NODE = {
    "url", "contract", "administrator", "max_fee_gwei", "priority_fee_gwei", "timeout_s", "patience_s",
}  # fmt: skip


class Settings(Group):
    """Everything a run can be told, complete and checked."""

    experiment: str
    run: RunSettings
    federation: FederationSettings
    he: HeSettings
    ledger: LedgerSettings
    store: StoreSettings
    screening: ScreeningSettings
    attack: AttackSettings
    train: TrainSettings
    data: DataSettings
    model: ModelSettings

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        committee = min(self.he.committee, self.federation.sites)
        t = self.he.threshold
        if t > committee:
            raise ValueError(
                f"he.threshold={t} of a committee of {committee} can never open anything; use 0 (majority) to {committee}"
            )
        if t > 1 and 2 * t <= committee:
            raise ValueError(
                f"he.threshold={t} is not a majority of the committee of {committee}: "
                f"use 0 for {committee // 2 + 1}, or 1 for the paper's single key"
            )
        return self

    @model_validator(mode="after")
    def _attacks_are_simulated(self) -> Self:
        if self.attack.name != "none" and self.ledger.kind != "embedded":
            raise ValueError(f"attack.name={self.attack.name} is for simulations on the embedded ledger only: add attack=none")
        return self

    @property
    def committee_size(self) -> int:
        """Members of the key committee if every site takes part."""
        return min(self.he.committee, self.federation.sites)

    def flat(self) -> dict[str, Scalar]:
        """Dotted keys to scalars, complete and marked as final, as Flower's run-config carries them."""
        return {**flatten(self.model_dump()), _RESOLVED: True}

    def beside(self, app_config: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The run-config of an application with keys of its own: those, and all of ours, final, with `bahefl.` in front."""
        return {**app_config, **{PREFIX + key: value for key, value in self.flat().items()}}

    def yaml(self) -> str:
        """The same settings as a nested YAML text, in the order of the classes here: a run's config.yaml."""
        import yaml

        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over the canonical JSON of all settings that every site must share.

        Left out: the run's name, paths, endpoints, what a site pays and waits for its node, and how it uses its own hardware.
        """
        shared = self.model_dump(
            mode="json",
            exclude={
                "run": {"name", "root"},
                "store": True,
                "data": {"root", "cache"},
                "ledger": _OF_ONE_NODE,
                "train": {"device", "precision", "threads"},
            },
        )
        return hashlib.sha256(json.dumps(shared, sort_keys=True, separators=(",", ":")).encode()).digest()


def compose(overrides: Sequence[str] = ()) -> Settings:
    """The settings of `conf/` with Hydra overrides, checked: `compose(["experiment=paper", "train.lr=1e-3"])`.

    Raises:
      SettingsError: an override that does not parse, names nothing that exists, or has a value that is not allowed.
    """
    return validate(compose_tree(overrides))


def validate(tree: Mapping[str, Any]) -> Settings:
    """Check a nested mapping of settings; every key must be there.

    Raises:
      SettingsError: naming every wrong key, what it got and what is allowed.
    """
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors(include_url=False)]
        raise SettingsError("settings refused:\n  " + "\n  ".join(lines)) from None


def from_yaml(text: str) -> Settings:
    """Settings from a run's config.yaml, as `Settings.yaml` wrote it.

    Raises:
      SettingsError: it is of another version: a key is missing, unknown or has a value that is not allowed.
    """
    import yaml

    return validate(yaml.safe_load(text))


def from_run_config(run_config: Mapping[str, Scalar]) -> Settings:
    """Settings from Flower's flat run-config.

    `Settings.flat()` comes back as it was. A run-config edited by `flwr run --run-config ...` may name another `experiment`:
    that one is composed, and every key whose value differs from the default experiment's overrides it.

    Both have a key `resolved`. A run-config without it is another application's: ours are the keys that begin with `bahefl.`,
    what is absent is as in `experiment=numpyclient`, and all other keys are the application's own.

    Raises:
      SettingsError: a key is missing, unknown or has a value that is not allowed, or lacks its `bahefl.`.
    """
    config = dict(run_config)
    if _RESOLVED not in config:
        return _of_another_app(config)
    final = config.pop(_RESOLVED)
    experiment = config.get("experiment", DEFAULT_EXPERIMENT)
    # The default experiment is what pyproject.toml holds already: no need to load Hydra in every short-lived ClientApp.
    if final or experiment == DEFAULT_EXPERIMENT:
        return validate(_nested(config))
    default = flatten(compose_tree(()))
    changed = {key: value for key, value in config.items() if default.get(key) != value}
    return validate(_nested({**flatten(compose_tree([f"experiment={experiment}"])), **changed}))


def _of_another_app(config: Mapping[str, Scalar]) -> Settings:
    stray = [key for key in config if key.startswith(tuple(f"{group}." for group in _PROTOCOL)) and key in _known_keys()]
    if stray:
        raise SettingsError(
            f"{', '.join(stray)}: beside an application's own keys write {PREFIX}{stray[0]}, and so on: without it, a key is the "
            "application's"
        )
    ours = {key.removeprefix(PREFIX): value for key, value in config.items() if key.startswith(PREFIX)}
    if ours.pop(_RESOLVED, False):
        return validate(_nested(ours))
    return validate(_nested({**_experiment(str(ours.get("experiment", OTHER_APPS_EXPERIMENT))), **ours}))


@cache
def _experiment(name: str) -> Mapping[str, Scalar]:
    """Once a process: a site asks for it with every message, and Hydra takes a second to load."""
    return flatten(compose_tree([f"experiment={name}"]))


def check_data_folder(data: DataSettings) -> None:
    """Make sure that the folder of `data.kind=folder` is there, before anything slow starts.

    Raises:
      DataError: `root` is not set, or lacks `frames/` or `masks/`.
    """
    if data.kind != "folder":
        return
    missing = [part for part in ("frames", "masks") if not (Path(data.root).expanduser() / part).is_dir()]
    if not data.root or missing:
        lacks = f"{data.root!r} has no {' and no '.join(missing)}" if data.root else "it is not set"
        raise DataError(f"data.kind=folder needs data.root=<folder with frames/ and masks/>; {lacks}")


def cautions(settings: Settings) -> tuple[str, ...]:
    """What is allowed, but worth a second thought before a run starts: what is the matter, and after "; " what to do."""
    federation, holders = settings.federation, settings.committee_size
    majority = holders // 2 + 1
    found = []
    if federation.min_sites >= federation.sites:
        found.append(
            f"federation.min_sites={federation.min_sites} of federation.sites={federation.sites}: no site may fail, every round "
            "that one of them misses is abandoned; lower federation.min_sites (docs/security.md says to what), or add sites"
        )
    if needed := no_holder_to_spare(settings.he.threshold or majority, holders):
        spare = holders - majority
        advice = f"set he.threshold={majority}, and {spare} may fail" if spare else "let more sites hold the key"
        found.append(f"he.threshold={settings.he.threshold}: {needed}; {advice} (docs/protocol.md)")
    return tuple(found)


def no_holder_to_spare(threshold: int, committee: int) -> str:
    """What follows if every member of a committee is needed to open; "" where one may be missing, or each opens alone."""
    if threshold == 1 or threshold < committee:
        return ""
    return (
        f"all {committee} of {committee} key holders must open together, so a single one that is silent or releases a broken "
        "share stops every round while it holds the key, and nobody can check a share that only seems right"
    )


def _nested(flat: Mapping[str, Scalar]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        group, _, leaf = key.partition(".")
        if leaf:
            tree.setdefault(group, {})[leaf] = value
        else:
            tree[group] = value
    return tree


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: no such setting{did_you_mean(where, _known_keys())}"
    if error["type"] == "missing":
        return f"{where}: missing; settings.compose() takes it from conf/"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        message += did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    # A cross-field check names its fields itself, and its input is a whole group.
    return message if error["type"] == "value_error" else f"{where}: {message} (got {error['input']!r})"


def _known_keys() -> list[str]:
    groups = {name: field.annotation for name, field in Settings.model_fields.items()}
    return [
        f"{name}.{leaf}"
        for name, group in groups.items()
        if isinstance(group, type) and issubclass(group, BaseModel)
        for leaf in group.model_fields
    ]
