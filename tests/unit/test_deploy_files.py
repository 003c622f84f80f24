"""Claims about deploy/: units and containers start programs and options that exist, and may do no more than they need."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
# Drop-ins for Flower's own programs, with the options of those.
SAME_OPTIONS = {"bahefl-executor": "flower-superexec", "bahefl-supernode": "flower-supernode"}
OF_OURS = {"store": ("store", "serve"), "ledger": ("ledger", "serve")}
# The rating of `systemd-analyze security`, times ten: 0 is nothing allowed, 96 is everything.
MOST_EXPOSED = 20


def unit(path: Path) -> dict[str, list[str]]:
    """Values of a unit's keys, in order; continued lines are joined."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def commands() -> dict[str, list[str]]:
    """Every command line of units and containers, by where it stands."""
    units = {path.name: shlex.split(unit(path)["ExecStart"][0]) for path in UNITS}
    return units | {f"compose {name}": service["command"] for name, service in COMPOSE["services"].items()}


@lru_cache
def options_of(program: str, *command: str) -> frozenset[str]:
    """What a program says it takes."""
    found = shutil.which(program, path=str(Path(sys.executable).parent))
    words = [found] if found else [sys.executable, "-c", "from bahefl_flwr.console import bahefl; bahefl()"]
    done = subprocess.run([*words, *command, "--help"], capture_output=True, text=True, check=True, timeout=60)
    return frozenset(re.findall(r"--[a-z][a-z-]+", done.stdout))


@pytest.mark.parametrize("where", commands())
def test_every_program_and_option_exists(where: str) -> None:
    """Asked of the installed programs themselves."""
    program, *words = commands()[where]
    name = Path(program).name
    scripts = {e.name for e in distribution("flwr").entry_points} | tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "project"
    ]["scripts"].keys()
    assert name in scripts | SAME_OPTIONS.keys()
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    known = options_of(SAME_OPTIONS.get(name, name), *OF_OURS.get(words[0], ()))
    assert given <= known


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_hardened(path: Path) -> None:
    """No root, no capabilities, a file system that is read-only but for its own state, and no core files with keys in them."""
    found = unit(path)
    assert found["User"][0] not in ("", "root")
    assert {k: found[k] for k in ("NoNewPrivileges", "ProtectSystem", "ProtectHome", "CapabilityBoundingSet", "LimitCORE")} == {
        "NoNewPrivileges": ["yes"], "ProtectSystem": ["strict"], "ProtectHome": ["yes"], "CapabilityBoundingSet": [""],
        "LimitCORE": ["0"],
    }  # fmt: skip


def test_only_who_opens_keys_gets_the_passphrase() -> None:
    """The executors, as a credential or a secret; never in an environment or on a command line."""
    having = {path.stem for path in UNITS if any("passphrase:" in value for value in unit(path).get("LoadCredential", []))}
    assert having == {"bahefl-clientapp", "bahefl-serverapp"}
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if "passphrase" in service["secrets"]} == {"clientapp", "serverapp"}
    assert "passphrase" not in str(list(commands().values())).lower()


def test_telemetry_is_off_wherever_flower_runs() -> None:
    """In every unit and container."""
    for path in UNITS:
        program = Path(shlex.split(unit(path)["ExecStart"][0])[0]).name
        assert program == "bahefl" or "FLWR_TELEMETRY_ENABLED=0" in " ".join(unit(path)["Environment"])
    assert all(service["environment"]["FLWR_TELEMETRY_ENABLED"] == "0" for service in COMPOSE["services"].values())


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_is_hardened(name: str) -> None:
    """Read-only, without capabilities and new privileges, not as root; every volume and secret that it names is declared."""
    service: dict[str, Any] = COMPOSE["services"][name]
    assert (service["read_only"], service["cap_drop"], service["user"]) == (True, ["ALL"], "10001:10001")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["secrets"]) <= COMPOSE["secrets"].keys()
    volumes = {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith(("$", ".", "/"))}
    assert volumes <= COMPOSE["volumes"].keys()


@pytest.fixture
def verifiable(tmp_path: Path) -> list[str]:
    """The units, with programs that are there."""
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/bahefl/bin/", f"{tmp_path}/"))
        shutil.copy("/bin/true", tmp_path / Path(shlex.split(unit(path)["ExecStart"][0])[0]).name)
    return [str(tmp_path / path.name) for path in UNITS]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(verifiable: list[str]) -> None:
    """`systemd-analyze verify` has nothing to say."""
    done = subprocess.run(["systemd-analyze", "verify", *verifiable], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_rates_the_units_as_little_exposed(verifiable: list[str]) -> None:
    """`systemd-analyze security`, offline: at most 2.0 of 9.6."""
    for path in verifiable:
        command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout.splitlines()[-1]


def composes() -> list[str]:
    """The compose program of this machine, in either of its forms; empty without one."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and subprocess.run([*words, "version"], capture_output=True, check=False).returncode == 0:
            return words
    return []


@pytest.mark.skipif(not composes(), reason="needs docker compose")
def test_docker_understands_the_compose_file() -> None:
    """`docker compose config`, for both profiles."""
    command = [*composes(), "-f", "deploy/compose.yaml", "--profile", "centre", "--profile", "site", "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
