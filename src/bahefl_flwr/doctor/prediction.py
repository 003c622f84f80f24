"""What a round will cost a site here: the real encryption, proofs and openings, measured for a moment and scaled to the model.

Training, the network and the ledger are not in it: they depend on what is not on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np

from bahefl_flwr.he import ceremony
from bahefl_flwr.he.ckks import Ciphertexts, add
from bahefl_flwr.he.keys import KeyShare, PublicKey
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.params import PARAMETERS_PER_BLOCK, SecurityParams
from bahefl_flwr.he.proof_format import proof_bytes
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, encode_part
from bahefl_flwr.he.share_format import DecryptionShare, encode_share
from bahefl_flwr.he.share_proof import verify_share
from bahefl_flwr.he.sketch import sketch
from bahefl_flwr.he.sketch_plan import sketch_plan
from bahefl_flwr.he.threshold import combine, partial_decrypt
from bahefl_flwr.he.update_proof import encrypt_with_proof, verify_update
from bahefl_flwr.records import ObjectKind

_T = TypeVar("_T")
# A million parameters: two seconds or so. Longer updates are as many times as slow as they are longer.
_MOST_BLOCKS: Final = 82
# The keys of larger committees take long to make, and cost a site little more a round.
_LARGEST: Final = (7, 4)
# A proof takes 1 to 15 tries; the median of so many says what to expect.
_TRIES: Final = 3
_SEALED_BYTES, _SEALED_BYTES_PER_SITE = 86, 68
_EPOCH: Final = bytes(32)
_CONTEXT: Final = b"bahefl doctor"
_BYTES_OF_A_PARAMETER: Final = 4
# What a site keeps: its own updates until the round after next, and the models before and after them.
_KEPT_UPDATES, _KEPT_MODELS = 3, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A round, for one of `sites` sites.

    Attributes:
      parameters: of the model. object_bytes: of one stored object, by kind. seconds: CPU seconds of one site, by step.
    """

    parameters: int
    sites: int
    threshold: int
    object_bytes: Mapping[ObjectKind, int]
    seconds: Mapping[str, float]

    @property
    def stored_bytes(self) -> int:
        """What a round adds to the store."""
        size = self.object_bytes
        return self.sites * size[ObjectKind.UPDATE] + size[ObjectKind.AGGREGATE] + self.threshold * size[ObjectKind.SHARE]

    @property
    def sent_bytes(self) -> int:
        """What a site that is coordinator and key holder, too, puts in a round."""
        return sum(self.object_bytes.values())

    @property
    def received_bytes(self) -> int:
        """What a site reads in a round: every update, the aggregate, and the shares that open it."""
        return self.stored_bytes

    @property
    def kept_bytes(self) -> int:
        """What a site's own folder grows to."""
        model = _BYTES_OF_A_PARAMETER * self.parameters
        return _KEPT_UPDATES * self.object_bytes[ObjectKind.UPDATE] + _KEPT_MODELS * model

    @property
    def site_seconds(self) -> float:
        """CPU seconds of a site, in a round."""
        return sum(self.seconds.values())


