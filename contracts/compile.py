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
# Created by the contract, in this order, and run on its storage.
PARTS = {"readings": "LedgerReadings", "contributions": "LedgerContributions"}
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
            "outputSelection": {"*": dict.fromkeys((CONTRACT, *PARTS.values()), OUTPUTS)},
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
    parts = {part: result["contracts"][f"contracts/{name}.sol"][name] for part, name in PARTS.items()}
    for part, compiled in parts.items():
        check_layout(contract, compiled, PARTS[part])
    version = subprocess.run(["node", str(HERE / "solc.js"), "--version"], capture_output=True, text=True, check=True)
    return {
        "contractName": CONTRACT,
        "compiler": version.stdout.strip(),
        "settings": {key: standard["settings"][key] for key in ("evmVersion", "optimizer")},
        "sourceSha256": source_digest(standard),
        "abi": joined(contract["abi"], *(compiled["abi"] for compiled in parts.values())),
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
        "parts": {
            part: {"deployedBytecode": "0x" + compiled["evm"]["deployedBytecode"]["object"], "references": places}
            for (part, compiled), places in zip(parts.items(), references(contract), strict=True)
        },
    }


def joined(*abis: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One ABI of several contracts that answer at one address."""
    return [entry for k, abi in enumerate(abis) for entry in abi if not any(entry in earlier for earlier in abis[:k])]


def check_layout(contract: dict[str, Any], part: dict[str, Any], name: str) -> None:
    """Exit unless the part finds every variable where the contract keeps it: it runs on the contract's storage."""
    theirs, ours = (
        [(v["label"], v["slot"], v["offset"], v["type"]) for v in compiled["storageLayout"]["storage"]]
        for compiled in (part, contract)
    )
    if ours[: len(theirs)] != theirs:
        sys.exit(f"{name} would use other variables than {CONTRACT}: all storage belongs into LedgerState")


def references(contract: dict[str, Any]) -> list[list[int]]:
    """For each part the offsets in the runtime code at which the constructor put its address, as a word of 32 bytes.

    The compiler numbers immutable variables in the order in which they are declared, which is that of PARTS.
    """
    found = contract["evm"]["deployedBytecode"]["immutableReferences"]
    return [sorted(place["start"] for place in found[number]) for number in sorted(found, key=int)]


def check_sizes(artifact: dict[str, Any]) -> None:
    """Print how large the codes are. Exit if one is larger than Ethereum chains take."""
    codes = {f"{CONTRACT}, runtime": (artifact["deployedBytecode"], SIZE_LIMIT)}
    codes |= {f"{PARTS[part]}, runtime": (made["deployedBytecode"], SIZE_LIMIT) for part, made in artifact["parts"].items()}
    codes["all, creation"] = (artifact["bytecode"], CREATION_LIMIT)
    for name, (code, limit) in codes.items():
        size = len(code) // 2 - 1
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
