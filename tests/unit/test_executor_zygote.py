"""The process that forks tasks: what it survives, what it passes on, and what it never holds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "forked_tasks.py"


@dataclass(frozen=True)
class Forking:
    """A running zygote."""

    process: subprocess.Popen[str]
    log: Path

    def order(self, *words: str) -> str:
        """Have a task forked; its process id, or why there is none."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def until(self, pattern: str) -> str:
        """The log, once it says that."""
        return eventually(lambda: text if re.search(pattern, text := self.log.read_text()) else "", pattern)

    @property
    def children(self) -> list[int]:
        """Process ids of all children, the manager first."""
        return sorted(int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())


def eventually(look: Callable[[], str], what: str) -> str:
    """What `look` finds as soon as it finds something."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what}")


def says(file: Path, word: str) -> None:
    """Wait until a task has written this."""
    eventually(lambda: "yes" if file.exists() and word in file.read_text() else "", f"{word} in {file}")


def started(folder: Path, grace_s: float, parent: int) -> subprocess.Popen[str]:
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), str(grace_s), str(parent)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Forking]]:
    """Starts a zygote; it is ended after the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*, grace_s: float = 20, parent: int = 0) -> Forking:
        processes.append(started(tmp_path, grace_s, parent))
        return Forking(process=processes[-1], log=tmp_path / "log")

    yield begin
    for process in processes:
        process.terminate()
        process.wait(60)
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()


def test_a_tasks_crash_is_its_own(start: Callable[..., Forking]) -> None:
    """After a segmentation fault the next task is forked as if nothing had happened."""
    forking = start()
    forking.order("crash")
    forking.until("task crash, process .* ended by SIGSEGV")
    forking.order("exit", "0")
    forking.until("task exit, process .* ended with exit code 0")


@pytest.mark.parametrize(("words", "code"), [(("exit", "3"), 3), (("raise", "no disk"), 1), (("nothing",), 0)])
def test_every_tasks_exit_code_is_told(start: Callable[..., Forking], words: tuple[str, ...], code: int) -> None:
    """The number that the task left with, 1 for an error that nobody caught, in the zygote's log."""
    forking = start()
    pid = forking.order(*words)
    forking.until(f"task {words[0]}, process {pid}, ended with exit code {code} ")


def test_no_ended_task_stays_a_zombie(start: Callable[..., Forking]) -> None:
    """Once tasks have ended, the manager is the only child."""
    forking = start()
    for _ in range(5):
        forking.order("exit", "0")
    forking.until(r"(?s)(ended.*){5}")
    assert len(forking.children) == 1


def test_sigterm_is_passed_on_once_and_everybody_waited_for(start: Callable[..., Forking], tmp_path: Path) -> None:
    """A task gets one SIGTERM and the time to end; the exit code is the manager's."""
    forking = start()
    forking.order("wait", str(tmp_path / "task"))
    says(tmp_path / "task", "waiting")
    forking.process.terminate()
    assert forking.process.wait(60) == 7
    assert (tmp_path / "task").read_text() == "terminated 1"


def test_a_task_that_ignores_sigterm_is_killed(start: Callable[..., Forking], tmp_path: Path) -> None:
    """After the time of grace, and the log says so."""
    forking = start(grace_s=0.5)
    pid = forking.order("ignore", str(tmp_path / "task"))
    says(tmp_path / "task", "ignoring")
    forking.process.terminate()
    forking.process.wait(60)
    assert f"process {pid}, did not end within 0 s: killed" in forking.log.read_text()


def test_a_ctrl_c_reaches_tasks_through_the_zygote_only(start: Callable[..., Forking]) -> None:
    """Children are in process groups of their own, which a terminal does not signal."""
    forking = start()
    forking.order("ignore", "/dev/null")
    assert os.getpgid(forking.process.pid) not in [os.getpgid(child) for child in forking.children]


def test_without_its_manager_everything_ends(start: Callable[..., Forking], tmp_path: Path) -> None:
    """The manager is killed: tasks are told to end, and the exit code is that of SIGKILL."""
    forking = start()
    forking.order("wait", str(tmp_path / "task"))
    says(tmp_path / "task", "waiting")
    os.kill(forking.children[0], signal.SIGKILL)
    assert forking.process.wait(60) == 128 + signal.SIGKILL
    assert (tmp_path / "task").read_text() == "terminated 1"


def test_no_child_outlives_a_zygote_that_is_killed(start: Callable[..., Forking], tmp_path: Path) -> None:
    """A task is told to end at once, and once, though nobody has reaped the zygote yet."""
    forking = start()
    forking.order("wait", str(tmp_path / "task"))
    says(tmp_path / "task", "waiting")
    os.kill(forking.process.pid, signal.SIGKILL)
    says(tmp_path / "task", "terminated 1")


def test_without_its_parent_everything_ends(start: Callable[..., Forking]) -> None:
    """--parent-pid: the zygote ends by itself after that process."""
    with subprocess.Popen(["sleep", "300"]) as parent:
        forking = start(parent=parent.pid)
        forking.order("exit", "0")
        parent.kill()
    assert forking.process.wait(60) == 7


def test_the_zygote_never_holds_a_tasks_words(start: Callable[..., Forking], tmp_path: Path) -> None:
    """A token on its way to a task is in the manager's memory and not in the zygote's, so no later task inherits it."""
    forking = start()
    token = os.urandom(12).hex()
    forking.order("wait", str(tmp_path / "task"), token)
    says(tmp_path / "task", "waiting")
    assert token.encode() in memory(forking.children[0])
    assert token.encode() not in memory(forking.process.pid)


def memory(pid: int) -> bytes:
    """All that a process has written, read from outside."""
    content = b""
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if " rw" in line and "[v" not in line:
                first, last = (int(number, 16) for number in line.split()[0].split("-"))
                file.seek(first)
                content += file.read(last - first)
    return content


def test_tasks_draw_different_random_numbers(start: Callable[..., Forking], tmp_path: Path) -> None:
    """Python's, numpy's, the kernel's and SEAL's: no fork repeats another one's."""
    forking = start()
    for name in "ab":
        forking.order("draw", str(tmp_path / name))
        says(tmp_path / name, "]")
    first, second = (json.loads((tmp_path / name).read_text()) for name in "ab")
    assert len(first) == 4
    assert not set(first) & set(second)


def test_linear_algebra_works_in_a_task(start: Callable[..., Forking], tmp_path: Path) -> None:
    """OpenBLAS, whose threads a fork ends, starts them again in the child."""
    forking = start()
    forking.order("multiply", str(tmp_path / "product"))
    says(tmp_path / "product", f"{600.0**3}")


def test_the_zygote_has_one_thread(start: Callable[..., Forking]) -> None:
    """Before, between and after forks, as the kernel counts."""
    forking = start()
    forking.order("exit", "0")
    forking.until("ended with exit code 0")
    assert len(list(Path(f"/proc/{forking.process.pid}/task").iterdir())) == 1
