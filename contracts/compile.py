"""Compile FederationLedger into the artifacts the package ships, or check that the shipped ones are what the sources give.

Usage: `npm ci` once in this folder, then `python contracts/compile.py` (write) or `python contracts/compile.py --check`.
Only the standard library, node and the pinned npm packages are needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ARTIFACTS = HERE.parent / "src" / "bahefl_flwr" / "ledger" / "artifacts"
CONTRACT = "FederationLedger"
READINGS = "LedgerReadings"  # created by the contract, answers for it
ENTRY = f"contracts/{CONTRACT}.sol"
SIZE_LIMIT = 24_576  # EIP-170, bytes of runtime code
CREATION_LIMIT = 49_152  # EIP-3860, bytes of creation code
OUTPUTS = [
    "abi",
    "storageLayout",
    "evm.bytecode.object",
    "evm.deployedBytecode.object",
    "evm.deployedBytecode.immutableReferences",
]
IMPORT = re.compile(r'^import\s+(?:\{[^}]*\}\s+from\s+)?"([^"]+)";', re.MULTILINE)


def sources() -> dict[str, dict[str, str]]:
    """Every file the contract imports, by the name it has in the compiler's input."""
    found: dict[str, dict[str, str]] = {}
    queue = [ENTRY]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        content = _path(name).read_text(encoding="utf-8")
        found[name] = {"content": content}
        queue += [_resolve(name, target) for target in IMPORT.findall(content)]
    return dict(sorted(found.items()))


def _path(name: str) -> Path:
    return HERE / "node_modules" / name if name.startswith("@") else HERE.parent / name


def _resolve(importer: str, target: str) -> str:
    if not target.startswith("."):
        return target
    parts = importer.split("/")[:-1]
    for step in target.split("/"):
        if step == "..":
            parts.pop()
        elif step != ".":
            parts.append(step)
    return "/".join(parts)


def standard_input() -> dict[str, Any]:
    """The compiler's whole input. London code runs on every EVM in use, also where PUSH0 and MCOPY are unknown."""
    return {
        "language": "Solidity",
        "sources": sources(),
        "settings": {
            "evmVersion": "london",
            "viaIR": True,
            "optimizer": {"enabled": True, "runs": 200},
            "outputSelection": {"*": dict.fromkeys((CONTRACT, READINGS), OUTPUTS)},
        },
    }


def source_digest(standard: dict[str, Any]) -> str:
    """SHA-256 over the names and contents of all sources, in the order of their names."""
    digest = hashlib.sha256()
    for name, source in sorted(standard["sources"].items()):
        content = source["content"].encode()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def compile_contract(standard: dict[str, Any]) -> dict[str, Any]:
    """The artifact of a standard input. Exits with the compiler's messages if there is any error or warning."""
    run = subprocess.run(
        ["node", str(HERE / "solc.js")], input=json.dumps(standard), capture_output=True, text=True, check=True, timeout=300
    )
    result = json.loads(run.stdout)
    if messages := [error["formattedMessage"] for error in result.get("errors", ())]:
        sys.exit("\n".join(messages))
    contract = result["contracts"][ENTRY][CONTRACT]
    readings = result["contracts"][f"contracts/{READINGS}.sol"][READINGS]
    check_layout(contract, readings)
    version = subprocess.run(["node", str(HERE / "solc.js"), "--version"], capture_output=True, text=True, check=True)
    return {
        "contractName": CONTRACT,
        "compiler": version.stdout.strip(),
        "settings": {key: standard["settings"][key] for key in ("evmVersion", "optimizer")},
        "sourceSha256": source_digest(standard),
        "abi": contract["abi"] + [entry for entry in readings["abi"] if entry not in contract["abi"]],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
        "readingsDeployedBytecode": "0x" + readings["evm"]["deployedBytecode"]["object"],
        "readingsReferences": readings_references(contract),
    }


def check_layout(contract: dict[str, Any], readings: dict[str, Any]) -> None:
    """Exit unless the readings find every variable where the contract keeps it: they run on its storage."""
    theirs, ours = (
        [(v["label"], v["slot"], v["offset"], v["type"]) for v in compiled["storageLayout"]["storage"]]
        for compiled in (readings, contract)
    )
    if ours[: len(theirs)] != theirs:
        sys.exit(f"{READINGS} would read other variables than {CONTRACT} writes: all storage belongs into LedgerState")


def readings_references(contract: dict[str, Any]) -> list[int]:
    """Offsets in the runtime code at which the constructor put the readings' address, as a word of 32 bytes."""
    references = contract["evm"]["deployedBytecode"]["immutableReferences"]
    return sorted(place["start"] for places in references.values() for place in places)


def check_sizes(artifact: dict[str, Any]) -> None:
    """Print how large the codes are. Exit if one is larger than Ethereum chains take."""
    codes = {
        f"{CONTRACT}, runtime": ("deployedBytecode", SIZE_LIMIT),
        f"{READINGS}, runtime": ("readingsDeployedBytecode", SIZE_LIMIT),
        "both, creation": ("bytecode", CREATION_LIMIT),
    }
    for name, (key, limit) in codes.items():
        size = len(artifact[key]) // 2 - 1
        print(f"{name}: {size} of {limit} bytes")
        if size > limit:
            sys.exit(f"{name}: too large for any Ethereum chain")


def main() -> None:
    """Write the two artifacts, or with `--check` exit with status 1 if they are not what the sources give."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    standard = standard_input()
    artifact = compile_contract(standard)
    check_sizes(artifact)
    for path, content in ((f"{CONTRACT}.json", artifact), (f"{CONTRACT}.input.json", standard)):
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        if not check:
            ARTIFACTS.mkdir(exist_ok=True)
            (ARTIFACTS / path).write_text(text, encoding="utf-8")
        elif (ARTIFACTS / path).read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not what contracts/ compiles to: run python contracts/compile.py and commit the result")


if __name__ == "__main__":
    main()
