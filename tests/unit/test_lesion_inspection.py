"""What `bahefl data inspect` finds: every trap of a data folder is named with its file."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from bahefl_flwr.errors import DataError
from bahefl_flwr.lesion.data import load_folder
from bahefl_flwr.lesion.inspection import inspect

REAL = Path("/work/shared/data/ct-slices")
Changed = dict[str, np.ndarray | bytes | None]


def folder(tmp_path: Path, changes: Changed | None = None) -> Path:
    """Four good slices of two scans, the second half with lesion; `changes` replaces or removes files."""
    rng = np.random.default_rng(0)
    files: Changed = {}
    for k, name in enumerate(("scan1_1.png", "scan1_2.png", "scan2_1.png", "bjorke_1.png")):
        mask = np.zeros((64, 64), np.uint8)
        mask[:16, :16] = 255 * (k > 1)
        files[f"frames/{name}"], files[f"masks/{name}"] = rng.integers(0, 255, (64, 64), np.uint8), mask
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
    for path, content in {**files, **(changes or {})}.items():
        if isinstance(content, np.ndarray):
            assert cv2.imwrite(str(tmp_path / path), content)
        elif content is not None:
            (tmp_path / path).write_bytes(content)
    return tmp_path


def test_a_good_folder_is_counted_and_usable(tmp_path: Path) -> None:
    """Slices, lesion share, sizes and scans; nothing to complain about."""
    found = inspect(folder(tmp_path))

    assert found.usable
    assert (len(found.slices), found.positive, found.sizes) == (4, 2, {64: 4})
    assert found.scans == {"scan1": 2, "scan2": 1}
    assert found.lesion_share == 2 * 16 * 16 / (4 * 64 * 64)
    assert (found.problems, found.oddities) == ((), ())


GREY = np.full((64, 64), 7, np.uint8)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"masks/scan1_1.png": None}, "frames/scan1_1.png: no masks/scan1_1.png"),
        ({"masks/alone_1.png": GREY}, "masks/alone_1.png: no frames/alone_1.png"),
        ({"masks/scan1_1.png": None, "masks/scan1_1.jpg": GREY}, "no masks/scan1_1.png (but scan1_1.jpg: give both the same"),
        ({"frames/scan1_1.png": b"\x89PNG but not really"}, "frames/scan1_1.png: cannot be read"),
        ({"masks/scan1_1.png": b""}, "masks/scan1_1.png: cannot be read"),
        ({"masks/scan1_1.png": np.zeros((32, 32), np.uint8)}, "frames/scan1_1.png is 64x64, masks/scan1_1.png is 32x32"),
        ({"frames/scan1_1.png": np.zeros((32, 64), np.uint8)}, "frames/scan1_1.png is 64x32, not square"),
        ({"masks/scan1_1.png": np.eye(64, dtype=np.uint8)}, "masks/scan1_1.png: largest value 1, expected 0 and 255"),
        ({"masks/scan1_1.png": np.eye(64, dtype=np.uint16) * 255}, "masks/scan1_1.png has uint16 values"),
        ({"frames/scan1_1.png": np.eye(64, dtype=np.uint16)}, "frames/scan1_1.png has uint16 values"),
    ],
)
def test_a_trap_makes_the_folder_unusable_and_is_named(tmp_path: Path, changes: Changed, problem: str) -> None:
    """Inspection names the file and the reason, and training refuses the folder for the same reason."""
    root = folder(tmp_path, changes)
    found = inspect(root)

    assert not found.usable
    assert any(problem in line for line in found.problems)
    with pytest.raises(DataError) as refused:
        load_folder(root, 64)
    assert problem in str(refused.value)


SOFT = cv2.GaussianBlur(np.pad(np.full((20, 20), 255, np.uint8), 22), (0, 0), 2)


@pytest.mark.parametrize(
    ("changes", "oddity"),
    [
        ({"masks/scan1_1.png": SOFT}, "masks/scan1_1.png: .* grey value"),
        ({"masks/scan1_1.png": np.full((64, 64), 255, np.uint8)}, "masks/scan1_1.png: 100 % of the slice is lesion"),
        ({"frames/scan1_1.png": GREY}, r"frames/scan1_1.png: one grey value throughout \(7\)"),
        ({"frames/scan1_1.png": GREY, "frames/scan2_1.png": GREY}, "frames/scan2_1.png: the same picture as frames/scan1_1"),
    ],
)
def test_what_training_takes_but_looks_wrong_is_said(tmp_path: Path, changes: Changed, oddity: str) -> None:
    """Interpolated and inverted masks, empty and doubled frames: usable, and pointed at."""
    found = inspect(folder(tmp_path, changes))

    assert found.usable
    assert any(re.search(oddity, line) for line in found.oddities)


def test_an_empty_folder_is_not_usable(tmp_path: Path) -> None:
    """Two folders without an image are told so; a missing folder is an error."""
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()

    assert inspect(tmp_path).problems == ("frames/ and masks/ hold no images",)
    with pytest.raises(DataError, match="expected <root>/frames"):
        inspect(tmp_path / "frames")


@pytest.mark.skipif(not REAL.is_dir(), reason="real slices are not on this machine")
def test_real_slices_are_usable(tmp_path: Path) -> None:
    """Forty real slices: no problem, no oddity, one scan."""
    names = sorted(path.name for path in (REAL / "frames").iterdir())[:40]
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
        for name in names:
            (tmp_path / part / name).symlink_to(REAL / part / name)
    found = inspect(tmp_path)

    assert found.usable and not found.oddities
    assert found.scans == {"medseg_vol1": 40}
