"""A site's own work in a round (paper steps 2-4): open the last model, evaluate, fit, encrypt, commit; later upload.

The update leaves this module only as a ciphertext, and its bytes leave the site only after commits have closed.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.client import NumPyClient
from numpy.typing import NDArray

from bahefl_flwr.errors import (
    BaheflError,
    LedgerError,
    LedgerUnreachable,
    ProtocolError,
    SealError,
    SettingsError,
    ShareError,
    StoreError,
    StoreUnavailable,
    TrainingError,
)
from bahefl_flwr.he.keys import PublicKey
from bahefl_flwr.he.packing import pack, sketch_factor
from bahefl_flwr.he.params import FIELDS, SecurityParams
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, encode_part
from bahefl_flwr.he.update_proof import encrypt_with_proof
from bahefl_flwr.ledger.connection import Receipt
from bahefl_flwr.records import LedgerView, Member, ObjectKind, RoundPhase, RoundRecord
from bahefl_flwr.site.dispute import EVIDENCE_NAME, answer_slander
from bahefl_flwr.site.lineage import note_chosen, note_tested
from bahefl_flwr.site.model import Array, Model
from bahefl_flwr.site.numpy_client import ClientConfig, ClientFactory, evaluated, fitted, numbers
from bahefl_flwr.site.objects import keep, kept, kept_names, put_kept
from bahefl_flwr.site.opening import current_model
from bahefl_flwr.site.selection import best_round, chosen_model
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round, expect_run, expect_task, security_params
from bahefl_flwr.site.transcript import public_key
from bahefl_flwr.site.updates import proof_context

UPDATE_NAME = "update"
_WORK = "work"
# Parts of an update that are worth a note: that were cut off, or that rounding may have changed.
_CLIPPED = 0.05
_ROUNDED = 0.5

_log = logging.getLogger("bahefl_flwr.site")


@runtime_checkable
class Continues(Protocol):
    """A NumPyClient whose `fit` can go on after it was killed: it may keep what it needs in `work_folder`.

    The folder is the site's own, of this round only, and is deleted once the round's update is made.
    """

    work_folder: Path | None


def train(site: Site, request: Request, make_client: ClientFactory, config: ClientConfig) -> Outcome:
    """Make this site's one ciphertext of the round and commit its digest; asked again, commit the same one.

    Raises:
      SettingsError: the task or its contract is not what this site's settings name.
      TrainingError: the NumPyClient failed. The site has declined the round on the ledger, so nobody waits for it.
      BaheflError: it could not open the last model or encrypt; it has declined if this was the last try.
    """
    view, r = expect_round(site, request, RoundPhase.COMMIT)
    me = site.me()
    if not r.selected >> me.index & 1 or r.declined >> me.index & 1:
        raise ProtocolError(f"site {me.index} does not take part in round {r.number} (not selected, or it declined)")
    floor = site.settings.federation.min_sites
    if r.selected.bit_count() < floor:
        raise ProtocolError(
            f"round {r.number} selects {r.selected.bit_count()} sites, this site asks for {floor} and trains for no fewer"
        )
    expect_task(site, view.task)
    key = (request.run.hex(), r.number, "commit")
    journalled = site.journal.get(key)
    if journalled is None:
        if r.committed >> me.index & 1:
            raise ProtocolError(f"site {me.index} committed in round {r.number} but its journal is gone; it sits this round out")
        answer_slander(site, view)
        journalled = _make_update(site, request, view, me, make_client, config)
        site.journal.put(key, journalled)
        shutil.rmtree(site.round_folder(r.number) / _WORK, ignore_errors=True)
    return _commit(site, r, me, journalled)


def _make_update(
    site: Site, request: Request, view: LedgerView, me: Member, make_client: ClientFactory, config: ClientConfig
) -> dict[str, Any]:
    """Open, evaluate, fit and encrypt. A site that cannot says so on the ledger; of what may pass by itself, at the last try."""
    outcome, who = Outcome(), f"site {me.index}, round {view.round.number}"
    # What the round is comes from the ledger, never from the message (docs/protocol.md).
    when: ClientConfig = {"server-round": view.finalized_count + 1, "rounds": view.task.rounds}
    config = {**config, **when}
    try:
        client = make_client()
        base = current_model(site, view, client, outcome, best_round(config))
        if request.evaluate:
            evaluate_model(base, client, {**request.evaluation, **when, "part": "validation"}, outcome, who)
        # Everything from elsewhere comes before the training: nothing that fails afterwards may cost it.
        key = public_key(site, view)
        if isinstance(client, Continues):
            client.work_folder = site.round_folder(view.round.number) / _WORK
            client.work_folder.mkdir(mode=0o700, exist_ok=True)
        with outcome.timed("train"):
            update, examples, metrics = fitted(client, base, config, who)
        outcome.metrics.update(metrics | {"num-examples": examples})
        return _encrypt(site, view, me, key, base, update, examples, outcome)
    except (StoreError, StoreUnavailable, ShareError, SealError, LedgerUnreachable) as error:
        if request.last_try:
            _decline(site, view.round, error)
        raise
    except BaheflError as error:
        _decline(site, view.round, error)
        raise
    except Exception as error:
        _decline(site, view.round, error)
        raise TrainingError(f"round {view.round.number}: {type(error).__name__}: {error}") from error


def _decline(site: Site, r: RoundRecord, error: Exception) -> None:
    """Only the kind of error goes on the ledger: a message could hold a file name or a patient's."""
    try:
        site.ledger.decline(r.number, type(error).__name__)
    except LedgerError as refusal:
        _log.warning("round %d: could not decline: %s", r.number, refusal)


