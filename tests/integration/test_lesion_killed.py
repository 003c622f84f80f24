"""A training whose process is killed goes on at its last finished epoch, and comes to the same weights."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import killed_fit
from killed_fit import EPOCHS, toy_fit, toy_slices


def killed(file: Path, epochs: int) -> None:
    """A process that trains, and is killed after so many epochs."""
    done = subprocess.run([sys.executable, killed_fit.__file__, str(file), str(epochs)], check=False)
    assert done.returncode == -signal.SIGKILL


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Bit for bit."""
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("epochs", [1, EPOCHS])
def test_a_killed_training_goes_on_at_its_last_finished_epoch(tmp_path: Path, epochs: int) -> None:
    """kill -9 after an epoch: the next process trains only the others, to the bits of an undisturbed training."""
    undisturbed, weights = toy_fit(None)
    killed(tmp_path / "fit.pt", epochs)

    report, continued = toy_fit(tmp_path / "fit.pt")

    assert report.resumed_epochs == epochs
    assert (report.steps, report.last_lr, report.loss) == (undisturbed.steps, undisturbed.last_lr, undisturbed.loss)
    assert equal(continued, weights)


def test_a_checkpoint_of_another_training_is_passed_over(tmp_path: Path) -> None:
    """Another seed, or other slices: never continued from weights that belong to something else."""
    file = tmp_path / "fit.pt"
    toy_fit(file)
    moved = replace(toy_slices(), images=toy_slices().images[::-1].copy())

    for change in ({"seed": 1}, {"slices": moved}):
        report, weights = toy_fit(file, **change)
        assert report.resumed_epochs == 0
        assert equal(weights, toy_fit(None, **change)[1])


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda _: b"no checkpoint"])
def test_a_damaged_checkpoint_costs_the_epochs_and_nothing_else(tmp_path: Path, damage: object) -> None:
    """The training starts again and comes to the same weights."""
    file = tmp_path / "fit.pt"
    toy_fit(file)
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]

    report, weights = toy_fit(file)

    assert report.resumed_epochs == 0
    assert equal(weights, toy_fit(None)[1])


def test_a_checkpoint_is_for_the_sites_eyes_only(tmp_path: Path) -> None:
    """It holds plain weights: mode 0600."""
    toy_fit(tmp_path / "fit.pt")

    assert (tmp_path / "fit.pt").stat().st_mode & 0o077 == 0
