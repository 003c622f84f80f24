"""What a user may ask of BaheflStrategy: Flower's arguments, each checked, or refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flwr.app import ConfigRecord

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.settings import Scalar

_OURS = "bahefl-"


def refuse_what_cannot_be(weighted_by_key: str, arrayrecord_key: str, configrecord_key: str) -> None:
    """Raise where an argument asks for another value than the one that a secure run has.

    Raises:
      SettingsError: naming it, why, and what to do instead.
    """
    if weighted_by_key != "num-examples":
        raise SettingsError(
            f"weighted_by_key={weighted_by_key!r}: updates are weighed on the ledger, by the examples that fit returns and under "
            "the registrar's cap, or all alike with federation.weighting=uniform; to weigh metrics otherwise give "
            "train_metrics_aggr_fn and evaluate_metrics_aggr_fn"
        )
    for name, got, only in (("arrayrecord_key", arrayrecord_key, "arrays"), ("configrecord_key", configrecord_key, "config")):
        if got != only:
            raise SettingsError(
                f"{name}={got!r}: a NumPyClient sees no records, and no arrays travel through the driver; leave {name} out"
            )


def share(name: str, value: float, *, zero: bool) -> float:
    """A fraction of the sites.

    Args:
      zero: whether 0 is allowed, too.

    Raises:
      SettingsError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingsError(f"{name}={value!r}; it must be a number")
    if not 0 <= value <= 1 or not (zero or value):
        raise SettingsError(f"{name}={value}; it must be {'at least' if zero else 'above'} 0 and at most 1")
    return float(value)


def least(name: str, value: int | None, most: int | None = None) -> int:
    """A least number of something; 0 where nothing was said.

    Raises:
      SettingsError: it is no whole number of at least 1, or exceeds `most`, the number of sites.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"{name}={value!r}; it must be a whole number of at least 1")
    if most is not None and value > most:
        raise SettingsError(
            f"{name}={value}: {value} nodes are asked for, but federation.sites={most}: no more than that may take part"
        )
    return value


def client_config(name: str, record: ConfigRecord | None) -> Mapping[str, Scalar | bytes]:
    """What goes into a NumPyClient's config.

    Raises:
      SettingsError: a value is a list, which a NumPyClient's config does not carry, or a key is one of ours.
    """
    found: dict[str, Scalar | bytes] = {}
    for key, value in (record or {}).items():
        if key.startswith(_OURS):
            raise SettingsError(f"{name}[{key!r}]: keys that begin with {_OURS} are this package's; choose another name")
        if not isinstance(value, bool | int | float | str | bytes):
            raise SettingsError(f"{name}[{key!r}] is a {type(value).__name__}; a NumPyClient's config carries scalars and bytes")
        found[key] = value
    return found