def _encrypt(
    site: Site, view: LedgerView, me: Member, key: PublicKey, base: Model, update: Array, examples: int, outcome: Outcome
) -> dict[str, Any]:
    """Clip, weigh by the public share of the total weight, encrypt, and keep the bytes at the site."""
    r = view.round
    params = security_params(site.settings, view.epoch)
    weight = min(examples, me.max_weight)
    share = weight / r.weight_total
    _expect_hidden(site, r, share, update.size)
    _note_weight(r, examples, me, outcome)
    with outcome.timed("encrypt"):
        _note_range(r, update, share, params, outcome)
        # A new seed each time, as for the encryption: the journal holds the one ciphertext of a round, nothing makes it again.
        packed = pack(_sketchable(site, r, update, share, params, outcome), share, params, SecretSeed.random())
        context = proof_context(
            run=view.task.run_digest, round=r.number, address=site.address, epoch=r.epoch, key_digest=key.digest()
        )
        ciphertext, proof = encrypt_with_proof(packed, key, params, context)
        manifest = keep(
            site, _parts(ciphertext, proof, params), run=view.task.run_digest, round=r.number, epoch=r.epoch,
            kind=ObjectKind.UPDATE, owner=site.address, name=UPDATE_NAME,
        )  # fmt: skip
    outcome.bytes["update"] = manifest.size_bytes
    return {
        "digest": manifest.digest.hex(), "size_bytes": manifest.size_bytes, "weight": weight, "base": base.digest().hex(),
        "metrics": outcome.metrics, "evaluation": outcome.evaluation, "seconds": outcome.seconds, "bytes": outcome.bytes,
        "notes": outcome.notes,
    }  # fmt: skip


def _note_weight(r: RoundRecord, examples: int, me: Member, outcome: Outcome) -> None:
    """Say where fewer examples were trained on than the registrar expects of the site."""
    if 2 * examples < me.max_weight:
        outcome.notes.append(
            f"round {r.number}: {examples} examples, though the registrar lets {me.max_weight} count: the update weighs "
            f"{examples / me.max_weight:.2%} of what it could"
        )


