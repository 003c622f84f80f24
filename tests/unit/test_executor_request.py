"""Requests for tasks: what goes through the channel, and what happens when nobody is at its other end."""

import pytest

from bahefl_flwr.errors import ExecutorError
from bahefl_flwr.executor.request import Work, ask, channel


def test_without_a_zygote_there_is_a_clear_error() -> None:
    """The task is named, and nothing waits for ever."""
    zygote, superexec = channel()
    zygote.close()
    with pytest.raises(ExecutorError, match=r"task 5: the process that forks tasks is gone"):
        ask(superexec, "task 5", Work(words=["flwr-clientapp"], silent=False))


def test_a_command_line_that_no_pipe_holds_is_refused() -> None:
    """Before anything is sent: a writer would wait for a reader that does not exist yet."""
    _, superexec = channel()
    with pytest.raises(ExecutorError, match=r"40\d\d\d bytes, longest allowed 32768"):
        ask(superexec, "task 5", Work(words=["x" * 40_000], silent=False))


def test_work_does_not_show_its_token() -> None:
    """Neither in a log nor in a traceback."""
    assert repr(Work(words=["flwr-clientapp", "--token", "secret"], silent=False)) == "<Work flwr-clientapp redacted>"
