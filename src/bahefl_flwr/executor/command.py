"""The command `bahefl-executor`: options, what is loaded, and what each of the forked processes does."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any, NoReturn

from bahefl_flwr.errors import BaheflError, SettingsError
from bahefl_flwr.executor import preload
from bahefl_flwr.executor.child import become, reseed
from bahefl_flwr.executor.request import Work, ask
from bahefl_flwr.executor.zygote import Zygote

_USUAL_TASKS = ("flwr-clientapp", "flwr-serverapp")

_log = logging.getLogger("bahefl_flwr.executor")


def bahefl_executor() -> NoReturn:
    """Console script `bahefl-executor`."""
    try:
        outcome = _start(sys.argv[1:])
    except BaheflError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if isinstance(outcome, int):
        sys.exit(outcome)
    become(outcome)


def _start(argv: Sequence[str]) -> int | Callable[[], None]:
    if sys.platform != "linux":
        raise SettingsError("bahefl-executor needs Linux; here flower-superexec takes the same options")
    own, theirs = _own_options().parse_known_args(argv)
    options = _all_options().parse_args(argv)
    if options.executor != "subprocess":
        raise SettingsError(f"--executor {options.executor}: bahefl-executor forks on this machine; use flower-superexec")
    _log_to_stderr()
    for name in _USUAL_TASKS:
        _program(name)
    preload.load(filter(None, own.preload.split(",")))
    _log.info("ready: %d thread, preloaded %s", preload.threads(), own.preload or "nothing but Flower")
    return Zygote(partial(_manage, theirs), _carry_out, parent=own.parent_pid).run()


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_preload(parser)
    # The zygote's to watch: its end is told to the SuperExec and the tasks by one signal, not by two.
    parser.add_argument("--parent-pid", type=int)
    return parser


def _all_options() -> argparse.ArgumentParser:
    from bahefl_flwr._flwr_deployment import superexec_options

    parser = superexec_options()
    parser.description = "Flower's SuperExec, forking its tasks from a process that has everything loaded."
    _add_preload(parser)
    return parser


def _add_preload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preload",
        metavar="MODULE[,MODULE...]",
        default=",".join(preload.MODULES),
        help="modules to import once, for all tasks (default: %(default)s); '' for none but Flower's",
    )


def _log_to_stderr() -> None:
    # To this logger alone: one at the root would make every task print its own lines twice.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s executor: %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


def _manage(options: Sequence[str], zygote: socket.socket) -> None:
    """Be Flower's SuperExec. It reads the secret file, if there is one: after the fork, so that no task inherits it."""
    from bahefl_flwr._flwr_deployment import run_superexec

    def fork(name: str, words: Sequence[str], silent: bool) -> None:
        ask(zygote, name, Work(words=words, silent=silent))

    run_superexec(options, fork)


def _carry_out(work: Work) -> None:
    """Be Flower's own program for the task, as if it had been started anew."""
    reseed()
    if work.silent:
        _silence()
    sys.argv = list(work.words)
    sys.exit(_program(work.words[0])())


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@cache
def _program(name: str) -> Callable[[], Any]:
    """The function behind an installed console script, loaded."""
    found: Callable[[], Any] = next(iter(entry_points(group="console_scripts", name=name))).load()
    return found