def _note_range(r: RoundRecord, update: Array, share: float, params: SecurityParams, outcome: Outcome) -> None:
    """Say where he.update_range suits the update so badly that little of it is left."""
    reach = params.update_range
    clipped = float(np.mean(np.abs(update) > reach))
    outcome.metrics["clipped-fraction"] = clipped
    if clipped > _CLIPPED:
        outcome.notes.append(
            f"round {r.number}: {clipped:.0%} of the changes lie beyond he.update_range={reach:g}, the farthest at "
            f"{np.abs(update).max():.3g}, and were cut to it; choose a larger he.update_range, or smaller training steps"
        )
    # Root mean square of rounding to the unit that `pack` rounds to: unit / sqrt(12) a parameter.
    unit = reach / (params.field_scale * share)
    rounding = unit * math.sqrt(update.size / 12)
    if 0 < float(np.linalg.norm(update)) * _ROUNDED < rounding:
        outcome.notes.append(
            f"round {r.number}: the changes, of {math.sqrt(float(np.mean(np.square(update)))):.2g} on average, are rounded to "
            f"multiples of {unit:.2g}, which loses much of them; choose an he.update_range below {reach:g}"
        )


def _expect_hidden(site: Site, r: RoundRecord, share: float, parameters: int) -> None:
    """What is opened of this round must not be this very update: neither a sum that is mostly it, nor sketches of a tiny model.

    Raises:
      SettingsError: the owner of the site's home does not allow as much.
    """
    home, screening = site.home, site.settings.screening
    if home is None:
        return
    if share > home.max_share:
        raise SettingsError(
            f"round {r.number}: this update would have {share:.0%} of all weight, max-share in site.yaml is {home.max_share:.0%}"
        )
    sums = FIELDS * screening.groups
    if screening.kind != "off" and parameters < home.sketch_parameters * sums:
        raise SettingsError(
            f"round {r.number}: {sums} numbers of a model of {parameters} parameters would be opened, nearly the update itself; "
            f"site.yaml asks for sketch-parameters: {home.sketch_parameters} in each: agree on a smaller screening.groups"
        )


def _sketchable(site: Site, r: RoundRecord, update: Array, share: float, params: SecurityParams, outcome: Outcome) -> Array:
    """The update, scaled down with a note where its sketch would not fit: the site would be left out as out of range."""
    screening = site.settings.screening
    factor = 1.0 if screening.kind == "off" else sketch_factor(update, share, screening.groups, params)
    outcome.metrics["sketch-factor"] = factor
    if factor == 1.0:
        return update
    outcome.notes.append(
        f"round {r.number}: the update is too long for the sketch of a site with {share:.0%} of all weight, and was scaled to "
        f"{factor:.0%}; a larger he.update_range leaves more room"
    )
    scaled: Array = np.clip(update, -params.update_range, params.update_range) * np.float32(factor)
    return scaled


def _parts(ciphertext: NDArray[np.uint32], proof: bytes, params: SecurityParams) -> Iterator[bytes]:
    for at in range(0, len(ciphertext), BLOCKS_PER_PART):
        yield encode_part(ciphertext[at : at + BLOCKS_PER_PART], PartKind.CIPHERTEXT, params)
    yield proof


def _commit(site: Site, r: RoundRecord, me: Member, journalled: Mapping[str, Any]) -> Outcome:
    """Paper step 3. The digest goes on the ledger before anybody can read the bytes (protocol rule 2)."""
    outcome = Outcome(**{k: journalled[k] for k in ("metrics", "evaluation", "seconds", "bytes", "notes")})
    outcome.facts.update(digest=journalled["digest"], base=journalled["base"])
    if r.committed >> me.index & 1:
        return outcome
    with outcome.timed("commit"):
        receipt: Receipt = site.ledger.commit_update(
            r.number, bytes.fromhex(journalled["digest"]), journalled["size_bytes"], journalled["weight"],
            bytes.fromhex(journalled["base"]),
        )  # fmt: skip
    outcome.gas += receipt.gas_used
    return outcome


