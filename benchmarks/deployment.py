"""A federation of separate processes on this machine, without TLS: SuperLink, SuperNodes, and an executor beside each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = Path(sys.executable).parent
STOCK_EXECUTOR = (str(_PROGRAMS / "flower-superexec"),)
STOCK_SUPERNODE = (str(_PROGRAMS / "flower-supernode"),)
WARM_EXECUTOR = (sys.executable, "-m", "bahefl_flwr.executor")
QUICK_SUPERNODE = (sys.executable, "-m", "bahefl_flwr.supernode")
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Running processes. `executors[0]` is the SuperLink's, the others are the sites'; every process logs to its own file."""

    folder: Path
    environment: Mapping[str, str]
    superlink: subprocess.Popen[bytes]
    supernodes: Sequence[subprocess.Popen[bytes]]
    executors: Sequence[subprocess.Popen[bytes]]

    def run(self, app: Path, config: Mapping[str, str | int]) -> None:
        """`flwr run`, which returns as soon as the SuperLink has the app."""
        values = " ".join(f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in config.items())
        command = [str(_PROGRAMS / "flwr"), "run", str(app), "here", "--run-config", values]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def log(self, name: str) -> str:
        """What a process has said: "superlink", "executor-0", "supernode-1" and so on."""
        return (self.folder / f"{name}.log").read_text()


@contextmanager
def deployed(
    folder: Path, sites: int, *, executor: Sequence[str], supernode: Sequence[str], secret: Path | None = None
) -> Iterator[Deployment]:
    """Start everything, and end it again.

    Args:
      folder: for logs and Flower's files.
      sites: how many SuperNodes.
      executor: the command that carries out tasks, without its options.
      supernode: the command of a SuperNode, without its options.
      secret: file that executors must know; the executor's command then names it too.
    """
    link, *nodes = _free_ports(sites + 1)
    environment = _environment(folder, link)
    guarded = ["--superexec-auth-secret-file", str(secret)] if secret else []
    with ExitStack() as stack:

        def start(name: str, *command: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(_process(folder / f"{name}.log", command, environment))

        superlink = start(
            "superlink", str(_PROGRAMS / "flower-superlink"), "--insecure", "--isolation", "process", "--host", "127.0.0.1",
            "--port", str(link), "--database", str(folder / "superlink.db"), *guarded,
        )  # fmt: skip
        _wait_for(link)
        supernodes = [
            start(
                f"supernode-{i}", *supernode, "--insecure", "--isolation", "process", "--superlink", f"127.0.0.1:{link}",
                "--host", "127.0.0.1", "--port", str(port), "--node-config", f"partition-id={i - 1} num-partitions={sites}",
                *guarded,
            )
            for i, port in enumerate(nodes, 1)
        ]  # fmt: skip
        for port in nodes:
            _wait_for(port)
        executors = [
            start(f"executor-{i}", *executor, "--insecure", "--runtime-api-address", f"127.0.0.1:{port}")
            for i, port in enumerate((link, *nodes))
        ]
        yield Deployment(folder=folder, environment=environment, superlink=superlink, supernodes=supernodes, executors=executors)


def wait_for(path: Path, timeout_s: float) -> None:
    """Until a file is there.

    Raises:
      TimeoutError: it is not.
    """
    until = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"no {path} after {timeout_s:.0f} s")
        time.sleep(0.2)


def _environment(folder: Path, link: int) -> dict[str, str]:
    home = folder / "flower"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    return {
        **os.environ,
        "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _wait_for(port: int) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def _process(log: Path, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