def predict(parameters: int, params: SecurityParams, groups: int) -> Prediction:
    """Measure a site's part of a round.

    Args:
      parameters: of the model. params: of the run. groups: `screening.groups`, 0 where nothing is screened.
    """
    blocks = params.blocks(parameters)
    sample = min(blocks, _MOST_BLOCKS)
    seconds, share = _measured(min(parameters, sample * PARAMETERS_PER_BLOCK), params, groups)
    header = 2 * _encoded_bytes(1, params) - _encoded_bytes(2, params)
    parts = -(-blocks // BLOCKS_PER_PART)
    ciphertexts = parts * header + blocks * (_encoded_bytes(1, params) - header)
    return Prediction(
        parameters=parameters,
        sites=params.sites,
        threshold=params.threshold,
        object_bytes={
            ObjectKind.UPDATE: ciphertexts + proof_bytes(params),
            ObjectKind.AGGREGATE: ciphertexts,
            ObjectKind.SHARE: share * blocks // sample + parts * (_SEALED_BYTES + _SEALED_BYTES_PER_SITE * params.sites),
        },
        seconds={step: s * blocks / sample for step, s in seconds.items()},
    )


def _measured(parameters: int, params: SecurityParams, groups: int) -> tuple[dict[str, float], int]:
    """Seconds of a site by step, and the bytes of a decryption share."""
    committee = params
    if params.committee > _LARGEST[0]:
        committee = SecurityParams(
            update_range=params.update_range, weight_bits=params.weight_bits, committee=_LARGEST[0], threshold=_LARGEST[1],
            sites=params.sites,
        )  # fmt: skip
    shares, key = _keys(committee)
    update = np.random.default_rng(1).normal(0, params.update_range / 5, parameters).astype(np.float32)
    return _Rehearsal(update, shares, key, committee, groups).round()


class _Rehearsal:
    """One site's part of a round, in this process, with throw-away keys of everybody."""

    def __init__(
        self, update: np.ndarray, shares: tuple[KeyShare, ...], key: PublicKey, params: SecurityParams, groups: int
    ) -> None:
        self._update, self._shares, self._key, self._params, self._groups = update, shares, key, params, groups
        self._quorum = range(params.threshold)
        self._seconds: dict[str, float] = {}

    def round(self) -> tuple[dict[str, float], int]:
        """Encrypt one update, check and add as many as there are sites, open the sum."""
        params, sites = self._params, self._params.sites
        ciphertext, proof = self._step("encrypt", self._encrypted, tries=_TRIES)
        self._step("verify updates", partial(self._verified, ciphertext, proof), times=sites)
        if self._groups:
            plan = sketch_plan(bytes(32), len(ciphertext), self._groups, params)
            self._step("sketch", partial(sketch, _parts(ciphertext), plan), times=sites)
        total = self._step("aggregate", lambda: add((ciphertext for _ in range(sites)), [1] * sites, params))
        partials = {p: partial_decrypt(total[:, 1], self._shares[p], self._quorum) for p in self._quorum if p}
        partials[0] = self._step("share", lambda: partial_decrypt(total[:, 1], self._shares[0], self._quorum))
        if others := len(self._quorum) - 1:
            self._step("check shares", partial(self._checked, total, partials[1]), times=others)
        residues = {p: s.residues for p, s in partials.items()}
        self._step("open", lambda: unpack(combine(total, residues, self._quorum, params), len(self._update), 1.0, params))
        return self._seconds, len(encode_share(partials[0], params))

    def _encrypted(self) -> tuple[Ciphertexts, bytes]:
        packed = pack(self._update, 1 / self._params.sites, self._params)
        ciphertext, proof = encrypt_with_proof(packed, self._key, self._params, _CONTEXT)
        for part in _parts(ciphertext):
            encode_part(part, PartKind.CIPHERTEXT, self._params)
        return ciphertext, proof

    def _verified(self, ciphertext: Ciphertexts, proof: bytes) -> None:
        c1 = (part[:, 1] for part in _parts(ciphertext))
        verify_update(c1, len(ciphertext), proof, self._key, self._params, _CONTEXT)

    def _checked(self, total: Ciphertexts, other: DecryptionShare) -> None:
        verify_share(total[:, 1], other, 1, self._quorum, self._params, self._shares[0])

    def _step(self, name: str, work: Callable[[], _T], *, times: int = 1, tries: int = 1) -> _T:
        """Do it, and book the median of its CPU seconds as often as a site does it in a round."""
        spent = []
        for _ in range(tries):
            started = time.process_time()
            done = work()
            spent.append(time.process_time() - started)
        self._seconds[name] = times * sorted(spent)[len(spent) // 2]
        return done


def _keys(params: SecurityParams) -> tuple[tuple[KeyShare, ...], PublicKey]:
    """What a ceremony leaves behind, of all members at once: for measuring only."""
    members = range(params.committee)
    made = [ceremony.contribute(p, params, _EPOCH) for p in members]
    committed = [ceremony.commitment(c) for c in made]

    def opening(sender: int, holder: int) -> ceremony.Opening:
        """What `sender` shows `holder` of its seeds, verified by it as in a real ceremony."""
        shown = ceremony.opening_for(made[sender], holder)
        return ceremony.verify_opening(
            shown, sender=sender, holder=holder, committed=committed[sender], epoch_id=_EPOCH, params=params
        )

    shares = tuple(ceremony.derive_share(p, {other: opening(other, p) for other in members}, params, _EPOCH) for p in members)
    return shares, ceremony.collective_key({p: ceremony.public_parts(shares[p]) for p in members}, params, _EPOCH)


def _parts(ciphertext: Ciphertexts) -> list[Ciphertexts]:
    return [ciphertext[at : at + BLOCKS_PER_PART] for at in range(0, len(ciphertext), BLOCKS_PER_PART)]


def _encoded_bytes(blocks: int, params: SecurityParams) -> int:
    zeros = np.zeros((blocks, 2, len(params.data_primes), params.ring_degree), dtype=np.uint32)
    return len(encode_part(zeros, PartKind.CIPHERTEXT, params))
