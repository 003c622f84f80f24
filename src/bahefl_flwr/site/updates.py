"""The round's committed updates as this site can read them (paper steps 5 and 6), each checked before anything is done with it.

What passes here was committed to on the ledger, is intact in the store, and proves that its maker encrypted it honestly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import MalformedCiphertext, ObjectCorrupt, ObjectMissing, UnusableUpdate
from bahefl_flwr.he.keys import PublicKey
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part
from bahefl_flwr.he.update_proof import verify_update
from bahefl_flwr.records import ExclusionReason, LedgerView, ObjectKind, RoundRecord
from bahefl_flwr.site.model import model_parameters
from bahefl_flwr.site.state import Outcome, Site, security_params
from bahefl_flwr.site.transcript import public_key
from bahefl_flwr.store.manifest import Manifest

Ciphertexts = NDArray[np.uint32]
_SOUND_FILE = "sound-{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """What this site found of the updates that were committed in a round.

    Attributes:
      sound: manifests of the updates that can be added, by ascending member index.
      unusable: why each other committed update cannot.
      part_blocks: ciphertexts in each part of an update.
    """

    sound: Mapping[int, Manifest]
    unusable: Mapping[int, ExclusionReason]
    part_blocks: tuple[int, ...]


def read_updates(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Updates:
    """Read and check every committed update of a round; `outcome.notes` name the objects of those that are left out."""
    params = security_params(site.settings, view.epoch)
    key, addresses, blocks = public_key(site, view), site.addresses(), part_blocks(site, params)
    sound: dict[int, Manifest] = {}
    unusable: dict[int, ExclusionReason] = {}
    for update in sorted(site.ledger.updates(r.number), key=lambda u: u.member):
        owner = addresses[update.member]
        try:
            with _held_against(update.member, f"site {update.member} ({owner}), round {r.number}"):
                manifest = site.store.expect(
                    update.digest, run=view.task.run_digest, round=r.number, site=owner, epoch=r.epoch, kind=ObjectKind.UPDATE
                )
                if (len(manifest.parts), manifest.size_bytes) != (len(blocks) + 1, update.size_bytes):
                    raise MalformedCiphertext(
                        f"an update of {len(manifest.parts)} parts, the model needs {len(blocks)} and a proof"
                    )
                _check(site, update.member, manifest, key, params, blocks)
        except UnusableUpdate as error:
            unusable[update.member] = ExclusionReason(error.reason)
            outcome.notes.append(str(error))
        else:
            sound[update.member] = manifest
    return Updates(sound=sound, unusable=unusable, part_blocks=blocks)


def ciphertexts(site: Site, member: int, manifest: Manifest, part: int, blocks: int, params: SecurityParams) -> Ciphertexts:
    """One part of an update, shape (blocks, 2, primes, N).

    Raises:
      UnusableUpdate: it is missing, altered, or not a ciphertext of `params`; names the member.
    """
    with _held_against(member, f"site {member} ({manifest.site}), round {manifest.round}, part {part}"):
        array = decode_part(site.store.part(manifest.parts[part], of=manifest), PartKind.CIPHERTEXT, params, blocks)
        if len(array) != blocks:
            raise MalformedCiphertext(f"{len(array)} ciphertexts where the model needs {blocks}")
        return array


def part_blocks(site: Site, params: SecurityParams) -> tuple[int, ...]:
    """Ciphertexts in each part of an update of this run's model: no update may be longer or shorter."""
    full, rest = divmod(params.blocks(model_parameters(site.folder)), BLOCKS_PER_PART)
    return (BLOCKS_PER_PART,) * full + ((rest,) if rest else ())


def proof_context(*, run: bytes, round: int, address: str, epoch: int, key_digest: bytes) -> bytes:
    """What the proof of an update is bound to: nobody can take another's, or an older one."""
    return f"update of {address}, round {round}, epoch {epoch}, run {run.hex()}, key {key_digest.hex()}".encode("ascii")


def _check(site: Site, member: int, manifest: Manifest, key: PublicKey, params: SecurityParams, blocks: tuple[int, ...]) -> None:
    """Parse every ciphertext and verify the proof. The proof's verdict is remembered: it costs as much as an encryption."""
    seen = site.round_folder(manifest.round) / _SOUND_FILE.format(manifest.digest.hex())
    c1 = (ciphertexts(site, member, manifest, i, count, params)[:, 1] for i, count in enumerate(blocks))
    if seen.exists():
        for _ in c1:
            pass
        return
    context = proof_context(
        run=manifest.run, round=manifest.round, address=manifest.site, epoch=manifest.epoch, key_digest=key.digest()
    )
    verify_update(c1, sum(blocks), site.store.part(manifest.parts[-1], of=manifest), key, params, context)
    atomic_write(seen, b"")


@contextmanager
def _held_against(member: int, who: str) -> Iterator[None]:
    """Whatever is wrong with an object becomes an UnusableUpdate that names its owner and the reason for the ledger."""
    try:
        yield
    except ObjectMissing as error:
        raise UnusableUpdate(str(error), member=member, reason=ExclusionReason.MISSING) from None
    except ObjectCorrupt as error:
        raise UnusableUpdate(str(error), member=member, reason=ExclusionReason.CORRUPT) from None
    except MalformedCiphertext as error:
        raise UnusableUpdate(f"{who}: {error}", member=member, reason=ExclusionReason.MALFORMED) from None
