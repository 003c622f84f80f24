"""bahefl-executor's options and command lines are those of Flower's SuperExec."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec

from bahefl_flwr._flwr_deployment import PacedTime, _ForkingExecutor, superexec_options
from bahefl_flwr.executor.command import bahefl_executor
from bahefl_flwr.supernode import bahefl_supernode

PROGRAM = [sys.executable, "-m", "bahefl_flwr.executor"]


def spec(task_type: TaskType, *, insecure: bool, install: bool) -> ExecutionSpec:
    return ExecutionSpec(
        task_type=task_type, runtime_api_address="127.0.0.1:9094", token="ab" * 16, insecure=insecure,
        root_certificates_path=None if insecure else "/ca.crt", runtime_dependency_install=install, parent_pid=None,
        suppress_output=task_type is TaskType.SERVER_APP, task_id=5,
    )  # fmt: skip


@pytest.mark.parametrize("task_type", list(TaskType))
@pytest.mark.parametrize("insecure", [True, False])
@pytest.mark.parametrize("install", [True, False])
def test_a_task_gets_the_command_line_that_flower_would_give_it(
    monkeypatch: pytest.MonkeyPatch, task_type: TaskType, insecure: bool, install: bool
) -> None:
    """Token, certificate, and what happens to its output, for every kind of task."""
    started, forked = [], []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **streams: started.append((words, bool(streams))))
    SubprocessExecutor().launch(spec(task_type, insecure=insecure, install=install))
    ours = _ForkingExecutor(lambda _, words, silent: forked.append((words, silent)), PacedTime())
    ours.launch(spec(task_type, insecure=insecure, install=install))
    (stock, stock_silent), (words, silent) = started[0], forked[0]
    assert (sorted(words), words[0], silent) == (sorted(stock), stock[0], stock_silent)


def test_every_option_of_flower_superexec_is_there() -> None:
    """And one of our own."""
    help_text = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    options = {option for action in superexec_options()._actions for option in action.option_strings}
    assert {"--runtime-api-address", "--superexec-auth-secret-file", "--root-certificates"} < options
    assert not [
        option for option in options if f"{option}" not in help_text and not option.startswith(("--appio", "--plugin-type"))
    ]
    assert "--preload" in help_text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--executor", "kubernetes"], "error: --executor kubernetes: bahefl-executor forks on this machine"),
        (["--preload", "nowhere"], "error: --preload nowhere: cannot be imported"),
        (["--preloads", "x"], "unrecognized arguments: --preloads"),
    ],
)
def test_a_wrong_option_ends_it_with_exit_code_2(words: list[str], complaint: str) -> None:
    """Before a task could be taken."""
    command = [*PROGRAM, "--insecure", "--runtime-api-address", "127.0.0.1:1", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_the_console_scripts_exist() -> None:
    """The names in pyproject.toml are functions."""
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    functions = {"bahefl-executor": bahefl_executor, "bahefl-supernode": bahefl_supernode}
    assert {name: f"{function.__module__}:{function.__name__}" for name, function in functions.items()}.items() <= scripts.items()
