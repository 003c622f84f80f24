"""A zygote with a manager that takes orders from standard input, one JSON list of words a line, and says the child's number.

python forked_tasks.py GRACE_S PARENT. The zygote's log is on standard error. Tasks say what they do in a file.
"""

import hashlib
import json
import logging
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import tenseal

from bahefl_flwr.errors import ExecutorError
from bahefl_flwr.executor.child import become, reseed
from bahefl_flwr.executor.preload import load
from bahefl_flwr.executor.request import Work, ask
from bahefl_flwr.executor.zygote import Zygote


def manager(zygote: socket.socket) -> None:
    """Ask for a task per line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    for line in sys.stdin:
        words = json.loads(line)
        if words == ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            said = ask(zygote, f"task {words[0]}", Work(words=words, silent=False))
        except ExecutorError as error:
            said = f"refused: {error}"
        print(said, flush=True)


def task(work: Work) -> None:
    """Do what the words say."""
    reseed()
    what, argument = work.words[0], work.words[1] if len(work.words) > 1 else ""
    match what:
        case "exit":
            sys.exit(int(argument))
        case "raise":
            raise OSError(argument)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "wait":
            wait_for_sigterm(Path(argument))
        case "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(argument).write_text("ignoring")
            time.sleep(300)
        case "draw":
            Path(argument).write_text(json.dumps(drawn()))
        case "multiply":
            a = np.ones((600, 600))
            Path(argument).write_text(str(float((a @ a).sum())))


def wait_for_sigterm(file: Path) -> None:
    """Write down each SIGTERM, and end half a second after the first."""
    numbers: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    file.write_text("waiting")
    while not numbers:
        time.sleep(0.02)
    time.sleep(0.5)
    file.write_text(f"terminated {len(numbers)}")


def drawn() -> list[str]:
    """A draw from each source of randomness that a task may use, a key of SEAL's among them."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 20, 40])
    key = hashlib.sha256(context.serialize(save_secret_key=True)).hexdigest()
    legacy = np.random.rand()  # noqa: NPY002  the generator that a fork copies
    return [str(random.random()), str(legacy), os.urandom(8).hex(), key]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load([])
    parent = int(sys.argv[2]) or None
    outcome = Zygote(manager, task, parent=parent, grace_s=float(sys.argv[1])).run()
    sys.exit(outcome) if isinstance(outcome, int) else become(outcome)
