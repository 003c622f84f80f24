"""Where a site's slices come from: a folder in the Kaggle layout, or the phantom with its cache on disk.

Which slices belong to whom, and to which part, is partition.py's business.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bahefl_flwr.errors import DataError
from bahefl_flwr.lesion import phantom

Images = npt.NDArray[np.uint8]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
# Lesion is 255 in the public set; JPEG and interpolation leave grey borders.
_LESION_ABOVE = 127
# In the depth of the file, so that 16 bits are seen and refused instead of cut.
_GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
# As `load_phantoms` names slices; whoever writes them into a folder keeps the name and adds an ending.
_PHANTOM_NAME = re.compile(r"phantom_site\d+_\d+(\.\w+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """CT slices and their lesion masks, index by index.

    Attributes:
      images: grey values of the lung window, uint8, shape (n, s, s).
      masks: 1 where there is lesion, uint8, shape (n, s, s).
      names: file name, or site and index of a phantom.
    """

    images: Images
    masks: Images
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_lesion(self) -> npt.NDArray[np.bool_]:
        """Shape (n,)."""
        return np.asarray(self.masks.any(axis=(1, 2)), np.bool_)

    def take(self, indices: npt.NDArray[np.intp]) -> Slices:
        """A copy of some of them, in the given order."""
        return Slices(images=self.images[indices], masks=self.masks[indices], names=tuple(self.names[i] for i in indices))


def scan_of(name: str) -> str | None:
    """The scan (one patient's CT) that a slice's file name tells, or None.

    The name without its last number: `Morozov_study_0255_20.png` -> `Morozov_study_0255`. What is left must itself hold a number:
    `bjorke_1.png` tells no patient.
    """
    match = re.fullmatch(r"(?P<scan>.*\d.*)_\d+", Path(name).stem)
    return match["scan"] if match else None


def all_phantoms(names: Sequence[str]) -> bool:
    """Whether slices are generated ones, as far as their names tell; False for none."""
    return bool(names) and all(_PHANTOM_NAME.fullmatch(name) for name in names)


def load_folder(root: Path, size_px: int) -> Slices:
    """All slices of `root`/frames with their masks in `root`/masks, paired by file name and sorted by it.

    Checks:
      1. both folders are there and hold images.
      2. every frame has a mask of the same file name, and the other way round.
      3. every file can be read.
      4. a frame and its mask have the same size, and are square.
      5. a mask that is not empty has values above 127: 0/1 masks would silently become empty ones.
      6. both have 8 bits a channel: OpenCV would cut 16 to 8, and a mask of 16 bit values 0 and 255 to an empty one.

    Args:
      root: the folder; hidden files and files that are no images are passed over.
      size_px: side the slices are resized to: images by area, masks binarised first, then by area and majority.

    Raises:
      DataError: naming every offending file at once.
    """
    names, problems = paired_names(root)
    images, truths = [], []
    for name in names:
        try:
            image, truth = load_pair(root, name)
        except DataError as error:
            problems.append(str(error))
            continue
        images.append(resized(image, size_px))
        truths.append(resized_mask(truth, size_px))
    if problems or not names:
        lines = "\n  ".join(problems or ["frames/ and masks/ hold no images"])
        raise DataError(f"{root}: {len(problems) or 1} problem(s); mend or remove these files:\n  {lines}")
    return Slices(images=np.stack(images), masks=np.stack(truths), names=tuple(names))


def paired_names(root: Path) -> tuple[list[str], list[str]]:
    """Names of the files that `frames/` and `masks/` share, sorted, and a problem for each file without a partner.

    Raises:
      DataError: a folder is not there.
    """
    frames, masks = (image_names(root / folder) for folder in ("frames", "masks"))
    problems = [f"frames/{name}: no masks/{name}{_near(name, masks)}" for name in sorted(frames - masks)]
    problems += [f"masks/{name}: no frames/{name}{_near(name, frames)}" for name in sorted(masks - frames)]
    return sorted(frames & masks), problems


def image_names(folder: Path) -> set[str]:
    """Names of the images in a folder; hidden files, and those that are no images, are passed over.

    Raises:
      DataError: it is not a folder, or cannot be read.
    """
    try:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; expected <root>/frames and <root>/masks with equal file names")
        files = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}; let this user read it") from None
    return {path.name for path in files if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")}


def _near(name: str, others: set[str]) -> str:
    """A file that differs in its ending or its case only is probably the one that is missed."""
    near = sorted(other for other in others if Path(other).stem.lower() == Path(name).stem.lower())
    return f" (but {near[0]}: give both the same name)" if near else ""


def load_pair(root: Path, name: str) -> tuple[Images, Images]:
    """One slice in its own size: grey values, and 1 where there is lesion; both uint8, shape (s, s).

    Raises:
      DataError: a check of `load_folder` does not hold.
    """
    frame, mask = (_read(root / part / name, mode) for part, mode in (("frames", _GREY), ("masks", _COLOUR)))
    if frame is None or mask is None:
        unreadable = [f"{part}/{name}" for part, values in (("frames", frame), ("masks", mask)) if values is None]
        raise DataError(" and ".join(unreadable) + ": cannot be read as an image")
    _check_form(frame, f"frames/{name}")
    if frame.shape != mask.shape[:2]:
        raise DataError(f"frames/{name} is {_size(frame)}, masks/{name} is {_size(mask)}")
    return frame, _lesion(mask, f"masks/{name}")


def _lesion(mask: npt.NDArray[np.uint8], name: str) -> Images:
    if mask.dtype != np.uint8:
        raise DataError(f"{name} has {mask.dtype} values; save it with 8 bits, lesion as 255")
    # The largest channel: a mask drawn in red only is grey 76 after OpenCV's own conversion, and lost.
    lesion = np.asarray(mask.max(axis=2), np.uint8)
    if 0 < lesion.max() <= _LESION_ABOVE:
        raise DataError(f"{name}: largest value {lesion.max()}, expected 0 and 255")
    return np.asarray(lesion > _LESION_ABOVE, np.uint8)


def mask_levels(root: Path, name: str) -> list[int]:
    """The values that a readable mask holds, ascending, over all its channels."""
    mask = _read(root / "masks" / name, _COLOUR)
    return [] if mask is None else [int(level) for level in np.flatnonzero(np.bincount(mask.ravel()))]


def load_frame(path: Path) -> Images:
    """A slice without a mask, in its own size: uint8, shape (s, s).

    Raises:
      DataError: it cannot be read, is not square or not of 8 bits.
    """
    frame = _read(path, _GREY)
    if frame is None:
        raise DataError(f"{path.name}: cannot be read as an image")
    _check_form(frame, path.name)
    return frame


def _check_form(frame: npt.NDArray[np.generic], name: str) -> None:
    if frame.shape[0] != frame.shape[1]:
        raise DataError(f"{name} is {_size(frame)}, not square")
    if frame.dtype != np.uint8:
        raise DataError(f"{name} has {frame.dtype} values; save the lung window with 8 bits, 0 to 255")


def _read(path: Path, mode: int) -> Images | None:
    """Shape (h, w) or (h, w, 3) by OpenCV's `mode`, in the depth of the file; None if it is no image."""
    try:
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return None
    decoded = cv2.imdecode(encoded, mode) if encoded.size else None
    return None if decoded is None else np.asarray(decoded)


def _size(image: npt.NDArray[np.generic]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def resized(image: Images, size_px: int) -> Images:
    """A square image of another side: by area where it shrinks."""
    if image.shape[0] == size_px:
        return image
    method = cv2.INTER_AREA if image.shape[0] > size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=method), np.uint8)


