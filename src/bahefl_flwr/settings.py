"""The one validated form of all settings: Hydra composes `conf/`, the frozen models here check it.

Every leaf is a scalar, so that the same settings travel unchanged through Flower's flat run-config.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bahefl_flwr.errors import SettingsError

Scalar = bool | int | float | str


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSettings(_Group):
    """Where a run leaves its folder and what makes it repeatable."""

    name: str = Field("default", pattern=r"^[A-Za-z0-9_.-]{1,60}$")
    root: str = "runs"
    seed: int = Field(1, ge=0, lt=2**31)


class FederationSettings(_Group):
    """Who takes part and for how long.

    Attributes:
      sites: sites of a simulation; in a deployment the number to wait for.
      min_sites: a round with fewer committed updates is abandoned on chain.
      weighting: `examples` weighs a site by its capped number of training examples, `uniform` by 1.
      max_weight: cap that the registrar puts on any site's self-declared weight.
      patience: rounds without a better score before the task is ended; 0 never ends it early.
    """

    sites: int = Field(5, ge=2, le=255)
    rounds: int = Field(12, ge=1)
    min_sites: int = Field(3, ge=2)
    weighting: Literal["examples", "uniform"] = "examples"
    max_weight: int = Field(1_000_000, ge=1, lt=2**32)
    patience: int = Field(0, ge=0)
    hello_timeout_s: float = Field(120.0, gt=0)

    @model_validator(mode="after")
    def _enough_sites(self) -> Self:
        if self.min_sites > self.sites:
            raise ValueError(
                f"federation.min_sites={self.min_sites} exceeds federation.sites={self.sites}; no round could ever close"
            )
        return self


class HeSettings(_Group):
    """Threshold and value range of the encryption (ring and primes are fixed: docs/security.md).

    Attributes:
      threshold: committee members needed to open; 0 means a majority of the committee; 1 is the paper's single key.
      committee: largest key committee elected; with fewer active sites all of them serve.
      update_range: updates are clipped to [-update_range, update_range] per parameter before encryption.
      weight_bits: the coordinator may weigh an update by an integer up to 2**weight_bits; each bit costs one bit of precision.
    """

    threshold: int = Field(0, ge=0, le=10)
    committee: int = Field(7, ge=2, le=10)
    update_range: float = Field(0.25, gt=0, le=1024)
    weight_bits: int = Field(0, ge=0, le=3)


class LedgerSettings(_Group):
    """The chain, and the deadlines of the contract in chain seconds."""

    kind: Literal["embedded", "rpc"] = "embedded"
    url: str = ""
    chain_id: int = Field(20260, ge=1)
    contract: str = ""
    commit_window_s: int = Field(600, ge=1)
    aggregate_window_s: int = Field(120, ge=1)
    verify_window_s: int = Field(120, ge=1)
    open_grace_s: int = Field(20, ge=1)
    ceremony_window_s: int = Field(120, ge=1)
    quorum_percent: float = Field(50.01, gt=50, le=100)
    max_attempts: int = Field(3, ge=1, le=10)
    cooldown_rounds: int = Field(2, ge=0, le=100)

    @model_validator(mode="after")
    def _rpc_needs_url(self) -> Self:
        if self.kind == "rpc" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"ledger.kind=rpc needs ledger.url=http(s)://..., got {self.url!r}")
        return self


class StoreSettings(_Group):
    """Where ciphertexts lie. `path` is relative to the run folder unless absolute."""

    kind: Literal["local"] = "local"
    path: str = "store"


class TrainSettings(_Group):
    """Local training (LESION.md; paper section 4 under `experiment=paper`).

    Attributes:
      schedule: `cosine` over the whole task, or `restarts` (linear warm-up, then cosine annealing with warm restarts).
      warmup_epochs: linear warm-up, counted in global epochs (round * local_epochs + epoch).
      restart_epochs: T_0 of the restarts. restart_mult: T_mult.
      clip_norm: gradient clipping, L2.
      precision: `auto` picks bf16 or fp16 where the hardware has it, and says what it picked.
      stage_middle_at, stage_late_at: fractions of the task at which the loss changes stage.
      dice_early, dice_middle, dice_late: weight of the Dice loss per stage; the rest is binary cross-entropy.
      positive_fraction: least share of lesion slices in a local epoch (balanced sampling); 0 leaves the data as they are.
      threads: torch threads per site, 0 leaves torch's choice.
    """

    lr: float = Field(2e-3, gt=0, le=1)
    weight_decay: float = Field(1e-4, ge=0)
    local_epochs: int = Field(2, ge=1)
    batch_size: int = Field(8, ge=1)
    schedule: Literal["cosine", "restarts"] = "cosine"
    warmup_epochs: int = Field(1, ge=0)
    restart_epochs: int = Field(5, ge=1)
    restart_mult: int = Field(2, ge=1)
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    stage_middle_at: float = Field(1 / 3, ge=0, le=1)
    stage_late_at: float = Field(2 / 3, ge=0, le=1)
    dice_early: float = Field(0.9, ge=0, le=1)
    dice_middle: float = Field(0.7, ge=0, le=1)
    dice_late: float = Field(0.5, ge=0, le=1)
    positive_fraction: float = Field(0.5, ge=0, le=1)
    augment: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        if self.stage_middle_at > self.stage_late_at:
            raise ValueError(
                f"train.stage_middle_at={self.stage_middle_at} is after train.stage_late_at={self.stage_late_at}"
            )
        return self


class DataSettings(_Group):
    """What the sites train on.

    Attributes:
      kind: `phantom` generates CT phantoms, `folder` reads `root`/frames and `root`/masks.
      slices: phantom slices over all sites. difficulty: 0 (easy) .. 1 (as hard as real slices).
      alpha: concentration of the Dirichlet split over the sites; smaller is less alike.
      train, validation: fractions; the rest is the test part.
    """

    kind: Literal["phantom", "folder"] = "phantom"
    root: str = ""
    image_size_px: int = Field(128, ge=32, le=1024, multiple_of=32)
    slices: int = Field(600, ge=20)
    difficulty: float = Field(0.5, ge=0, le=1)
    alpha: float = Field(0.5, gt=0)
    split: Literal["slice", "patient"] = "slice"
    train: float = Field(0.70, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _source_and_parts(self) -> Self:
        if self.train + self.validation >= 1:
            raise ValueError(f"data.train={self.train} and data.validation={self.validation} leave nothing for the test part")
        if self.kind == "folder":
            missing = [d for d in ("frames", "masks") if not (Path(self.root).expanduser() / d).is_dir()]
            if not self.root or missing:
                raise ValueError(
                    f"data.kind=folder needs data.root=<folder with frames/ and masks/>; {self.root!r} lacks {missing or 'everything'}"
                )
        return self


class ModelSettings(_Group):
    """Light U-Net (paper section 3.4.4). `unshuffle` 2 works at half resolution inside: 3.6x less CPU (LESION.md)."""

    width: int = Field(16, ge=4, le=128)
    depth: int = Field(4, ge=2, le=5)
    unshuffle: Literal[1, 2] = 2


class Settings(_Group):
    """Everything a run can be told, complete and checked."""

    experiment: str = "default"
    run: RunSettings = RunSettings()
    federation: FederationSettings = FederationSettings()
    he: HeSettings = HeSettings()
    ledger: LedgerSettings = LedgerSettings()
    store: StoreSettings = StoreSettings()
    train: TrainSettings = TrainSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        committee = min(self.he.committee, self.federation.sites)
        t = self.he.threshold
        if t > committee:
            raise ValueError(
                f"he.threshold={t} of a committee of {committee} can never open anything; use 0 (majority) to {committee}"
            )
        if t > 1 and 2 * t <= committee:
            raise ValueError(
                f"he.threshold={t} is not a majority of the committee of {committee}: "
                f"use 0 for {committee // 2 + 1}, or 1 for the paper's single key"
            )
        return self

    @property
    def committee_size(self) -> int:
        """Members of the key committee if every site takes part."""
        return min(self.he.committee, self.federation.sites)

    def flat(self) -> dict[str, Scalar]:
        """Dotted keys to scalars, as Flower's run-config carries them."""
        flat: dict[str, Scalar] = {}
        for key, value in self.model_dump().items():
            if isinstance(value, dict):
                flat.update({f"{key}.{leaf}": v for leaf, v in value.items()})
            else:
                flat[key] = value
        return flat

    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON of all settings that every site must share (not `run`, not paths)."""
        shared = self.model_dump(mode="json", exclude={"run": True, "store": True, "data": {"root"}})
        shared["ledger"].pop("url")
        shared["ledger"].pop("contract")
        return hashlib.sha256(json.dumps(shared, sort_keys=True, separators=(",", ":")).encode()).digest()


def validate(tree: Mapping[str, Any]) -> Settings:
    """Check a nested mapping of settings.

    Raises:
      SettingsError: naming every wrong key, what it got and what is allowed.
    """
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors(include_url=False)]
        raise SettingsError("settings refused:\n  " + "\n  ".join(lines)) from None


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: no such setting{_did_you_mean(where)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {error['input']!r})" if where else message


def _did_you_mean(where: str) -> str:
    import difflib

    near = difflib.get_close_matches(where, Settings().flat(), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def from_run_config(run_config: Mapping[str, Scalar]) -> Settings:
    """Settings from Flower's flat run-config (complete, dotted keys)."""
    tree: dict[str, Any] = {}
    for key, value in run_config.items():
        group, _, leaf = key.partition(".")
        if leaf:
            tree.setdefault(group, {})[leaf] = value
        else:
            tree[group] = value
    return validate(tree)
