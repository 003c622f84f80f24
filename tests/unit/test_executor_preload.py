"""What is loaded before any fork, and what may not be."""

import subprocess
import sys
from pathlib import Path

import pytest

from bahefl_flwr.executor.preload import MODULES

EVERYTHING = f"""
import sys
from bahefl_flwr.executor.preload import load, threads
load({MODULES!r})
import torch
assert threads() == 1, threads()
assert "ray" not in sys.modules
assert not torch.cuda.is_initialized()
assert {{"tenseal", "web3", "albumentations", "bahefl_flwr.site.client_app"}} <= set(sys.modules)
"""


def test_the_usual_modules_leave_one_thread_and_no_ray() -> None:
    """All that our tasks need is there; no thread, no Ray, no graphics card that a fork could not use again."""
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "leaves 1 threads running"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_module_that_is_unfit_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    """One that starts a thread, or that cannot be imported, ends the command before it takes a task."""
    (tmp_path / "unfit.py").write_text(text)
    command = "from bahefl_flwr.executor.preload import load\nload(['unfit'])"
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"SettingsError: --preload unfit: {'' if 'leaves' in complaint else 'cannot be imported ('}{complaint}" in done.stderr
