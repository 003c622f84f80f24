"""Check 13: the chain of models from the initial one to the final one, and the digest of a model file.

A model's numbers are read here only to be hashed.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bahefl_flwr.audit.case import Case, Claim
from bahefl_flwr.audit.evidence import Evidence, RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.report import ComparedModel
from bahefl_flwr.errors import StoreError
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.untrusted_json import read_json

_DOMAIN = b"bahefl-model-1"
_MOST_HEADER_BYTES = 16 << 20


def model_chain(case: Case) -> Iterator[Finding]:
    """13. Every round starts from the model that the last finalised one made, and the final model is the last of them."""
    newest: dict[int, RoundEvidence | None] = {t.number: None for t in case.evidence.tasks if case.judges_task(t.number)}
    for r in filter(lambda r: case.judges_task(r.task), case.evidence.rounds):
        if case.round in (0, r.record.number):
            yield from _links(case.evidence, r, newest[r.task])
        if r.record.phase is RoundPhase.FINALIZED:
            newest[r.task] = r
    final = next((r for r in reversed(newest.values()) if r), None)
    for claim in case.claims:
        yield from _claim(case, claim, final)


def _links(evidence: Evidence, r: RoundEvidence, last: RoundEvidence | None) -> Iterator[Finding]:
    number = r.record.number
    base = last.record.opened if last else evidence.task_of(r.task).initial_model
    parent, parent_round = (last.record.aggregate, last.record.number) if last else (bytes(32), 0)
    if r.record.base != base:
        yield Finding(round=number, message=f"starts from model {r.record.base.hex()}; the last one was {base.hex()}")
    if (r.record.parent, r.parent_round) != (parent, parent_round):
        yield Finding(round=number, message=f"builds on round {r.parent_round}; the last finalised one was {parent_round}")


def _claim(case: Case, claim: Claim, final: RoundEvidence | None) -> Iterator[Finding]:
    """A model that somebody has: the final one, or that of the round it says."""
    if claim.problem:
        yield Finding(message=claim.problem)
        return
    number = claim.round if claim.round is not None else (final.record.number if final else 0)
    if case.round not in (0, number):
        return
    true = _model_after(case, number)
    if claim.digest != true:
        which = "the final model" if claim.round is None else f"the model after round {number}"
        message = f"{claim.who} has {claim.digest or 'nothing'} as {which}; the ledger names {true or 'none'}"
        yield Finding(round=number or None, message=message)


def _model_after(case: Case, number: int) -> str:
    """Digest of the model after a finalised round, of the last task's initial one for 0; "" if there is none."""
    if number == 0:
        tasks = [task for task in case.evidence.tasks if case.judges_task(task.number)]
        return tasks[-1].initial_model.hex() if tasks else ""
    rounds = [r.record for r in case.evidence.rounds if r.record.number == number and r.record.phase is RoundPhase.FINALIZED]
    return rounds[0].opened.hex() if rounds else ""


def compared(case: Case | None, file: Claim | None) -> ComparedModel | None:
    """What the ledger says of a model file: it is the one of the round that it states, or another, or that is not judged.

    Args:
      case: None where the ledger cannot be judged. file: None where none was given.
    """
    if file is None:
        return None
    number, status = file.round or 0, "not compared"
    if case and case.round in (0, number):
        status = "named" if file.digest == _model_after(case, number) else "other"
    return ComparedModel(file=file.who, round=number, digest=file.digest, status=status)


def model_file_claim(path: Path) -> Claim:
    """That a file is the model after the round it names; its digest is computed, as `site.model.Model.digest` does.

    Raises:
      StoreError: it is no safetensors file of bahefl.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MOST_HEADER_BYTES:
                raise ValueError(f"its header claims {size} bytes")
            header = read_json(file.read(size))
            data = file.read()
        stated = read_json(header["__metadata__"]["bahefl"].encode())
        return Claim(who=str(path), digest=_digest(header, stated["order"], data), round=int(stated["round"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError, struct.error) as error:
        raise StoreError(f"{path} is not a model file of bahefl ({error}); give the model.safetensors of a site") from None


def _digest(header: dict[str, Any], order: list[str], data: bytes) -> str:
    h = hashlib.sha256(_DOMAIN)
    for name in order:
        entry = header[name]
        shape, (start, end) = entry["shape"], entry["data_offsets"]
        if entry["dtype"] != "F32" or not 0 <= start <= end <= len(data) or end - start != 4 * math.prod(shape):
            raise ValueError(f"array {name} is not float32 of its shape")
        h.update(struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        h.update(data[start:end])
    return h.hexdigest()
