"""The folder loader and each of its traps; names, and the phantom's cache."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bahefl_flwr.errors import DataError
from bahefl_flwr.lesion import phantom
from bahefl_flwr.lesion.data import Slices, all_phantoms, load_folder, load_phantoms, scan_of

REAL = Path("/work/shared/data/ct-slices")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pairs of 64x64; lesion is the left upper quarter of b and c."""
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
    for grey, name in enumerate(("a_1_1.png", "b_1_1.png", "c_1_1.png")):
        mask = np.zeros((64, 64), np.uint8)
        mask[:32, :32] = 255 if grey else 0
        _write(tmp_path / "frames" / name, np.full((64, 64), 50 * grey, np.uint8))
        _write(tmp_path / "masks" / name, mask)
    return tmp_path


def _write(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image)


@pytest.mark.parametrize(
    ("name", "scan"),
    [
        ("Morozov_study_0255_20.png", "Morozov_study_0255"),
        ("Jun_coronacases_case10_100.png", "Jun_coronacases_case10"),
        ("Jun_radiopaedia_10_85902_3_case12_107.png", "Jun_radiopaedia_10_85902_3_case12"),
        ("medseg_vol3_042.png", "medseg_vol3"),
        ("bjorke_1.png", None),
        ("slice.png", None),
    ],
)
def test_the_scan_is_read_from_the_name(name: str, scan: str | None) -> None:
    """All naming forms of the public set, and names that tell nothing."""
    assert scan_of(name) == scan


def test_pairs_are_matched_by_name(folder: Path) -> None:
    """Images, masks and names come in one order, sorted by name."""
    slices = load_folder(folder, 64)

    assert slices.names == ("a_1_1.png", "b_1_1.png", "c_1_1.png")
    assert [int(image[0, 0]) for image in slices.images] == [0, 50, 100]
    assert list(slices.has_lesion) == [False, True, True]
    assert slices.masks.dtype == slices.images.dtype == np.uint8
    assert set(np.unique(slices.masks)) == {0, 1}


def test_hidden_and_foreign_files_are_passed_over(folder: Path) -> None:
    """What file managers leave behind is no reason to refuse a folder."""
    (folder / "frames" / "._a_1_1.png").write_bytes(b"x")
    (folder / "frames" / "Thumbs.db").write_bytes(b"x")

    assert len(load_folder(folder, 64)) == 3


def test_masks_are_binarised_before_they_shrink(folder: Path) -> None:
    """A border at half a pixel goes by majority: no grey value is ever compared with 255."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:33, :] = 255
    _write(folder / "masks" / "a_1_1.png", mask)

    small = load_folder(folder, 32).masks[0]

    assert small[:16].all()
    assert int(small.sum()) in (16 * 32, 17 * 32)


def test_masks_in_three_channels_may_be_red_only(folder: Path) -> None:
    """A red mask is not lost in a conversion to grey."""
    red = np.zeros((64, 64, 3), np.uint8)
    red[:8, :8, 2] = 255
    _write(folder / "masks" / "a_1_1.png", red)

    assert int(load_folder(folder, 64).masks[0].sum()) == 64


def test_all_problems_are_named_at_once(folder: Path) -> None:
    """A frame alone, a mask alone, other sizes, not square, unreadable, 0/1 values: one error names them all."""
    (folder / "masks" / "a_1_1.png").unlink()
    _write(folder / "masks" / "alone_1.png", np.zeros((64, 64), np.uint8))
    _write(folder / "masks" / "b_1_1.png", np.zeros((32, 64), np.uint8))
    (folder / "frames" / "c_1_1.png").write_bytes(b"\x89PNG but not really")
    for part in ("frames", "masks"):
        _write(folder / part / "flat_1.png", np.zeros((32, 64), np.uint8))
        _write(folder / part / "ones_1.png", np.ones((64, 64), np.uint8))
    (folder / "frames" / "empty_1.png").write_bytes(b"")
    (folder / "masks" / "empty_1.png").write_bytes(b"")

    with pytest.raises(DataError) as refused:
        load_folder(folder, 64)

    for expected in (
        "7 problem(s)",
        "frames/a_1_1.png: no masks/a_1_1.png",
        "masks/alone_1.png: no frames/alone_1.png",
        "frames/b_1_1.png is 64x64, masks/b_1_1.png is 64x32",
        "frames/c_1_1.png: cannot be read as an image",
        "frames/flat_1.png is 64x32, not square",
        "masks/ones_1.png: largest value 1, expected 0 and 255",
        "frames/empty_1.png and masks/empty_1.png: cannot be read",
    ):
        assert expected in str(refused.value)


def test_missing_and_empty_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    """Both say what was expected."""
    with pytest.raises(DataError, match="expected <root>/frames and <root>/masks"):
        load_folder(tmp_path / "nowhere", 64)
    for path in [*(folder / "frames").iterdir(), *(folder / "masks").iterdir()]:
        path.unlink()
    with pytest.raises(DataError, match="hold no images"):
        load_folder(folder, 64)


def _phantoms(cache: Path, site: int = 0) -> Slices:
    return load_phantoms(np.array([4, 7]), seed=1, site=site, slices=20, size_px=32, difficulty=0.5, cache=cache)


def test_phantoms_come_back_equal_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is drawn."""
    drawn = _phantoms(tmp_path)
    monkeypatch.setattr(phantom, "render", None)

    cached = _phantoms(tmp_path)

    assert np.array_equal(drawn.images, cached.images)
    assert np.array_equal(drawn.masks, cached.masks)
    assert drawn.names == cached.names == ("phantom_site0_4", "phantom_site0_7")


def test_phantoms_are_known_by_their_names(tmp_path: Path) -> None:
    """Also as files; one slice of another name, and nothing is said of the rest."""
    names = _phantoms(tmp_path).names
    assert all_phantoms(names) and all_phantoms([f"{name}.png" for name in names])
    assert not all_phantoms([*names, "Morozov_study_0255_20.png"]) and not all_phantoms([])


def test_a_damaged_cache_file_is_drawn_again(tmp_path: Path) -> None:
    """A half-written or foreign file costs time only."""
    drawn = _phantoms(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])

    assert np.array_equal(_phantoms(tmp_path).images, drawn.images)


def test_another_site_has_another_scanner(tmp_path: Path) -> None:
    """The same anatomy looks different at another site, and has a cache file of its own."""
    assert not np.array_equal(_phantoms(tmp_path, 0).images, _phantoms(tmp_path, 1).images)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    """The error says which setting to change."""
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match=r"set data\.cache"):
        _phantoms(tmp_path / "file")


@pytest.mark.skipif(not REAL.is_dir(), reason="real slices are not on this machine")
def test_the_real_slices_load(tmp_path: Path) -> None:
    """The lesion pixels of one volume agree with the index that came with the data, at full size."""
    rows = [line.split(",") for line in (REAL / "index.csv").read_text().splitlines()]
    lesions = {name: int(pixels) for name, volume, _, pixels, *_ in rows if volume == "1"}
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
        for name in lesions:
            (tmp_path / part / name).symlink_to(REAL / part / name)

    slices = load_folder(tmp_path, 256)

    assert {name: int(mask.sum()) for name, mask in zip(slices.names, slices.masks, strict=True)} == lesions
