"""Figures that sites report of themselves, aggregated over those whose figures can be. No site's claim ends a run.

The functions that aggregate are Flower's or the user's; what they are given is what sites say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from flwr.app import MetricRecord, RecordDict

from bahefl_flwr._flwr_deployment import aggregate_metricrecords
from bahefl_flwr.replies import Numbers
from bahefl_flwr.run_folder import Pooled

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]
EXAMPLES = "num-examples"

_log = logging.getLogger("bahefl_flwr.driver")


def weighted_mean(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Flower's own default."""
    return aggregate_metricrecords(records, weighted_by_key)


def aggregated(phase: str, aggregate: MetricsAggregation, by_site: Mapping[int, Numbers]) -> Numbers:
    """Aggregate over the sites whose metrics can be: a figure that cannot never ends a run that trains well."""
    _warn(phase, by_site)
    records = [RecordDict({"metrics": MetricRecord(dict(by_site[m]))}) for m in _comparable(by_site)]
    if not records:
        return {}
    try:
        return dict(aggregate(records, EXAMPLES).items())  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001  # the function is the user's, and its input is what sites claim
        _log.warning("the %s metrics could not be aggregated (%s: %s); left out", phase, type(error).__name__, error)
        return {}


def _comparable(by_site: Mapping[int, Numbers]) -> tuple[int, ...]:
    """The sites that are pooled: their keys are those of most, with the number of examples, at least one, among them."""
    weighed = {m: frozenset(numbers) for m, numbers in by_site.items() if numbers and not _weightless(numbers)}
    shapes = list(weighed.values())
    usual = max(set(shapes), key=shapes.count, default=frozenset[str]())
    return tuple(m for m, shape in weighed.items() if shape == usual) if EXAMPLES in usual else ()


def coverage(by_site: Mapping[int, Numbers], asked: int = 0) -> Pooled:
    """Of how many sites an aggregate is, where `asked` were to report."""
    sites = len(_comparable(by_site))
    return {"sites": sites, "of": max(asked, sites)}


def _weightless(numbers: Numbers) -> bool:
    return bool(numbers) and numbers.get(EXAMPLES, 1) < 1


def _warn(phase: str, by_site: Mapping[int, Numbers]) -> None:
    """Name the sites that are left out."""
    weightless = [m for m, numbers in by_site.items() if _weightless(numbers)]
    if weightless:
        _log.warning("%s metrics of sites %s claim to come from less than one example and are left out", phase, weightless)
    summed = _comparable(by_site)
    odd = [m for m, numbers in by_site.items() if numbers and m not in (*summed, *weightless)]
    if summed and odd:
        _log.warning("%s metrics of sites %s have other keys than the rest and are left out", phase, odd)