def upload(site: Site, request: Request) -> Outcome:
    """Paper step 4: put every object of this site that may be read by now; put again what was lost or altered.

    With screening, reveal this round's onion layer, from which the ledger draws the sketches' seed: ciphertexts are fixed by now.

    Raises:
      WrongRound: the message is of another round. StoreError: the store does not take the objects.
    """
    view, r = expect_round(site, request, RoundPhase.COMMIT, RoundPhase.AGGREGATE, RoundPhase.VERIFY, RoundPhase.VERIFIED)
    # Folder 0 holds the key ceremony; an update of the open round stays at home until commits have closed (protocol rule 2).
    rounds = {0, view.last_finalized} if r.phase is RoundPhase.COMMIT else {0, view.last_finalized, r.number}
    outcome = Outcome()
    with outcome.timed("upload"):
        for number in sorted(rounds):
            for name in kept_names(site, number):
                if not _may_be_read(site, number, name):
                    continue
                outcome.bytes[name] = outcome.bytes.get(name, 0) + put_kept(site, number, name)
    if r.phase is RoundPhase.AGGREGATE and site.settings.screening.kind != "off":
        outcome.gas += _reveal_layer(site, r)
    return outcome


def _may_be_read(site: Site, number: int, name: str) -> bool:
    """Whether this site may show an object that it keeps.

    An update or a share only if the ledger names it: it is kept before its transaction, which may have failed (protocol rule 2).
    """
    if name.startswith(EVIDENCE_NAME.format("")):
        return False  # a secret key, which only a dispute may show
    manifest = kept(site, number, name)
    match manifest.kind if manifest else None:
        case ObjectKind.UPDATE:
            named = {update.digest for update in site.ledger.updates(number)}
        case ObjectKind.SHARE:
            named = {share.digest for share in site.ledger.shares(number)}
        case _:
            return True
    return manifest is not None and manifest.digest in named


def _reveal_layer(site: Site, r: RoundRecord) -> int:
    me = site.me()
    if not r.committed & ~r.revealed & 1 << me.index:
        return 0
    return site.ledger.reveal(r.number, site.identity.onion.reveal(me.onion_anchor)).gas_used


def evaluate_model(model: Model, client: NumPyClient, config: ClientConfig, outcome: Outcome, who: str) -> None:
    """Let the NumPyClient evaluate an opened model; its figures go into `outcome.evaluation`.

    A NumPyClient that fails there costs nothing but the figures, and a note says so: they are for people, no round needs them.
    """
    outcome.facts["model"] = model.digest().hex()
    try:
        with outcome.timed("evaluate"):
            loss, examples, metrics = evaluated(client, model, config, who)
    except TrainingError as error:
        outcome.notes.append(str(error))
        return
    if examples:
        outcome.evaluation.update(numbers({**metrics, "loss": loss}) | {"num-examples": examples})
        outcome.evaluation["model-round"] = model.round


def evaluate(site: Site, request: Request, client: NumPyClient, config: ClientConfig) -> Outcome:
    """After the task: open the last finalised aggregate, keep the final model, evaluate on the part that `config` names.

    Validated is the final model, tested the one after the best round.

    Raises:
      StoreError: this site has not kept the best round's model.
    """
    view = expect_run(site, request)
    outcome = Outcome()
    best = best_round(config)
    model = current_model(site, view, client, outcome, best)
    wanted = model
    if is_test := config.get("part") == "test":
        note_chosen(site, request.run, best or model.round)
        wanted = chosen_model(site, model, best)
    outcome.facts["model"] = wanted.digest().hex()
    if request.evaluate:
        evaluate_model(wanted, client, config, outcome, f"site {site.me().index}, after round {model.round}")
    if is_test:
        note_tested(site, request.run, wanted.round, outcome.evaluation)
    return outcome
