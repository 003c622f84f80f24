"""What is put in place of functions of the package in a schedule: toy encryption, virtual time, dishonest sites, and kills."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from bahefl_flwr import driver, durable, replies
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.seal_format import PartKind, encode_part
from bahefl_flwr.journal import Journal
from bahefl_flwr.records import ExclusionReason
from bahefl_flwr.site import client_app, coordination, sketches, state, training, updates, verification
from bahefl_flwr.site.screening import Verdict
from bahefl_flwr.store import manifest as manifest_module
from bahefl_flwr.store.dag_cbor import Link
from bahefl_flwr.store.manifest import Manifest
from simulated import crypto
from simulated.site import Killed

if TYPE_CHECKING:
    from simulated.schedule import World

_PACK = training.pack
# A third of the time of a schedule without this: all are pure.
_ENCODE = lru_cache(maxsize=1 << 12)(Manifest.encode)
_DECODE = lru_cache(maxsize=1 << 12)(manifest_module._decode_checked)
_NAME = lru_cache(maxsize=1 << 12)(Link.__str__)
_KEY_SHARE = lru_cache(maxsize=64)(KeyShare.from_secret_bytes)


@contextmanager
def in_place_of_the_world(world: World, time: Any) -> Iterator[None]:
    """Within the block the package runs in `world`; `time` stands for the driver's module of that name."""
    stand_in = _Interference(world)
    with ExitStack() as stack:
        for owner, name, replacement in (
            (driver, "time", time),
            (replies, "time", time),
            (client_app, "open_site", world.open_site),
            (client_app, "from_run_config", lambda _: world.settings),
            (state, "_params", crypto.toy_params),
            (training, "encrypt_with_proof", stand_in.encrypt),
            (training, "pack", stand_in.pack),
            (updates, "verify_update", crypto.verify_digest),
            (coordination, "TenSealAdder", crypto.PlainAdder),
            (coordination, "keep_aggregate", stand_in.computed(coordination.keep_aggregate, lying=True)),
            (verification, "keep_aggregate", stand_in.computed(verification.keep_aggregate, lying=False)),
            (coordination, "judge", stand_in.judging(coordination.judge)),
            (verification, "partial_decrypt", stand_in.altered("share", verification.partial_decrypt, "residues")),
            (sketches, "open_sketches", stand_in.altered("sketch", sketches.open_sketches, "values")),
            (durable, "_write_temporary", stand_in.writing(durable._write_temporary)),
            (durable.os, "fsync", lambda _: None),
            (Link, "__str__", _NAME),
            (KeyShare, "from_secret_bytes", _KEY_SHARE),
            (Journal, "_append", stand_in.recording(Journal._append)),
            (Manifest, "encode", _ENCODE),
            (manifest_module, "_decode_checked", _DECODE),
        ):
            stack.enter_context(patch.object(owner, name, replacement))
        yield


class _Interference:
    """The replacements that depend on who acts."""

    def __init__(self, world: World) -> None:
        self._world = world

    def pack(self, update: Any, share: float, params: Any, seed: Any) -> Any:
        """Of one site, coefficients that no honest update has: they pass the sketch and spoil the sum."""
        packed, site = _PACK(update, share, params, seed), self._world.current
        if site and site.index == self._world.plan.garbage:
            for coefficient in (4, 5):  # beyond the end of the model, where nobody else has anything
                packed[0, coefficient] += (63 << (params.field_bits - 7)) // 8 << (2 * params.field_bits)
        return packed

    def encrypt(self, packed: Any, key: Any, params: Any, context: bytes) -> Any:
        """Seen by the promises."""
        world = self._world
        assert world.current
        world.promises.encrypting(world.current.index, world.chain.model.round.number)
        ciphertexts, proof = crypto.encrypt_with_digest(packed, key, params, context)
        world.promises.encrypted(ciphertexts, encode_part(ciphertexts, PartKind.CIPHERTEXT, params))
        return ciphertexts, proof

    def computed(self, keep: Any, *, lying: bool) -> Any:
        """Seen by the promises; a dishonest coordinator then names something else."""

        def keep_aggregate(*arguments: Any) -> Manifest:
            world, manifest = self._world, keep(*arguments)
            assert world.current
            world.promises.computed.setdefault(world.current.index, set()).add(manifest.digest)
            if lying and world.misbehaves("sum"):
                return dataclasses.replace(manifest, run=world.rng.randbytes(32))
            return manifest

        return keep_aggregate

    def judging(self, judge: Any) -> Any:
        """A dishonest coordinator leaves out a sound update."""

        def judged(*arguments: Any) -> Verdict:
            verdict: Verdict = judge(*arguments)
            if len(verdict.weights) <= 2 or not self._world.misbehaves("exclude"):
                return verdict
            out = self._world.rng.choice(list(verdict.weights))
            reasons = dict(sorted({**verdict.reasons, out: ExclusionReason.MISSING}.items()))
            weights = {m: w for m, w in verdict.weights.items() if m != out}
            return dataclasses.replace(verdict, weights=weights, reasons=reasons, split=verdict.split & ~(1 << out))

        return judged

    def altered(self, misdeed: str, make: Any, name: str) -> Any:
        """A dishonest key holder alters one number of its share."""

        def made(*arguments: Any) -> Any:
            share = make(*arguments)
            if not self._world.misbehaves(misdeed):
                return share
            values = np.array(getattr(share, name))
            values.flat[0] ^= 1
            return dataclasses.replace(share, **{name: values})

        return made

    def writing(self, write: Any) -> Any:
        """Killed before or after the new file, but before it has its name."""

        def write_temporary(folder: Path, data: bytes, mode: int) -> Path:
            self._burn("before a file is written")
            path: Path = write(folder, data, mode)
            self._burn("before a file gets its name")
            return path

        return write_temporary

    def recording(self, append: Any) -> Any:
        """Killed around a journal's record, or in the middle of it."""

        def appended(journal: Journal, text: str) -> None:
            self._burn("before a journal record")
            try:
                self._burn("within a journal record")
            except Killed:
                with journal.path.open("ab") as file:
                    file.write(f"{len(text):08x}"[: self._world.rng.randint(1, 8)].encode())
                raise
            append(journal, text)
            self._burn("after a journal record")

        return appended

    def _burn(self, where: str) -> None:
        if site := self._world.current:
            site.fuse.burn(where)
