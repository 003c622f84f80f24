"""Checks and builds: `nox` runs lint, types, imports and tests; `nox -l` lists the rest."""

import os
import re
import shutil
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "imports", "tests"]

# In CI everything is already in one environment: nox --no-venv.
_CONSTRAINTS = ("-c", "constraints.txt")
# The client of store=s3, and a server to test it with.
_S3 = ("obstore", "moto[s3]", "flask", "flask-cors")
# Writes and reads the metrics.
_METRICS = ("prometheus-client",)
# What the example needs beside the package.
_EXAMPLE = ("scikit-learn",)


def _install(session: nox.Session, *tools: str, package: bool = True) -> None:
    if session.virtualenv.is_sandboxed is False:
        return
    if package:
        # First and by its plain version, so that an index with CPU wheels answers before a GPU build is chosen.
        session.install("torch==2.13.0", *_CONSTRAINTS)
    session.install(*tools, *(["-e", "."] if package else []), *_CONSTRAINTS)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and formatting."""
    _install(session, "ruff", package=False)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over the package."""
    _install(session, "mypy", "types-PyYAML")
    session.run("mypy", *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Imports go down only: the floors in pyproject.toml."""
    # The package alone: its imports are read, not run.
    _install(session, "import-linter", package=False)
    if session.virtualenv.is_sandboxed:
        session.install("-e", ".", "--no-deps")
    session.run("lint-imports", "--no-cache")


@nox.session
def tests(session: nox.Session) -> None:
    """pytest on two cores, without whole federations and the slow tests; `nox -s tests -- -m ""` runs all."""
    _pytest(session, *session.posargs)


@nox.session
def federations(session: nox.Session) -> None:
    """Whole federations: keys renewed, members silent or hostile, processes. Eight minutes; needs openssl and npm."""
    session.run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "tests/nodes", external=True)
    _pytest(session, "-m", "federation and not slow", *session.posargs)


def _pytest(session: nox.Session, *arguments: str) -> None:
    _install(session, "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", *_S3, *_METRICS, *_EXAMPLE)
    # File by file, so that what a file prepares once is prepared once.
    session.run("pytest", "-n", "2", "--dist", "loadfile", *arguments)


@nox.session
def anvil(session: nox.Session) -> None:
    """The tests of the ledger on a real node. Needs Node.js for its npm."""
    session.run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "tests/nodes", external=True)
    _install(session, "pytest", "pytest-timeout", "hypothesis")
    session.run("pytest", "-m", "", "-k", "anvil", "tests/integration", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """The property and mutation tests with new random examples, 2000 each. About half an hour."""
    _install(session, "pytest", "pytest-timeout", "hypothesis")
    session.run(
        "pytest",
        "--hypothesis-profile=thorough",
        "--timeout=1800",
        "-m",
        "",
        "tests/property",
        "tests/tampered",
        *session.posargs,
    )


@nox.session
def faults(session: nox.Session) -> None:
    """Every test of docs/faults.md: kill -9 of every process in every phase, and more. An hour; needs openssl and npm."""
    session.run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "tests/nodes", external=True)
    _install(session, "pytest", "pytest-timeout", "hypothesis", *_S3)
    tests = sorted(set(re.findall(r"`(tests/[^`]+)`", Path("docs/faults.md").read_text())))
    session.run("pytest", "-m", "", *tests, *session.posargs)


@nox.session
def contracts(session: nox.Session) -> None:
    """Recompile the contracts with the pinned compiler and compare byte for byte with the shipped artifact. Needs Node.js."""
    session.run("npm", "ci", "--no-audit", "--no-fund", "--prefix", "contracts", external=True)
    session.run(sys.executable, "contracts/compile.py", "--check", external=True)


@nox.session
def forge(session: nox.Session) -> None:
    """Fuzz the contracts with Foundry: 100,000 random calls, all claims after each. Eight minutes; FOUNDRY_PROFILE=quick: two."""
    forge = _forge(session)
    session.chdir("contracts")  # the compiler's path in foundry.toml starts there
    session.run(forge, "test", *session.posargs, external=True)


@nox.session
def slither(session: nox.Session) -> None:
    """Static analysis of the contracts; every finding needs its answer in docs/slither.md. Needs Node.js."""
    path = os.pathsep.join((str(Path(_forge(session)).parent), os.environ["PATH"]))
    session.install("slither-analyzer==0.11.6")
    session.run("python", "contracts/findings.py", env={"PATH": path})


def _forge(session: nox.Session) -> str:
    """Fetch the pinned compiler and Foundry; forge's program."""
    for folder in ("contracts", "contracts/test"):
        session.run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, external=True)
    return shutil.which("forge", path=Path("contracts/test/node_modules/@foundry-rs/forge-linux-amd64/bin").absolute()) or "forge"


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and source distribution; the wheel must carry conf/ and the contract."""
    _install(session, "build", package=False)
    session.run("python", "-m", "build", "--outdir", "dist")


@nox.session
def bench_he(session: nox.Session) -> None:
    """Our encryption beside TenSEAL and NVIDIA FLARE; writes docs/benchmarks.md. About ten minutes, on an idle machine."""
    _install(session)
    # FLARE pins an older TenSEAL, hence an environment of its own.
    peer = Path(session.create_tmp()) / "nvflare"
    session.run("python", "-m", "venv", str(peer))
    session.run(str(peer / "bin" / "pip"), "install", "--quiet", "nvflare[HE]==2.9.0", external=True)
    session.run("python", "benchmarks/he.py", "--nvflare", str(peer / "bin" / "python"), "--write", *session.posargs)


@nox.session
def bench_screening(session: nox.Session) -> None:
    """Sketching ten updates beside encrypting them; writes docs/benchmarks.md. A minute, on an idle machine."""
    _install(session)
    session.run("python", "benchmarks/screening_cost.py", "--write", *session.posargs)


@nox.session
def bench_robustness(session: nox.Session) -> None:
    """Attacks and defences on a toy task; writes docs/robustness.md. About ten minutes, on one core."""
    _install(session, "scikit-learn==1.9.1")
    results = Path(session.create_tmp()) / "robustness.jsonl"
    # Runs of other rules would be taken for those of these.
    results.unlink(missing_ok=True)
    session.run("python", "benchmarks/robustness.py", "--results", str(results), "--write", *session.posargs)


@nox.session
def bench_ledger(session: nox.Session) -> None:
    """Gas and CPU per round with 5 to 100 sites; writes docs/benchmarks.md. About ten minutes, on an idle machine."""
    _install(session)
    session.run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "tests/nodes", external=True)
    session.run(
        "python",
        "benchmarks/ledger.py",
        "--anvil",
        "tests/nodes/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil",
        "--write",
        *session.posargs,
    )


@nox.session
def bench_latency(session: nox.Session) -> None:
    """A phase between processes, Flower's commands beside ours; writes docs/benchmarks.md. Ten minutes, on an idle machine."""
    _install(session)
    session.run("python", "benchmarks/deployment_latency.py", "--write", *session.posargs)


@nox.session
def bench_learning(session: nox.Session) -> None:
    """What the application learns, 3 seeds; `-- --data FOLDER` names the slices; writes docs/benchmarks.md. About two hours."""
    _install(session)
    session.run("python", "benchmarks/learning.py", "measure", *session.posargs)
    session.run("python", "benchmarks/learning.py", "tables", "--write")
