"""The imports of private Flower names in the processes of a deployment, which must not load Ray.

Beside `_flwr_compat.py`, which is for simulations; pinned to flwr >= 1.41, < 1.44 in pyproject.toml. No protocol logic here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from flwr.supercore.cli import flower_superexec
from flwr.supercore.cli.flower_superexec import _parse_args as superexec_options
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from flwr.supercore.superexec import run_superexec as superexec_module
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from bahefl_flwr.errors import ExecutorError
from bahefl_flwr.pacing import pause_s

__all__ = ["aggregate_metricrecords", "run_superexec", "run_supernode", "superexec_options"]

# Name of the task for people, its command line, and whether its output goes nowhere.
Fork = Callable[[str, Sequence[str], bool], None]


class PacedTime:
    """Stands in for a module's `time`: its `sleep` looks often at first and ever less often, never less than the module would.

    A wait begins at `restart`, or with a sleep of another length than the last one: Flower sleeps 3 s for messages, 0.5 s for
    replies.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def restart(self) -> None:
        """What was waited for has come."""
        self._since = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """As time.sleep, for at most `seconds`."""
        if seconds != self._seconds:
            self._seconds = seconds
            self.restart()
        time.sleep(pause_s(time.monotonic() - self._since, slowest_s=seconds))


class _ForkingExecutor(SubprocessExecutor):
    """Starts a task by `fork` where Flower's own starts the same command line as a new process."""

    def __init__(self, fork: Fork, paced: PacedTime) -> None:
        self._fork, self._paced = fork, paced

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Fork for one task. That it fails is told in the result and not raised: the executor goes on with others."""
        self._paced.restart()
        name = f"task {spec.task_id} ({spec.task_type.value})"
        try:
            self._fork(name, self._words(spec), spec.suppress_output)
        except ExecutorError as error:
            return LaunchResult.failed(str(error))
        return LaunchResult.accepted()

    def _words(self, spec: ExecutionSpec) -> list[str]:
        words = [TASK_TYPE_TO_COMMAND[spec.task_type], "--runtime-api-address", spec.runtime_api_address, "--token", spec.token]
        if spec.insecure:
            words.append("--insecure")
        elif spec.root_certificates_path is not None:
            words += ["--root-certificates", spec.root_certificates_path]
        if spec.runtime_dependency_install:
            words.append("--allow-runtime-dependency-installation")
        # No --parent-pid: whoever forks sees to it that no task outlives it.
        return words


def run_superexec(options: Sequence[str], fork: Fork) -> None:
    """Be `flower-superexec` with these options in this process, but hand every task to `fork`. Does not return.

    It asks for tasks more often than Flower's when one has just come; FLWR_SUPEREXEC_TASK_POLL_INTERVAL is the longest pause.

    Args:
      options: command line.
      fork: starts a task, and ends it if it would outlive this executor; ExecutorError if it cannot.
    """
    paced = PacedTime()
    executor = _ForkingExecutor(fork, paced)
    superexec_module.time = paced  # type: ignore[attr-defined, assignment]
    superexec_module.get_executor = lambda *_args, **_options: executor  # type: ignore[attr-defined]
    sys.argv = ["flower-superexec", *options]
    sys.exit(flower_superexec())  # type: ignore[func-returns-value]


def run_supernode(options: Sequence[str]) -> None:
    """Be `flower-supernode` with these options in this process, looking for messages and replies at our pace. Does not return."""
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode

    start_client_internal.time = PacedTime()  # type: ignore[attr-defined, assignment]
    sys.argv = ["flower-supernode", *options]
    sys.exit(flower_supernode())  # type: ignore[func-returns-value]
