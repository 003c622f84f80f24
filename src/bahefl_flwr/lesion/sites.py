"""Which slices each site of a simulation has: the split of partition.py, applied to a folder or to the phantom.

A deployed site's own folder is the case of one site.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bahefl_flwr.errors import DataError
from bahefl_flwr.lesion import data, partition, phantom
from bahefl_flwr.setting_groups import DataSettings

SiteData = Mapping[partition.Part, data.Slices]

# Public, and beyond every run.seed: no site trains on slices of the anchor set.
ANCHOR_SEED = 2**31 + 5
# So that the set is not in favour of one site's scanner.
_ANCHOR_SCANNERS = 4


def shares(settings: DataSettings, *, sites: int, seed: int) -> tuple[npt.NDArray[np.bool_], tuple[partition.SiteSlices, ...]]:
    """Which slices have lesion, shape (n,), and each site's share of them. No phantom is drawn for it.

    Raises:
      DataError: the slices cannot be read, or not be split as asked.
    """
    if settings.kind == "folder":
        everything = _folder(Path(settings.root).expanduser(), settings.image_size_px)
        flags, scans = everything.has_lesion, [data.scan_of(name) for name in everything.names]
    else:
        flags, scans = phantom.lesion_flags(seed, settings.slices), [None] * settings.slices
        # Every phantom slice is a patient of its own, so both kinds of split are the same here.
        settings = settings.model_copy(update={"split": "slice"})
    return flags, partition.split(flags, scans, settings, sites=sites, seed=seed)


# Flower calls client_fn for every message; an actor of the simulation serves all sites.
@lru_cache(maxsize=16)
def site_data(settings: DataSettings, *, site: int, sites: int, seed: int) -> SiteData:
    """One site's slices per part; in a simulation its share of all slices.

    Args:
      site: from 0. sites: 1 where the folder is the site's own.

    Raises:
      DataError: there is no such site, or the slices cannot be read, or not be split as asked.
    """
    if not 0 <= site < sites:
        raise DataError(f"partition-id {site} of {sites} partitions; it must be 0 to {sites - 1}")
    own = shares(settings, sites=sites, seed=seed)[1][site]
    if settings.kind == "folder":
        everything = _folder(Path(settings.root).expanduser(), settings.image_size_px)
        return {part: everything.take(own.part(part)) for part in partition.PARTS}
    cache = Path(settings.cache).expanduser() if settings.cache else data.default_cache()
    form = {"seed": seed, "site": site, "slices": settings.slices, "size_px": settings.image_size_px}
    drawn = data.load_phantoms(
        np.concatenate([own.part(part) for part in partition.PARTS]), difficulty=settings.difficulty, cache=cache, **form
    )
    cuts = np.cumsum([len(own.part(part)) for part in partition.PARTS])
    places = np.split(np.arange(len(drawn)), cuts[:-1])
    return {part: drawn.take(where) for part, where in zip(partition.PARTS, places, strict=True)}


@lru_cache(maxsize=1)
def anchor_slices(settings: DataSettings, *, count: int) -> data.Slices:
    """Generated slices that are the same at every site and in every run: what a contested round is decided on.

    From several scanners in turn; size and difficulty are those of `settings`.

    Args:
      count: at least 4.

    Raises:
      DataError: the cache folder cannot be written.
    """
    cache = Path(settings.cache).expanduser() if settings.cache else data.default_cache()
    parts = [
        data.load_phantoms(
            np.arange(scanner, count, _ANCHOR_SCANNERS), seed=ANCHOR_SEED, site=scanner, slices=count,
            size_px=settings.image_size_px, difficulty=settings.difficulty, cache=cache,
        )
        for scanner in range(_ANCHOR_SCANNERS)
    ]  # fmt: skip
    return data.Slices(
        images=np.concatenate([part.images for part in parts]),  # (count, s, s)
        masks=np.concatenate([part.masks for part in parts]),  # (count, s, s)
        names=tuple(name for part in parts for name in part.names),
    )


@lru_cache(maxsize=1)
def _folder(root: Path, size_px: int) -> data.Slices:
    return data.load_folder(root, size_px)
