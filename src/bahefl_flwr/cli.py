"""The commands that start simulations: flower-simulation and python -m bahefl_flwr. Prints what went wrong in one message.

Composes settings and hands them to Flower; what happens in a run is the apps' business.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from types import FrameType
from typing import NoReturn

from rich.console import Console

from bahefl_flwr import logs
from bahefl_flwr.attack.roster import announced, warnings
from bahefl_flwr.composition import expand_sweep, experiments
from bahefl_flwr.errors import BaheflError
from bahefl_flwr.flower_project import read_project
from bahefl_flwr.settings import Settings, cautions, compose
from bahefl_flwr.simulation import simulate
from bahefl_flwr.sweep import run_sweep

INTERRUPTED = 130
TERMINATED = 143

_EPILOG = """\
examples:
  %(prog)s --app bahefl_flwr.app
  %(prog)s --app bahefl_flwr.app experiment=smoke
  %(prog)s --app bahefl_flwr.app --num-supernodes 4 experiment=paper train.lr=3e-4
  %(prog)s --app bahefl_flwr.app data=folder data.root=/data/covid-ct
  python -m bahefl_flwr -m train.lr=1e-4,3e-4 data.alpha=0.1,0.5

experiments: {experiments}

exit codes:
  0    the run ended with a model; its last lines say if fewer rounds gave one than were asked for, and why
  1    an error of this package without a code of its own, or a bug (with traceback)
  2    a setting or option is misspelt, out of range, or contradicts another
  3    the data folder is missing, unreadable, mispaired, or cannot be split as asked
  4    the ledger is unreachable, refused, or is not the expected contract
  5    the store failed, or an object in it is missing or altered
  6    an update or ciphertext is unfit
  7    keys, shares or their files are wrong, missing or badly protected
  8    a message or action does not belong to the ledger's state
  9    local training failed
  10   an audit check does not hold
  11   the run ended without one finalised round, or its set-up never completed
  12   bahefl doctor found a failure
  130  stopped by Ctrl-C (143: by SIGTERM)
"""


def flower_simulation() -> NoReturn:
    """Console script `flower-simulation`."""
    leave(main(prog="flower-simulation"))


def main(argv: Sequence[str] | None = None, *, prog: str = "flower-simulation") -> int:
    """Run one simulation, or a sweep of them, and return the exit code.

    Args:
      argv: arguments after the program's name; None takes those of the process.
      prog: name shown in the help.
    """
    arguments = _parser(prog).parse_intermixed_args(argv)
    try:
        logs.configure(os.environ.get(logs.VARIABLE, ""))
        with terminable():
            return _carry_out(arguments)
    except BaheflError as error:
        if arguments.verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("stopped; finalised rounds are kept in the run folder; `bahefl resume FOLDER` goes on", file=sys.stderr)
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    except Exception:  # noqa: BLE001  a bug: shown in full, and `leave` still ends the process if Flower's threads do not
        traceback.print_exc()
        return 1


def leave(code: int) -> NoReturn:
    """End the process. After Ctrl-C Flower's ServerApp thread may still wait for replies that never come: it is cut off."""
    Console().show_cursor()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, taken as a Ctrl-C so that Ray and the ledger node are shut down the same way."""


@contextmanager
def terminable() -> Iterator[None]:
    """Take SIGTERM as a Ctrl-C while the block lasts."""

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _carry_out(arguments: argparse.Namespace) -> int:
    app, overrides = read_project(arguments.app).told(arguments.overrides)
    if arguments.num_supernodes is not None:
        overrides.append(f"federation.sites={arguments.num_supernodes}")
    if arguments.multirun:
        jobs = [(job, compose(job)) for job in expand_sweep(overrides)]
        _warn(jobs)
        if not arguments.show:
            return run_sweep(app, overrides, verbose=arguments.verbose)
        for job, settings in jobs:
            print("  # ".join(filter(None, [" ".join(job), announced(settings)])))
        return 0
    settings = compose(overrides)
    _warn([(overrides, settings)])
    attack = announced(settings)
    if arguments.show:
        own = "".join(f"# {key}: {value!r} (the application's own)\n" for key, value in (app.config or {}).items())
        print(settings.yaml() + (f"# {attack}\n" if attack else "") + own, end="")
        return 0
    if attack:
        print(attack, flush=True)
    simulate(app, settings, verbose=arguments.verbose)
    return 0


def _warn(jobs: Iterable[tuple[Sequence[str], Settings]]) -> None:
    """Say once on stderr, so that what --show prints stays YAML, what is probably not what was meant."""
    told = ((*warnings(settings, overrides), *cautions(settings)) for overrides, settings in jobs)
    for warning in dict.fromkeys(chain.from_iterable(told)):
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Simulate a federation on this machine: threshold-encrypted updates, audited by a ledger.",
        epilog=_EPILOG.replace("{experiments}", ", ".join(experiments())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, Hydra syntax; --show lists all")
    parser.add_argument("--app", default="bahefl_flwr.app", metavar="APP", help="module, or a Flower project's folder")
    parser.add_argument("--num-supernodes", type=int, metavar="N", help="sites to simulate; the same as federation.sites=N")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination of key=a,b,... in turn and end with a table"
    )
    parser.add_argument("--show", action="store_true", help="print the settings (with -m: the jobs) and start nothing")
    parser.add_argument("--verbose", action="store_true", help="Flower's and the workers' logs; tracebacks of errors")
    parser.add_argument("--version", action="version", version=_version())
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("bahefl-flwr")
    except importlib.metadata.PackageNotFoundError:
        return "not installed (running from a source folder)"
