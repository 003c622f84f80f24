"""`flwr run .`: the same settings reach both apps through Flower's own SuperLink."""

import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tomli_w

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Flower project with our app config and the tiny app."""
    app = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    app["components"] = {"serverapp": "tiny_app:server_app", "clientapp": "tiny_app:client_app"}
    content = {"project": {"name": "tiny", "version": "1.0.0", "dependencies": []}, "tool": {"flwr": {"app": app}}}
    (tmp_path / "pyproject.toml").write_text(tomli_w.dumps(content))
    (tmp_path / "tiny_app.py").write_text((ROOT / "tests" / "apps" / "tiny_app.py").read_text())
    return tmp_path


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Flower of its own; the SuperLink that `flwr run` leaves behind is ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    yield {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "flower"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": port,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    for process in Path("/proc").glob("[0-9]*"):
        # Processes come and go while we look.
        with suppress(OSError):
            if port in (process / "cmdline").read_text(errors="replace").split("\0"):
                os.kill(int(process.name), signal.SIGTERM)


@pytest.mark.slow
def test_a_named_experiment_and_a_changed_key_reach_both_apps(project: Path, flower: dict[str, str]) -> None:
    """experiment=smoke is composed in every process, and the learning rate of the command line wins."""
    command = ["flwr", "run", ".", "--stream"]
    command += ["--federation-config", "num-supernodes=3 client-resources-num-cpus=1"]
    command += ["--run-config", f'experiment="smoke" train.lr=0.25 run.root="{project}/runs"']
    done = subprocess.run(command, cwd=project, env=flower, capture_output=True, text=True, timeout=110, check=False)
    assert "site 2 lr 0.25 threads 1 same folder True" in done.stdout, done.stdout + done.stderr
    assert list(project.glob("runs/*-smoke/summary.json"))
