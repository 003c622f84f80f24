"""The process that has everything loaded: forks a child per task, reaps it, and passes signals on. It knows nothing of Flower.

It never holds a secret and never starts a thread: what it holds before a fork every task holds after it, and a lock that another
thread holds during a fork stays locked in the child for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from bahefl_flwr.executor.request import Request, Work, answer, channel, receive

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_HANDLED = (*_STOPPING, signal.SIGCHLD)
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PARENT_LOOK_S = 0.2  # as often as Flower's own processes look

_log = logging.getLogger("bahefl_flwr.executor")


class Zygote:
    """Forks the manager once, then a child for every request of the manager.

    Args:
      manager: what the first child does with its end of the channel. When it has ended, everything ends.
      task: what every other child does.
      parent: process without which this one ends too, None for none.
      grace_s: how long children have after SIGTERM before they are killed; Flower's processes force their own exit after 5 s.
    """

    def __init__(
        self,
        manager: Callable[[socket.socket], None],
        task: Callable[[Work], None],
        *,
        parent: int | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self._manager, self._task, self._parent, self._grace_s = manager, task, parent, grace_s
        self._ours, self._theirs = channel()
        self._signals, self._wake = socket.socketpair()
        self._children: dict[int, str] = {}
        self._manager_pid = 0
        self._exit_code = 0
        self._kill_at: float | None = None

    def run(self) -> int | Callable[[], None]:
        """Serve until the manager and all tasks have ended.

        Returns:
          In this process the exit code, which is the manager's. In a child, what the child has to do: it is returned and not
          called, so that no frame of this class is left to handle the child's errors.
        """
        self._catch_signals()
        if (pid := self._fork()) == 0:
            return partial(self._manager, self._theirs)
        self._theirs.close()
        self._manager_pid = pid
        self._children[pid] = "the SuperExec"
        while self._children:
            request = self._wait()
            if request is None:
                continue
            with request:
                if self._fork_for(request):
                    return partial(self._task, request.work())
        return self._exit_code

    def _catch_signals(self) -> None:
        # Nothing happens in a handler: its number wakes up `_wait`.
        self._signals.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, lambda *_: None)

    def _fork(self) -> int:
        """As os.fork; the child has no part of ours but the memory."""
        # A signal between the fork and `_detach` would be taken for one to this process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        zygote = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                self._detach(zygote)
            else:
                _own_group(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid

    def _detach(self, zygote: int) -> None:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for end in (self._signals, self._wake, self._ours, *([self._theirs] if self._manager_pid else [])):
            end.close()
        _own_group(os.getpid())
        # Flower's --parent-pid would not do: a process that was killed and is not yet reaped still counts as there.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != zygote:
            os._exit(1)

    def _fork_for(self, request: Request) -> bool:
        """Fork a child and tell the manager; true in the child."""
        try:
            pid = self._fork()
        except OSError as error:
            _log.error("%s: cannot fork: %s", request.name, error)
            answer(self._ours, f"cannot fork: {error}")
            return False
        if pid == 0:
            return True
        self._children[pid] = request.name
        _log.info("%s started as process %d", request.name, pid)
        answer(self._ours, str(pid))
        return False

    def _wait(self) -> Request | None:
        """Until a request, a signal, or the end of some time; what is due then is done."""
        watched = [self._signals] if self._kill_at else [self._signals, self._ours]
        ready, _, _ = select.select(watched, [], [], self._patience_s())
        if self._signals in ready:
            self._on_signals(set(self._signals.recv(4096)))
        if self._parent is not None and self._kill_at is None and not _exists(self._parent):
            _log.warning("the parent process %d is gone: stopping", self._parent)
            self._stop()
        if self._kill_at and time.monotonic() > self._kill_at:
            self._send(signal.SIGKILL)
        return self._request() if self._ours in ready and not self._kill_at else None

    def _request(self) -> Request | None:
        request = receive(self._ours)
        if request is None:
            _log.warning("the SuperExec asks for nothing more: stopping")
            self._stop()
        return request

    def _patience_s(self) -> float | None:
        if self._kill_at:
            return max(0.0, self._kill_at - time.monotonic()) + 0.01
        return None if self._parent is None else _PARENT_LOOK_S

    def _on_signals(self, numbers: set[int]) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        if numbers & set(_STOPPING):
            self._stop()

    def _reap(self) -> None:
        """Take the exit code of whoever has ended: no child stays a zombie, nor an orphan if this is a container's process 1."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._on_end(pid, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)

    def _on_end(self, pid: int, code: int, cpu_s: float) -> None:
        name = self._children.pop(pid, None)
        if name is None:
            return
        level = logging.INFO if code == 0 else logging.WARNING
        _log.log(level, "%s, process %d, ended %s after %.2f CPU s", name, pid, _told(code), cpu_s)
        if pid == self._manager_pid:
            self._exit_code = code if code >= 0 else 128 - code
            self._stop()

    def _stop(self) -> None:
        """Pass SIGTERM on, once: Flower's processes take a second one for an order to stop at once, mid-sentence."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace_s
            self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for pid, name in self._children.items():
            if number == signal.SIGKILL:
                _log.warning("%s, process %d, did not end within %.0f s: killed", name, pid, self._grace_s)
            # A child that has ended is not reaped yet, so its number cannot be another process's.
            os.kill(pid, number)


def _own_group(pid: int) -> None:
    """A Ctrl-C at a terminal reaches the whole group, and would reach children a second time through us.

    Said by both sides of the fork, so that it holds before either goes on.
    """
    # The child may already have ended, or have started another program.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def _told(code: int) -> str:
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
