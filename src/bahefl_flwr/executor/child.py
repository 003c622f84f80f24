"""How a forked child does its work and ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn


def become(work: Callable[[], None]) -> NoReturn:
    """Do a child's work and end as Python ends, except that nothing is taken apart.

    Taking apart what all tasks share copies 200 MB and takes 0.3 CPU s, most of a short task.
    """
    code = 1
    try:
        work()
        code = 0
    except SystemExit as left:
        code = _exit_code(left)
    except BaseException:  # noqa: BLE001  the end of the process: told here, as Python would
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  as multiprocessing's forked processes do
        atexit._run_exitfuncs()  # noqa: SLF001
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reseed() -> None:
    """Give this child random numbers of its own where a fork would repeat them.

    Python's generator is seeded anew at every fork, and the kernel, OpenSSL and SEAL keep no state in the process; numpy's legacy
    generator does.
    """
    import numpy as np

    np.random.seed()  # noqa: NPY002  the generator that other people's apps may still use


def _exit_code(left: SystemExit) -> int:
    if left.code is None or isinstance(left.code, int):
        return left.code or 0
    sys.stderr.write(f"{left.code}\n")
    return 1
