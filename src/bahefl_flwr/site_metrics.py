"""Figures that sites report of themselves, aggregated over those whose figures can be. No site's claim ends a run.

The functions that aggregate are Flower's or the user's; what they are given is what sites say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from flwr.app import MetricRecord, RecordDict

from bahefl_flwr._flwr_deployment import aggregate_metricrecords
from bahefl_flwr.replies import Numbers

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]
EXAMPLES = "num-examples"

_log = logging.getLogger("bahefl_flwr.driver")


def weighted_mean(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Flower's own default."""
    return aggregate_metricrecords(records, weighted_by_key)


def aggregated(phase: str, aggregate: MetricsAggregation, by_site: Mapping[int, Numbers]) -> Numbers:
    """Aggregate over the sites whose metrics can be: a figure that cannot never ends a run that trains well."""
    records = _comparable(phase, by_site)
    if not records:
        return {}
    try:
        return dict(aggregate(records, EXAMPLES).items())  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001  # the function is the user's, and its input is what sites claim
        _log.warning("the %s metrics could not be aggregated (%s: %s); left out", phase, type(error).__name__, error)
        return {}


def _comparable(phase: str, by_site: Mapping[int, Numbers]) -> list[RecordDict]:
    """What most sites report the same keys of, from at least one example; other sites are left out, with a warning."""
    weightless = [m for m, n in by_site.items() if n and n.get(EXAMPLES, 1) < 1]
    if weightless:
        _log.warning("%s metrics of sites %s claim to come from less than one example and are left out", phase, weightless)
    by_site = {m: numbers for m, numbers in by_site.items() if m not in weightless}
    shapes = [frozenset(numbers) for numbers in by_site.values() if numbers]
    if not shapes:
        return []
    usual = max(set(shapes), key=shapes.count)
    odd = [m for m, numbers in by_site.items() if numbers and frozenset(numbers) != usual]
    if odd:
        _log.warning("%s metrics of sites %s have other keys than the rest and are left out", phase, odd)
    if EXAMPLES not in usual:
        return []
    return [RecordDict({"metrics": MetricRecord(dict(n))}) for n in by_site.values() if frozenset(n) == usual]
