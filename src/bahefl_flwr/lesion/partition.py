"""Who gets which slice, and for which part: a pure function of labels, settings and seed.

Every simulated site computes the whole split by itself and takes its own share, so no slice list ever travels. In a deployment a
site has its own folder, which is the case of one site here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bahefl_flwr.errors import DataError
from bahefl_flwr.setting_groups import DataSettings

Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
# Per site and class, where the class exists at all. Plain Dirichlet draws leave some site without one in 63 % (5 sites) to 96 %
# (10 sites) of all seeds.
MINIMUM: dict[Part, int] = {"train": 2, "validation": 1, "test": 0}
_CLASSES = ("slices without lesion", "slices with lesion")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSlices:
    """One site's slice indices per part; no index is in two of them, nor at two sites."""

    train: Indices
    validation: Indices
    test: Indices

    def part(self, name: Part) -> Indices:
        """The indices of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def split(
    has_lesion: Flags, scans: Sequence[str | None], settings: DataSettings, *, sites: int, seed: int
) -> tuple[SiteSlices, ...]:
    """Cut all slices into parts, then deal each part to the sites by Dirichlet(alpha) per class, without replacement.

    The per-class minimum of every site is reserved first and only the rest is dealt, so no draw is ever rejected. The shares of a
    site are the same in all parts.

    Args:
      has_lesion: shape (n,).
      scans: the scan of each slice, as far as known; only read by `split: patient`, which never cuts a scan in two parts.
      sites: at least 1.
      seed: `run.seed`.

    Raises:
      DataError: there are too few slices of a class, or no scans to split by; it says how many are needed.
    """
    rng = np.random.default_rng([seed, sites])
    part_of = _parts_by_scan(scans, settings, rng) if settings.split == "patient" else _parts_by_slice(has_lesion, settings, rng)
    dealt: dict[Part, list[list[Indices]]] = {part: [[] for _ in range(sites)] for part in PARTS}
    for label in (0, 1):
        shares = rng.dirichlet(np.full(sites, settings.alpha)) if sites > 1 else np.ones(1)
        exists = bool((has_lesion == label).any())
        for number, part in enumerate(PARTS):
            members = rng.permutation(np.flatnonzero((has_lesion == label) & (part_of == number)))
            minimum = MINIMUM[part] if exists else 0
            if len(members) < minimum * sites:
                raise DataError(_too_few(part, label, len(members), minimum, sites))
            for site, own in enumerate(_deal(members, shares, minimum)):
                dealt[part][site].append(own)
    joined = {part: [np.sort(np.concatenate(own)) for own in dealt[part]] for part in PARTS}
    return tuple(SiteSlices(**{part: joined[part][site] for part in PARTS}) for site in range(sites))


def tally(parts: Sequence[SiteSlices], has_lesion: Flags) -> npt.NDArray[np.int64]:
    """Slices per site, part and class (without, with lesion): shape (sites, 3, 2)."""
    rows = [[np.bincount(has_lesion[site.part(part)].astype(np.int64), minlength=2) for part in PARTS] for site in parts]
    return np.array(rows, np.int64)


def table(counts: npt.NDArray[np.int64]) -> str:
    """The tally as text, one line a site: slices with lesion + slices without, per part."""
    lines = ["site       train  validation        test"]
    for site, row in enumerate(counts):
        cells = [f"{positive}+{negative}" for negative, positive in row]
        lines.append(f"{site:>4}{cells[0]:>12}{cells[1]:>12}{cells[2]:>12}")
    return "\n".join(lines)


def _parts_by_slice(has_lesion: Flags, settings: DataSettings, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """0, 1 or 2 per slice; each class is cut in the asked proportions by itself."""
    part_of = np.empty(len(has_lesion), np.int8)
    for label in (0, 1):
        members = rng.permutation(np.flatnonzero(has_lesion == label))
        cuts = np.rint(np.cumsum([settings.train, settings.validation]) * len(members)).astype(int)
        for number, chunk in enumerate(np.split(members, cuts)):
            part_of[chunk] = number
    return part_of


def _parts_by_scan(scans: Sequence[str | None], settings: DataSettings, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """0, 1 or 2 per slice: whole scans, largest first, each to the part that lacks most.

    Slices whose scan is unknown stay together: two of them may be of one patient.
    """
    known = {scan for scan in scans if scan is not None}
    if len(known) < len(PARTS):
        raise DataError(
            f"data.split=patient needs file names that tell at least {len(PARTS)} scans (like Morozov_study_0255_20.png); "
            f"{len(known)} found in {len(scans)} names; use data.split=slice, and say so with the results"
        )
    groups = np.array(["" if scan is None else scan for scan in scans])
    names, sizes = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    lacking = np.array([settings.train, settings.validation, 1 - settings.train - settings.validation]) * len(scans)
    part_of = np.empty(len(scans), np.int8)
    for k in order:
        number = int(np.argmax(lacking))
        lacking[number] -= sizes[k]
        part_of[groups == names[k]] = number
    return part_of


def _deal(members: Indices, shares: npt.NDArray[np.float64], minimum: int) -> list[Indices]:
    """`minimum` to each site, the rest by `shares` (largest remainders)."""
    spare = len(members) - minimum * len(shares)
    exact = shares * spare
    counts = np.floor(exact).astype(np.intp)
    counts[np.argsort(counts - exact, kind="stable")[: spare - counts.sum()]] += 1
    return np.split(members, np.cumsum(counts + minimum)[:-1])


def _too_few(part: Part, label: int, found: int, minimum: int, sites: int) -> str:
    needed = f"{sites} sites need at least {minimum} each = {minimum * sites}"
    return f"the {part} part has {found} {_CLASSES[label]}, but {needed}: use fewer sites, more slices, or a larger part"
