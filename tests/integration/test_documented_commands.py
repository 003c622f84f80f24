"""Every command in the documents works: each fenced `sh` block says how it is tested, and is."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.common.config import get_fused_config_from_dir, parse_config_args

from bahefl_flwr import console
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.settings import compose, from_run_config
from ledger_sites import ADMIN, CHAIN_ID, CONFIG, running_chain
from lesion_run import slice_folder, tiny_run, tiny_site

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")] + sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
# run: as it stands. show: as it stands, plus --show (it would take hours). slow: as it stands, among the slow tests.
# ci: an installation step or check that `.ci/run` performs on a clean clone. flwr: read by Flower's own parser, then by ours.
# fresh: as it stands, in a clean copy of the checkout with an empty environment, slow. folder: as show, with the real slices.
# store: with a real ledger as URL and CONTRACT; a server must say where it listens, then end on SIGTERM.
# deployment: tests/e2e holds it against deploy/local-federation.sh, which it runs.
# script: the text of deploy/local-federation.sh, which is printed in the walk-through.
# project: as it stands, in the example's folder. example: one after the other, by test_example.py.
# site: as ended, on what a small site keeps of a task as HOME/runs/TASK.
# nox: its default sessions are what `.ci/run` checks. ended: in this process, with a small ended run as RUN and slices as FOLDER.
MARKS = {
    "run", "show", "slow", "ci", "flwr", "fresh", "folder", "nox", "ended", "store", "deployment", "project", "example", "site",
    "script",
}  # fmt: skip
REAL_SLICES = ROOT.parent / "shared" / "data" / "ct-slices"


def blocks() -> Iterator[tuple[str, str, str]]:
    """Document, mark and command of every line in a fenced shell block."""
    for document in DOCUMENTS:
        for info, body in re.findall(r"^```(.*?)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL):
            language, _, mark = info.partition(" ")
            if language in ("sh", "bash", "shell", "console"):
                yield from ((document.name, mark, line) for line in body.splitlines())


def commands(mark: str) -> list[str]:
    """Commands of one mark, each once."""
    return sorted({command for _, found, command in blocks() if found == mark})


def run(command: str, folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a documented command in an empty folder, as in a shell with this environment activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    shell = ["bash", "-c", command]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_every_shell_block_says_how_it_is_tested() -> None:
    """A command that nobody runs goes stale."""
    assert not [block for block in blocks() if block[1] not in MARKS]


@pytest.mark.parametrize("command", commands("run"))
def test_a_quick_command_works(tmp_path: Path, command: str) -> None:
    """Exit code 0, and something to read."""
    done = run(command, tmp_path, 60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", commands("project"))
def test_a_command_in_the_example_works(command: str) -> None:
    """Exit code 0, and something to read."""
    done = run(command, ROOT / "examples" / "digits", 60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", commands("show"))
def test_a_long_commands_settings_are_allowed(tmp_path: Path, command: str) -> None:
    """Parsed, composed and checked as for the run itself."""
    done = run(f"{command} --show", tmp_path, 60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", commands("ended"))
def test_a_command_on_an_ended_run_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Exit code 0, and something to read."""
    names = {"RUN": str(tiny_run(tmp_path).path), "FOLDER": str(slice_folder(tmp_path / "slices", count=60))}
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(command)
    assert program == "bahefl"
    assert console.main([names.get(word, word) for word in words]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", commands("site"))
def test_a_command_on_a_sites_folder_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Exit code 0, and something to read."""
    names = {"HOME/runs/TASK": str(tiny_site(tmp_path)), "FOLDER": str(slice_folder(tmp_path / "slices"))}
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(command)
    assert program == "bahefl"
    assert console.main([names.get(word, word) for word in words]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", commands("store"))
def test_a_command_of_a_store_works(tmp_path: Path, command: str) -> None:
    """A server listens, and ends in good order; anything else does at once."""
    (tmp_path / "objects").mkdir()
    (tmp_path / "accounts").write_text(f"{ADMIN.address}\n")
    with running_chain(tmp_path / "chain.sqlite") as chain:
        contract = FederationLedger.deploy(Connection(chain.url, CHAIN_ID, account=ADMIN), CONFIG).address
        names = {"FOLDER": str(tmp_path), "ACCOUNTS": str(tmp_path / "accounts"), "URL": chain.url, "CONTRACT": contract}
        words = [names.get(word, word) for word in shlex.split(command)]
        free = ["--port", "0"] if "serve" in words else []
        program = Path(sys.executable).parent / words[0]
        with subprocess.Popen([program, *words[1:], *free], stdout=subprocess.PIPE, cwd=tmp_path) as process:
            assert process.stdout
            assert process.stdout.readline()
            process.terminate() if free else None
            assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", commands("slow"))
def test_a_whole_run_works(tmp_path: Path, command: str) -> None:
    """It ends well and leaves a report."""
    done = run(command, tmp_path, 800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("runs/*-*/report.html"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", commands("fresh"))
def test_a_new_users_first_command_works(tmp_path: Path, command: str) -> None:
    """A clean copy of the committed files and an empty environment are all it needs."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=tmp_path, input=archive, check=True)
    subprocess.run([sys.executable, "-m", "venv", "venv"], cwd=tmp_path, check=True)
    done = run(f"source venv/bin/activate && {command}", tmp_path, 1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("runs/*-default/report.html"))


@pytest.mark.skipif(not REAL_SLICES.is_dir(), reason="needs the real slices beside the checkout")
@pytest.mark.parametrize("command", commands("folder"))
def test_a_run_on_a_folder_is_allowed(tmp_path: Path, command: str) -> None:
    """With a folder in the documented layout the settings are accepted."""
    done = run(f"{command.replace('<folder>', str(REAL_SLICES))} --show", tmp_path, 60)
    assert done.returncode == 0, done.stderr


def test_the_printed_script_is_the_script() -> None:
    """To the letter: who reads it in the walk-through reads what the test of a whole federation runs."""
    (printed,) = re.findall(r"^```sh script\n(.*?)^```$", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE | re.DOTALL)
    assert printed == (ROOT / "deploy" / "local-federation.sh").read_text()


def test_nox_alone_checks_what_ci_checks() -> None:
    """The documented `nox` runs what `.ci/run` runs, but for the whole federations."""
    (command,) = commands("nox")
    assert command == "pip install nox && nox"
    sessions = re.search(r"nox.options.sessions = \[(.*)\]", (ROOT / "noxfile.py").read_text())
    assert sessions
    ci = (ROOT / ".ci" / "run").read_text()
    names = re.findall(r'"(\w+)"', sessions[1])
    assert f"--sessions {' '.join(names[:-1])} ||" in ci
    assert names[-1] == "tests"
    assert 'pytest -n 2 --dist loadfile -m "not slow" "$@"' in ci


@pytest.mark.parametrize("command", commands("flwr"))
def test_plain_flower_gets_the_same_settings(command: str) -> None:
    """Flower's parser accepts the run-config, and our settings make of it what flower-simulation would."""
    words = shlex.split(command)
    overrides = parse_config_args([words[words.index("--run-config") + 1]])
    settings = from_run_config(get_fused_config_from_dir(ROOT, overrides))
    assert settings == compose([f"{key}={value}" for key, value in overrides.items()])


def test_the_installation_steps_are_what_ci_does() -> None:
    """The documents install what `.ci/run` installs on a clean clone, under the same constraints."""
    ci = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "PIP_CONSTRAINT=constraints.txt" in ci
    for command in commands("ci"):
        assert command == ".ci/run" or command.startswith("pip install ")
        for requirement in re.findall(r"[a-z]+==[0-9.]+|-e \.", command):
            assert requirement in ci


def test_constraints_satisfy_the_declared_dependencies() -> None:
    """Every direct dependency is pinned."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    names = {re.match(r"[A-Za-z0-9-]+", text)[0].lower() for text in declared}  # type: ignore[index]
    assert names <= pinned


def test_no_committed_file_names_a_registry_host() -> None:
    """An installation asks whatever index its machine is configured for."""
    hosts = re.compile(rb"(?:pypi|npmjs|pythonhosted|yarnpkg)\.(?:org|com)|registry\.npm")
    files = (
        subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")
    )
    existing = [
        ROOT / name
        for name in files
        if name and (ROOT / name).is_file() and name != "tests/integration/test_documented_commands.py"
    ]
    assert not [path.name for path in existing if hosts.search(path.read_bytes())]
