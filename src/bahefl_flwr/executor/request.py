"""How a request for a task travels from Flower's SuperExec to the zygote and on to the forked child.

The words hold the task's token, so they go through a pipe whose reading end the zygote hands to the child unread.
"""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from bahefl_flwr.errors import ExecutorError

# A pipe takes 65,536 bytes on Linux before a writer must wait, and nobody reads before the fork.
_LONGEST_WORDS = 32_768
_LONGEST_LINE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a child has to do. The words hold a secret, so they are never shown.

    Attributes:
      words: a command line, program first.
      silent: its output goes nowhere; Flower's ServerApps send it to the SuperLink themselves.
    """

    words: Sequence[str]
    silent: bool

    def __repr__(self) -> str:
        return f"<Work {self.words[0]} redacted>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the zygote sees it: what to call it in the log, and the pipe with the work. To be closed by both processes."""

    name: str
    pipe: io.BufferedReader

    def work(self) -> Work:
        """Read the work. In the child only: what the zygote has read, every later child would inherit."""
        content = json.loads(self.pipe.read())
        return Work(words=content["words"], silent=content["silent"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()


def channel() -> tuple[socket.socket, socket.socket]:
    """The zygote's and the SuperExec's end of a connection that keeps requests apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def ask(zygote: socket.socket, name: str, work: Work) -> int:
    """Have the zygote fork a child for this work.

    Args:
      zygote: the SuperExec's end of the channel.
      name: what the zygote's log calls the task; no secret.

    Returns:
      The child's process id.

    Raises:
      ExecutorError: the zygote is gone, or could not fork.
    """
    content = json.dumps({"words": list(work.words), "silent": work.silent}).encode()
    if len(content) > _LONGEST_WORDS:
        raise ExecutorError(f"{name}: a command line of {len(content)} bytes, longest allowed {_LONGEST_WORDS}")
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)
        socket.send_fds(zygote, [name.encode()[:_LONGEST_LINE]], [reading])
        answer = zygote.recv(_LONGEST_LINE).decode(errors="replace")
    except OSError as error:
        raise ExecutorError(f"{name}: the process that forks tasks is gone ({error})") from error
    finally:
        os.close(reading)
    if not answer.isdigit():
        raise ExecutorError(f"{name}: {answer or 'the process that forks tasks is gone'}")
    return int(answer)


def receive(superexec: socket.socket) -> Request | None:
    """The next request, None when the SuperExec has closed its end."""
    name, pipes, _, _ = socket.recv_fds(superexec, _LONGEST_LINE, 1)
    return Request(name=name.decode(errors="replace"), pipe=os.fdopen(pipes[0], "rb")) if pipes else None


def answer(superexec: socket.socket, text: str) -> None:
    """Tell the SuperExec the child's process id, or why there is none. One that is gone is noticed elsewhere."""
    try:
        superexec.send(text.encode()[:_LONGEST_LINE])
    except OSError:
        return
