"""What is in a data folder, and everything that is wrong or odd about it. Reads, judges and counts; changes nothing.

A problem makes the folder unusable (training refuses it for the same reason); an oddity is worth a look and is passed over.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bahefl_flwr.errors import DataError
from bahefl_flwr.lesion.data import Images, load_pair, mask_levels, paired_names, scan_of

# No slice of the public set has half as much lesion; an inverted mask has far more.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One readable slice: its side in pixels, how many of them are lesion, and its scan where the name tells it."""

    name: str
    side_px: int
    lesion_px: int
    scan: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A folder, inspected.

    Attributes:
      slices: those that can be used, by name.
      problems: a line a file that training would refuse.
      oddities: a line a file that training takes, and that somebody should look at.
    """

    root: Path
    slices: tuple[Found, ...]
    problems: tuple[str, ...]
    oddities: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Training would take this folder."""
        return bool(self.slices) and not self.problems

    @property
    def positive(self) -> int:
        """Slices with lesion."""
        return sum(found.lesion_px > 0 for found in self.slices)

    @property
    def lesion_share(self) -> float:
        """Lesion pixels as a part of all pixels; 0 without slices."""
        pixels = sum(found.side_px**2 for found in self.slices)
        return sum(found.lesion_px for found in self.slices) / pixels if pixels else 0.0

    @property
    def sizes(self) -> dict[int, int]:
        """Slices per side in pixels."""
        return dict(sorted(Counter(found.side_px for found in self.slices).items()))

    @property
    def scans(self) -> dict[str, int]:
        """Slices per scan, where the name tells one."""
        return dict(sorted(Counter(found.scan for found in self.slices if found.scan is not None).items()))


def inspect(root: Path) -> Inspection:
    """Read every pair of a folder once.

    Problems are those of `data.load_folder`. Oddities: masks with grey values between 0 and 255 (interpolated or JPEG), masks
    that cover most of the slice (inverted?), frames of one grey value, and frames that are equal to another one (a slice
    that is in two parts makes the figures too good).

    Raises:
      DataError: `frames/` or `masks/` is not there.
    """
    names, problems = paired_names(root)
    slices: list[Found] = []
    oddities: list[str] = []
    first_of: dict[bytes, str] = {}
    for name in names:
        try:
            frame, lesion = load_pair(root, name)
        except DataError as error:
            problems.append(str(error))
            continue
        slices.append(Found(name=name, side_px=len(frame), lesion_px=int(lesion.sum()), scan=scan_of(name)))
        oddities += _oddities(root, name, frame, lesion)
        twin = first_of.setdefault(hashlib.sha256(frame.tobytes()).digest(), name)
        if twin != name:
            oddities.append(f"frames/{name}: the same picture as frames/{twin}")
    if not names and not problems:
        problems = ["frames/ and masks/ hold no images"]
    return Inspection(root=root, slices=tuple(slices), problems=tuple(problems), oddities=tuple(oddities))


def _oddities(root: Path, name: str, frame: Images, lesion: Images) -> Iterator[str]:
    between = [level for level in mask_levels(root, name) if 0 < level < 255]
    if between:
        yield f"masks/{name}: {len(between)} grey value(s) between 0 and 255; taken as lesion above 127"
    if lesion.mean() > _MOSTLY:
        yield f"masks/{name}: {100 * float(lesion.mean()):.0f} % of the slice is lesion; is the mask inverted?"
    if frame.min() == frame.max():
        yield f"frames/{name}: one grey value throughout ({np.ravel(frame)[0]})"
