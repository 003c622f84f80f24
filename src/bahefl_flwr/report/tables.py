"""The tables of a report: the paper's table 1, rounds and sites, as rows of text and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bahefl_flwr.lesion.metrics import Evaluation, PixelCounts
from bahefl_flwr.run_folder import RoundLine

Row = tuple[str, ...]
_BY_SITE = ("screening", "sites")
TABLE_1_HEAD: Row = ("", "precision", "recall", "F1 = Dice", "HD95 (px)", "pixels")
SITES_HEAD: Row = (
    "partition", "slices", "with lesion", "pooled Dice", "pooled precision", "pooled recall", "mean Dice of positive slices",
    "mean HD95 (px)", "missed", "spurious",
)  # fmt: skip


def table_1(test: Mapping[str, Any]) -> list[Row]:
    """Classes, accuracy, macro and weighted averages of a test part, from its pooled pixel counts; none without them."""
    if not {"tp", "fp", "fn", "tn"} <= test.keys():
        return []
    p = counts_of(test)
    # Seen from the other class, what was found and what was left swap places.
    other = PixelCounts(tp=p.tn, fp=p.fn, fn=p.fp, tn=p.tp)
    supports = (p.tn + p.fp, p.tp + p.fn)
    total = max(1, sum(supports))
    classes = [(c.precision, c.recall, c.dice) for c in (other, p)]
    macro = [sum(values) / 2 for values in zip(*classes, strict=True)]
    weighted = [
        sum(value * support for value, support in zip(values, supports, strict=True)) / total
        for values in zip(*classes, strict=True)
    ]
    return [
        ("no lesion (0)", *_digits(classes[0]), "", f"{supports[0]:,}"),
        ("lesion (1)", *_digits(classes[1]), _digits((test.get("mean-hd95-px"),), 2)[0], f"{supports[1]:,}"),
        ("accuracy", "", "", *_digits(((p.tp + p.tn) / total,)), "", f"{total:,}"),
        ("macro average", *_digits(macro), "", f"{total:,}"),
        ("weighted average", *_digits(weighted), "", f"{total:,}"),
    ]


def counts_of(metrics: Mapping[str, Any]) -> PixelCounts:
    """The pixel counts among an evaluation's metrics."""
    return PixelCounts(**{name: int(metrics[name]) for name in ("tp", "fp", "fn", "tn")})


def site_rows(sites: Mapping[int, Evaluation]) -> list[Row]:
    """A row a site. Figures that need lesion are empty where there is none."""
    return [
        (str(site), str(e.slices), str(e.positive_slices), *_of_site(e), str(e.missed), str(e.spurious))
        for site, e in sorted(sites.items())
    ]


def _of_site(e: Evaluation) -> Row:
    ratios = (e.pixels.dice, e.pixels.precision, e.pixels.recall) if e.positive_slices else (None, None, None)
    return (*_digits((*ratios, e.mean_dice_of_positive_slices)), *_digits((e.mean_hd95_px,), 2))


def _digits(values: Iterable[float | None], digits: int = 4) -> Row:
    """nan and None are empty: nothing was measured."""
    return tuple("" if v is None or v != v else f"{v:.{digits}f}" for v in values)  # noqa: PLR0124


def rounds_csv(lines: Sequence[RoundLine]) -> bytes:
    """A line a round; columns named `group.name`, lists of sites apart by spaces. What is by site has files of its own."""
    return _csv([_flat({name: value for name, value in line.items() if name not in _BY_SITE}) for line in lines])


def validation_csv(lines: Sequence[RoundLine]) -> bytes:
    """A line a round and site that validated its model."""
    measured = [(line["round"], site, figures) for line in lines for site, figures in line.get("sites", {}).items()]
    return _csv([{"round": number, "site": site, **figures} for number, site, figures in measured])


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return to_csv(names, [[row.get(name, "") for name in names] for row in rows])


def _flat(values: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{group}{name}.")
        else:
            flat[group + name] = _joined(value)
    return flat


def _joined(value: Any) -> Any:
    """A list in one cell: numbers apart by spaces; texts, and lists of lists, by semicolons."""
    if not isinstance(value, list | tuple):
        return value
    numbers = all(isinstance(item, int | float) for item in value)
    return (" " if numbers else "; ").join(str(_joined(item)) for item in value)


def to_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file with a heading, UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()
