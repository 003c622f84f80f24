"""Our encryption beside its peers, in one run on one machine: CPU seconds, bytes and peak memory of one round.

    python benchmarks/he.py --nvflare PYTHON --rounds 5 --write

PYTHON is the interpreter of an environment that has nvflare[HE]; `nox -s bench_he` makes one. Without it that peer is left out.
Every measurement is a process of its own, peers take turns, and medians are written to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from document import table, write_between_markers
from measuring import Figures, medians

_HERE = Path(__file__).parent
_DOCUMENT = _HERE.parent / "docs" / "benchmarks.md"
_PARAMETERS, _SITES = 1_000_000, 5
_SITES_FOR_MEMORY = (2, 5, 10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One way to secure an aggregation.

    Attributes:
      roles: arguments of its script that make it act as client, server, and opener, in that order.
    """

    name: str
    python: str
    script: str
    roles: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def systems(nvflare: str | None) -> list[System]:
    """Ours first; everything else is compared with it."""
    ours = [
        System(
            name=f"bahefl_flwr, adds with {engine}", python=sys.executable, script="he_ours.py",
            roles=(("site",), ("coordinator", "--engine", label), ("open",)),
        )
        for label, engine in (("numpy", "numpy"), ("tenseal", "TenSEAL"))
    ]  # fmt: skip
    plain = System(
        name="TenSEAL 8192 [60, 40, 40, 60]", python=sys.executable, script="he_tenseal.py",
        roles=(("client",), ("server",), ("open",)),
    )  # fmt: skip
    flare = [
        System(
            name=f"NVFlare 2.9.0 HE, {tensors} tensor{'s' if tensors > 1 else ''}", python=nvflare, script="he_nvflare.py",
            roles=tuple((role, "--tensors", str(tensors)) for role in ("client", "server", "open")),
        )
        for tensors in (1, 64)
        if nvflare
    ]  # fmt: skip
    return [*ours, plain, *flare]


def measure(system: System, folder: Path) -> tuple[Figures, dict[str, str]]:
    """All roles of one system once.

    Returns:
      Its figures, peak memory by role, and the versions of the libraries it used.
    """
    figures: Figures = {}
    versions: dict[str, str] = {}
    for where, role in zip(("site", "coordinator", "opener"), system.roles, strict=True):
        for name, value in run(system.python, system.script, *role, str(folder), "--sites", str(_SITES)).items():
            if isinstance(value, str):
                versions[name] = value
            else:
                figures[f"{where} {name}" if name == "peak_mb" else name] = value
    return figures, versions


