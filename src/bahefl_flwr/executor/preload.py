"""Loading modules once, for all tasks, and making sure that the process may be forked afterwards."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from bahefl_flwr.errors import SettingsError

# What the tasks of a site and of the driver import: torch, web3 and the rest of this package come with these.
MODULES = (
    "tenseal",
    "bahefl_flwr.app",
    "bahefl_flwr.client",
    "bahefl_flwr.lesion.augmentation",
    "bahefl_flwr.federation",
    "bahefl_flwr.strategy",
    "bahefl_flwr.report",
)


def load(modules: Iterable[str]) -> None:
    """Import modules and leave this process fit for forking.

    Raises:
      SettingsError: a module cannot be imported, or leaves threads behind that a fork would cut off.
    """
    _check_threads("Flower itself")
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise SettingsError(f"--preload {name}: cannot be imported ({error})") from error
        _check_threads(f"--preload {name}")
    # Untouched by later collections, these pages stay shared between all tasks.
    gc.collect()
    gc.freeze()


def threads() -> int:
    """Threads of this process as the kernel counts them, those of C libraries too."""
    return len(list(Path("/proc/self/task").iterdir()))


def _check_threads(culprit: str) -> None:
    # A rehearsal: OpenBLAS starts threads when it is loaded, its own fork handler ends them, and a child starts new ones at need.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    if (left := threads()) > 1:
        raise SettingsError(f"{culprit}: leaves {left - 1} threads running, and a fork would cut them off")
