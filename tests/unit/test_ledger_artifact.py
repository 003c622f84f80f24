"""Claims about the compiled contract in the package: it is what contracts/ says, and what the typed client expects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr.ledger.contract import ContractConfig
from bahefl_flwr.ledger.deployment import artifact
from bahefl_flwr.records import BallotStage, EpochPhase, MemberStatus, RoundOutcome, RoundPhase

ROOT = Path(__file__).parents[2]
SIZE_LIMIT = 24_576
MARGIN = 500
PUSH1, PUSH32 = 0x60, 0x7F
STANDARD = json.loads((ROOT / "src/bahefl_flwr/ledger/artifacts/FederationLedger.input.json").read_text(encoding="utf-8"))


def functions() -> dict[str, dict[str, Any]]:
    """Functions of the ABI by name."""
    return {entry["name"]: entry for entry in artifact()["abi"] if entry["type"] == "function"}


def test_the_artifact_was_compiled_from_these_sources() -> None:
    """Its digest is that of the standard input's sources, and those of ours are the files in contracts/."""
    digest = hashlib.sha256()
    for name, source in sorted(STANDARD["sources"].items()):
        content = source["content"].encode()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    assert artifact()["sourceSha256"] == digest.hexdigest()
    ours = {name: source["content"] for name, source in STANDARD["sources"].items() if name.startswith("contracts/")}
    assert ours == {f"contracts/{p.name}": p.read_text(encoding="utf-8") for p in (ROOT / "contracts").glob("*.sol")}


def test_the_contract_fits_every_ethereum_chain() -> None:
    """EIP-170's limit for all codes, with some room left; EIP-3860's for the creation; London code, which all EVMs in use run."""
    assert len(code()) <= SIZE_LIMIT - MARGIN
    assert len(code("readings")) <= SIZE_LIMIT - MARGIN
    assert len(code("contributions")) <= SIZE_LIMIT - MARGIN
    assert len(as_bytes(artifact()["bytecode"])) <= 2 * SIZE_LIMIT
    assert artifact()["settings"]["evmVersion"] == STANDARD["settings"]["evmVersion"] == "london"


def test_the_compiler_is_pinned_without_naming_a_registry() -> None:
    """package.json and its lock name exact versions with checksums, and no host to fetch them from."""
    package = json.loads((ROOT / "contracts/package.json").read_text(encoding="utf-8"))
    lock = (ROOT / "contracts/package-lock.json").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())
    assert artifact()["compiler"].startswith(package["dependencies"]["solc"])
    assert "integrity" in lock
    assert "://" not in re.sub(r'"(?:url|homepage)": "[^"]*"', "", lock)


@pytest.mark.parametrize(
    ("library", "phases"), [("RoundPhase", RoundPhase), ("EpochPhase", EpochPhase), ("BallotStage", BallotStage)]
)
def test_phases_have_the_contracts_numbers(library: str, phases: type[RoundPhase | EpochPhase | BallotStage]) -> None:
    """The numbers in Types.sol are those of records.py."""
    assert numbers_of(library) == {p.name: p.value for p in phases if p.value}


def test_outcomes_have_the_contracts_numbers() -> None:
    """Zero is one of them: all included updates."""
    assert numbers_of("Outcome") == {o.name: o.value for o in RoundOutcome}


def test_standings_have_the_contracts_numbers() -> None:
    """Only ACTIVE and SUSPENDED are ever stored."""
    assert numbers_of("MemberStatus") == {s.name: s.value for s in (MemberStatus.ACTIVE, MemberStatus.SUSPENDED)}


def test_settings_have_the_contracts_order() -> None:
    """ContractConfig's fields are the contract's `Config`, in the same order."""
    components = [c["name"] for c in functions()["setConfig"]["inputs"][0]["components"]]
    names = [re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), name) for name in components]
    assert [re.sub(r"_s$", "", name) for name in ContractConfig.__dataclass_fields__] == names


def test_the_readings_cannot_write() -> None:
    """No instruction of their code changes storage, emits an event, creates, or calls anything."""
    writing = {0x55, *range(0xA0, 0xA5), 0xF0, 0xF1, 0xF2, 0xF4, 0xF5, 0xFF}
    assert writing & set(instructions(code())) >= {0x55, 0xF4}
    assert not writing & set(instructions(code("readings")))


def test_contributions_reach_no_other_contract() -> None:
    """Their code writes and emits events, but creates, destroys and calls nothing."""
    found = set(instructions(code("contributions")))
    assert 0x55 in found
    assert not {0xF0, 0xF1, 0xF2, 0xF4, 0xF5, 0xFF} & found


@pytest.mark.parametrize("part", ["readings", "contributions"])
def test_the_contract_has_room_for_the_parts_addresses_only(part: str) -> None:
    """Where `attach` masks the code, the shipped one has zeros of a pushed word."""
    runtime = code()
    places = artifact()["parts"][part]["references"]
    assert places
    assert all(runtime[start - 1] == PUSH32 and not any(runtime[start : start + 32]) for start in places)


def code(part: str = "") -> bytes:
    """The ledger's own runtime code, or that of a part."""
    return as_bytes((artifact()["parts"][part] if part else artifact())["deployedBytecode"])


def as_bytes(text: str) -> bytes:
    """A code of the artifact."""
    return bytes.fromhex(text.removeprefix("0x"))


def instructions(runtime: bytes) -> Iterator[int]:
    """The instructions of a code, without what they push and without the compiler's note at the end."""
    at, end = 0, len(runtime) - 2 - int.from_bytes(runtime[-2:], "big")
    while at < end:
        yield runtime[at]
        at += 1 + max(0, runtime[at] - PUSH1 + 1) * (runtime[at] <= PUSH32)


def numbers_of(library: str) -> dict[str, int]:
    """The constants of a library in Types.sol."""
    text = (ROOT / "contracts/Types.sol").read_text(encoding="utf-8")
    body = text.split(f"library {library} {{")[1].split("}")[0]
    return {name: int(value) for name, value in re.findall(r"constant (\w+) = (\d+);", body)}
