"""Hydra: turns the files of `conf/` and overrides like `train.lr=1e-4` into one tree of plain values.

The only module that imports Hydra, and only when called. What a value means and whether it is allowed is decided in settings.py.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bahefl_flwr.errors import SettingsError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def conf_folder() -> Path:
    """The folder of settings files: `conf/` inside the installed package, or of the checkout around `src/`.

    Raises:
      SettingsError: neither exists (a broken installation).
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise SettingsError(f"no conf/config.yaml beside {package}: the installation is incomplete; install bahefl-flwr again")


def experiments() -> tuple[str, ...]:
    """Names that `experiment=` accepts, sorted."""
    return _choices("experiment")


def compose_tree(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `conf/config.yaml` with Hydra overrides, interpolations resolved.

    Args:
      overrides: `key=value` or `group=choice`, e.g. `("experiment=paper", "train.lr=1e-3")`. Sweeps are refused.

    Raises:
      SettingsError: naming the override that does not parse or names no key, group or choice, with the nearest that exists.
    """
    for override in _parse(overrides):
        if override.is_sweep_override():
            raise SettingsError(f"{override.input_line} is a sweep: run it with python -m bahefl_flwr -m {override.input_line}")
    return _compose(overrides)


def expand_sweep(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """All combinations of a sweep in Hydra's order: the last key varies fastest.

    `("train.lr=1e-4,3e-4", "data.alpha=0.5")` gives `[("train.lr=1e-4", "data.alpha=0.5"), ("train.lr=3e-4", "data.alpha=0.5")]`.

    Raises:
      SettingsError: as `compose_tree`.
    """
    axes = []
    for override in _parse(overrides):
        if override.is_sweep_override():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([str(override.input_line)])
    return list(itertools.product(*axes))


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with _hydra():
        try:
            tree = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise SettingsError(f"settings {' '.join(overrides)!r} do not compose: {_first_line(error)}") from None
    return cast("dict[str, Any]", tree)


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def _parse(overrides: Sequence[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            [override] = parser.parse_overrides([text])
        except HydraException as error:
            raise SettingsError(f"{text!r} is not of the form key=value ({_first_line(error)}); see --help") from None
        parsed.append(override)
    for override in parsed:
        _check_target(override)
    return parsed


def _check_target(override: Override) -> None:
    """Refuse what Hydra would refuse, or add silently, with the name the user probably meant."""
    key = str(override.key_or_group)
    if override.is_add() or override.is_delete():
        raise SettingsError(f"{override.input_line}: settings are neither added (+) nor deleted (~), only changed: key=value")
    groups = sorted(p.name for p in conf_folder().iterdir() if p.is_dir())
    if key in groups:
        _check_choice(key, override)
    elif key not in (known := flatten(_compose(()))):
        hint = did_you_mean(key, [*known, *groups])
        raise SettingsError(f"{key}: no such setting{hint}; python -m bahefl_flwr --show lists all of them")


def _check_choice(group: str, override: Override) -> None:
    choices = _choices(group)
    values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(override.value())]
    for value in values:
        if value not in choices:
            raise SettingsError(f"{group}={value}: no such choice{did_you_mean(value, choices)}; there are {', '.join(choices)}")


def _choices(group: str) -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in (conf_folder() / group).glob("*.yaml")))


def did_you_mean(got: str, known: Sequence[str]) -> str:
    """`"; did you mean X?"` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(got, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of a tree that is two levels deep at most: `{"train": {"lr": 1}}` gives `{"train.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{leaf}": v for leaf, v in value.items()})
        else:
            flat[key] = value
    return flat


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