def run(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """One measuring process and what it reports."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "figures.json"
        command = [python, str(_HERE / script), *arguments, "--output", str(output)]
        # TenSEAL writes a warning per vector on standard output.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return dict(json.loads(output.read_text()))


def memory_by_sites(rounds: int) -> list[list[str]]:
    """Peak memory of the coordinator by number of sites, one row per engine, in MB."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "he_ours.py", "site", folder, "--repeats", "1")
        for engine in ("numpy", "tenseal"):
            role = ("coordinator", folder, "--engine", engine, "--repeats", "1")
            peaks = [
                medians([run(sys.executable, "he_ours.py", *role, "--sites", str(sites)) for _ in range(rounds)])["peak_mb"]
                for sites in _SITES_FOR_MEMORY
            ]
            rows.append([engine, *(f"{peak:.0f}" for peak in peaks)])
    return rows


def comparison(figures: dict[str, Figures]) -> str:
    """The table of ratios: how many times what we need the others need."""
    columns = {
        "encrypt, one site": lambda f: f["encrypt_s"],
        "upload": lambda f: f["upload_bytes"],
        "aggregate": lambda f: f["aggregate_s"],
        "open": _opening,
        "peak memory, site": lambda f: f["site peak_mb"],
        "peak memory, coordinator": lambda f: f["coordinator peak_mb"],
    }
    first = next(iter(figures.values()))
    rows = [[name, *(_ratio(pick(f) / pick(first)) for pick in columns.values())] for name, f in figures.items()]
    return table(["how many times as much", *columns], rows)


def absolute(figures: dict[str, Figures], alone: Figures) -> str:
    """What the ratios are ratios to, and the steps that have no counterpart elsewhere, `alone` among them."""
    head = ["", "encrypt s", "upload B/parameter", "aggregate s", "open s", "site MB", "coordinator MB"]
    rows = [
        [
            name, f"{f['encrypt_s']:.3f}", f"{f['upload_bytes'] / _PARAMETERS:.2f}", f"{f['aggregate_s']:.3f}",
            f"{_opening(f):.3f}", f"{f['site peak_mb']:.0f}", f"{f['coordinator peak_mb']:.0f}",
        ]
        for name, f in figures.items()
    ]  # fmt: skip
    ours = next(iter(figures.values()))
    steps = [
        ["key ceremony, all steps of one of 5 members", f"{alone['ceremony_s']:.3f} s"],
        ["proof of an update, besides encrypting it", f"{alone['prove_s']:.3f} s"],
        ["verification of that proof", f"{alone['verify_update_s']:.3f} s"],
        ["the proof", f"{alone['proof_bytes'] / _PARAMETERS:.2f} B/parameter"],
        ["partial decryption, one member of a quorum of 3", f"{ours['share_s']:.3f} s"],
        ["a decryption share", f"{ours['share_bytes'] / _PARAMETERS:.2f} B/parameter"],
        ["checking a share of another member of it", f"{ours['verify_s'] / 2:.3f} s"],
        ["combination and unpacking", f"{ours['open_s']:.3f} s"],
        ["largest error of an opened parameter, range 0.25", f"{ours['largest_error']:.1e}"],
    ]
    return table(head, rows) + "\n\n" + table(["threshold steps, ours only", ""], steps)


def machine() -> str:
    """Processor, cores and load: what the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def text(rounds: int, nvflare: str | None) -> str:
    """Measure everything, and say so in Markdown."""
    load = [os.getloadavg()[0]]
    runs: dict[str, list[Figures]] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for system in systems(nvflare):
                where = Path(folder) / system.script
                where.mkdir(exist_ok=True)
                figures, used = measure(system, where)
                runs.setdefault(system.name, []).append(figures)
                versions |= {f"{library} ({system.script.removesuffix('.py')})": v for library, v in used.items()}
                print(f"round {number + 1} of {rounds}: {system.name}: {figures}", flush=True)
        alone = {
            name: value
            for role in ("member", "proof")
            for name, value in _numbers([run(sys.executable, "he_ours.py", role, folder) for _ in range(rounds)]).items()
        }
    load.append(os.getloadavg()[0])
    figures = {name: medians(measured) for name, measured in runs.items()}
    said = [
        f"{_PARAMETERS:,} parameters, {_SITES} sites, medians of {rounds} rounds of processes, CPU seconds. "
        f"{machine()}; load {load[0]:.1f} before and {load[1]:.1f} after; {datetime.now(tz=UTC):%Y-%m-%d}. "
        + ", ".join(f"{library} {v}" for library, v in sorted(versions.items())) + ".",
        comparison(figures),
        absolute(figures, alone),
        "Peak memory of our coordinator, MB, by number of sites:",
        table(["adds with", *(f"{sites} sites" for sites in _SITES_FOR_MEMORY)], memory_by_sites(rounds)),
    ]  # fmt: skip
    return "\n\n".join(said)


def _numbers(runs: list[dict[str, Any]]) -> Figures:
    return medians([{name: value for name, value in run.items() if not isinstance(value, str)} for run in runs])


def _opening(figures: Figures) -> float:
    """Everything one site does; peers have one key, hence neither shares nor checks."""
    return figures["open_s"] + figures.get("share_s", 0.0) + figures.get("verify_s", 0.0)


def _ratio(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def main() -> None:
    """Measure and print; with --write also into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvflare", help="interpreter of an environment with nvflare[HE]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write into {_DOCUMENT.relative_to(_HERE.parent)}")
    options = parser.parse_args()
    measured = text(options.rounds, options.nvflare)
    print(measured)
    if options.write:
        write_between_markers(_DOCUMENT, "he", measured)


if __name__ == "__main__":
    main()