def resized_mask(mask: Images, size_px: int) -> Images:
    """A mask of 0 and 1 of another side: by majority where it shrinks."""
    return (resized(mask * np.uint8(255), size_px) > _LESION_ABOVE).astype(np.uint8)


def default_cache() -> Path:
    """Where phantom slices are cached unless `data.cache` names a folder. Real slices are never cached."""
    return Path.home() / ".cache" / "bahefl_flwr" / "phantom"


def load_phantoms(
    indices: npt.NDArray[np.intp], *, seed: int, site: int, slices: int, size_px: int, difficulty: float, cache: Path
) -> Slices:
    """One simulated site's phantom slices, rendered once per machine and then read from `cache`.

    Args:
      indices: which of the `slices` slices of the whole simulation are this site's.
      seed, difficulty: see phantom.render. site: index of the site; it decides the scanner.

    Raises:
      DataError: the cache folder cannot be written.
    """
    wanted = {
        "version": phantom.PHANTOM_VERSION,
        "seed": seed,
        "site": site,
        "of": slices,
        "size_px": size_px,
        "difficulty": difficulty,
    }
    digest = hashlib.sha256(json.dumps([wanted, [int(i) for i in indices]], sort_keys=True).encode()).hexdigest()
    path = cache / f"{digest[:32]}.npz"
    names = tuple(f"phantom_site{site}_{i}" for i in indices)
    if (cached := _read_cache(path, len(names), size_px)) is not None:
        return Slices(images=cached[0], masks=cached[1], names=names)
    scanner, flags = phantom.scanner_of(seed, site), phantom.lesion_flags(seed, slices)
    drawn = [
        phantom.render(seed, int(i), size_px=size_px, scanner=scanner, lesion=bool(flags[i]), difficulty=difficulty)
        for i in indices
    ]
    images, masks = (np.stack([pair[k] for pair in drawn]) for k in (0, 1))
    _write_cache(path, images, masks)
    return Slices(images=images, masks=masks, names=names)


def _read_cache(path: Path, count: int, size_px: int) -> tuple[Images, Images] | None:
    try:
        with np.load(path) as stored:
            images, packed = stored["images"], stored["masks"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is drawn again
    if images.shape != (count, size_px, size_px) or packed.shape != (count, size_px, size_px // 8):
        return None
    return images, np.unpackbits(packed, axis=-1)


def _write_cache(path: Path, images: Images, masks: Images) -> None:
    """Two processes of one site may draw the same slices at once: each writes a file of its own, and the last rename wins."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, images=images, masks=np.packbits(masks, axis=-1))
        Path(temporary).replace(path)
    except OSError as error:
        raise DataError(f"phantom cache {path.parent} cannot be written: {error}; set data.cache to a folder that can") from error
