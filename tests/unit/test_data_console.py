"""`bahefl data`: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bahefl_flwr import console


def pair(root: Path, name: str, lesion: int) -> None:
    """A slice whose first `lesion` rows are lesion."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:lesion] = 255
    for part, image in (("frames", np.full((32, 32), 9, np.uint8) + np.uint8(lesion)), ("masks", mask)):
        (root / part).mkdir(exist_ok=True)
        assert cv2.imwrite(str(root / part / name), image)


def test_inspect_ends_with_3_and_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unusable folder is a failure that a script can see."""
    pair(tmp_path, "a_1_1.png", 4)
    (tmp_path / "masks" / "a_1_1.png").unlink()

    assert console.main(["data", "inspect", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert "frames/a_1_1.png: no masks/a_1_1.png" in said
    assert said.endswith("not usable\n")


def test_inspect_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: the same facts, exit code 0 for a usable folder."""
    pair(tmp_path, "a_1_1.png", 4)
    pair(tmp_path, "b_1_1.png", 0)

    assert console.main(["data", "inspect", str(tmp_path), "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["usable"], facts["slices"], facts["with_lesion"]) == (True, 2, 1)
    assert facts["lesion_share"] == 4 / 64
    assert facts["sizes_px"] == {"32": 2}


def test_partition_prints_the_split_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a site, all slices dealt, and a picture that can be opened."""
    picture = tmp_path / "split.png"
    arguments = ["data", "partition", "phantom", "--sites", "3", "--alpha", "0.3", "--picture", str(picture)]

    assert console.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("600 slices, alpha 0.3, split by slice, seed 1")
    assert len(lines) == 2 + 3
    assert sum(int(number) for line in lines[2:] for cell in line.split()[1:] for number in cell.split("+")) == 600
    assert cv2.imread(str(picture)).shape[1] > 1000


def test_partition_in_json_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is split as a simulation would split it."""
    for k in range(40):
        pair(tmp_path, f"scan1_{k}.png", k % 2)

    assert console.main(["data", "partition", str(tmp_path), "--sites", "2", "--size", "32", "--format", "json"]) == 0
    split = json.loads(capsys.readouterr().out)
    assert sum(n for site in split["sites"] for part in site.values() for n in part.values()) == 40
    assert min(site["train"]["with"] for site in split["sites"]) >= 2


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["partition", "phantom", "--split", "luck"], 2, "data.split"),
        (["partition", "phantom", "--sites", "200"], 3, "use fewer sites"),
        (["partition", "/nowhere"], 3, "/nowhere"),
        (["inspect", "/nowhere"], 3, "is not a folder"),
        (["partition", "phantom", "--picture", "/nowhere/x.png"], 2, "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str) -> None:
    """The error, what to do, and its exit code."""
    assert console.main(["data", *argv]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
