"""The groups of settings, one class for each: what a value means, and what is allowed. `settings.py` puts them together."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

AttackName = Literal[
    "none", "mask_inversion", "mask_inversion_norm", "mask_inversion_x10", "mask_inversion_aligned", "empty_masks",
    "empty_masks_norm", "backdoor", "backdoor_norm", "backdoor_x5", "copies", "sign_flip", "scale_minus_5", "gaussian", "alie",
    "alie_noise", "ipm", "ipm_strong", "min_max", "min_max_noise", "min_sum", "zero", "replay", "mimicry",
]  # fmt: skip


class Group(BaseModel):
    """Frozen, complete, and nothing that it does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# The contract takes no longer window.
_YEAR_S = 365 * 24 * 3600


class RunSettings(Group):
    """Where a run leaves its folder and what makes it repeatable."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")
    root: str
    seed: int = Field(ge=0, lt=2**31)


class FederationSettings(Group):
    """Who takes part and for how long.

    Attributes:
      sites: sites of a simulation; in a deployment the number to wait for.
      min_sites: a round with fewer committed updates is abandoned on chain.
      weighting: `examples` weighs a site by its capped number of training examples, `uniform` by 1.
      max_weight: cap that the registrar puts on any site's self-declared weight.
      patience: rounds without a better score before the task is ended; 0 never ends it early.
      admission: `automatic` whitelists every site that answers, as in a simulation; with `registrar`, somebody has whitelisted
        the sites (`bahefl members add`), and each proves that its node is its own.
    """

    sites: int = Field(ge=2, le=255)
    rounds: int = Field(ge=1)
    min_sites: int = Field(ge=2)
    weighting: Literal["examples", "uniform"]
    max_weight: int = Field(ge=1, lt=2**32)
    patience: int = Field(ge=0)
    hello_timeout_s: float = Field(gt=0)
    admission: Literal["automatic", "registrar"]

    @model_validator(mode="after")
    def _enough_sites(self) -> Self:
        if self.min_sites > self.sites:
            raise ValueError(
                f"federation.min_sites={self.min_sites} exceeds federation.sites={self.sites}, so no round could ever close: "
                f"set federation.min_sites to {self.sites} or less"
            )
        return self


class HeSettings(Group):
    """Threshold and value range of the encryption (ring and primes are fixed: docs/security.md).

    Attributes:
      threshold: committee members needed to open; 0 means a majority of the committee; 1 is the paper's single key.
      committee: largest key committee elected; with fewer active sites all of them serve.
      update_range: updates are clipped to [-update_range, update_range] per parameter before encryption.
      weight_bits: the coordinator may weigh an update by an integer up to 2**weight_bits; each bit costs one bit of precision.
      epoch_rounds: finalised rounds after which a new committee makes new keys; 0 keeps them until the members change, a key
        holder is suspected, or the administrator asks.
    """

    threshold: int = Field(ge=0, le=10)
    committee: int = Field(ge=2, le=10)
    update_range: float = Field(gt=0, le=1024)
    weight_bits: int = Field(ge=0, le=3)
    epoch_rounds: int = Field(ge=0, lt=2**16)


class LedgerSettings(Group):
    """The chain, and the deadlines of the contract in chain seconds (docs/ledger.md).

    Attributes:
      kind: `embedded` is started with the run; `rpc` is a chain that runs already.
      url: JSON-RPC endpoint of `rpc`, without secrets: every site is told it.
      contract: address of a deployed contract; empty deploys a new one.
      administrator: folder of the key that deploys and starts tasks; empty makes one in the run folder, for that run only.
      confirmations: blocks on top of a block before it counts (docs/adr/0006); 0 where blocks are final at once.
      max_fee_gwei: most a unit of gas may cost, 0 where gas is free. priority_fee_gwei: tip within it.
      timeout_s: longest wait for one answer of the node. patience_s: for a node that does not answer, or makes no block.
    """

    kind: Literal["embedded", "rpc"]
    url: str
    chain_id: int = Field(ge=1)
    contract: str = Field(pattern=r"^(0x[0-9a-fA-F]{40})?$")
    administrator: str
    confirmations: int = Field(ge=0, le=100)
    max_fee_gwei: float = Field(ge=0, le=1e6)
    priority_fee_gwei: float = Field(ge=0, le=1e6)
    timeout_s: float = Field(gt=0, le=600)
    patience_s: float = Field(gt=0, le=3600)
    commit_window_s: int = Field(ge=1, le=_YEAR_S)
    aggregate_window_s: int = Field(ge=1, le=_YEAR_S)
    verify_window_s: int = Field(ge=1, le=_YEAR_S)
    open_grace_s: int = Field(ge=1, le=_YEAR_S)
    ceremony_window_s: int = Field(ge=1, le=_YEAR_S)
    quorum_percent: float = Field(gt=50, le=100)
    max_attempts: int = Field(ge=1, le=10)
    cooldown_rounds: int = Field(ge=0, le=100)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "embedded" and (self.url or self.contract or self.confirmations):
            raise ValueError(
                "ledger.url, ledger.contract and ledger.confirmations are for a chain that runs already: add ledger=rpc, "
                "or leave them out; the embedded ledger is started with the run, and its blocks are final"
            )
        if self.kind == "rpc" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"ledger.kind=rpc needs ledger.url=http(s)://..., got {self.url!r}")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError(
                "ledger.url holds a user name or password, and every site and log would see it: leave it out, and let a proxy "
                "beside the node add it"
            )
        if self.kind == "rpc" and not self.administrator:
            raise ValueError(
                "ledger.kind=rpc needs ledger.administrator=<folder>: the contract obeys its key, which must outlive the run"
            )
        return self

    @model_validator(mode="after")
    def _tip_within_the_cap(self) -> Self:
        if self.priority_fee_gwei > self.max_fee_gwei:
            raise ValueError(
                f"ledger.priority_fee_gwei={self.priority_fee_gwei:g} exceeds ledger.max_fee_gwei={self.max_fee_gwei:g}, "
                "which caps base fee and tip together"
            )
        return self


class ScreeningSettings(Group):
    """Screening of encrypted updates for poisoning (docs/screening.md has every rule and figure).

    Attributes:
      kind: `sketch` opens small random sketches of all updates, `off` adds whatever is well-formed.
      groups: sums opened per update, each over ring_degree / groups coefficients; a power of two.
      zero_norm: an update below this part of the usual norm is none. (Usual: the lower median of the round's norms other than
        zero, held within a quarter of the history's norm and the history's norm.)
      duplicate, duplicate_share: two updates are copies if 1 - cosine is below the first, and below the second part of what is
        usual between the others.
      replay: an update with this cosine to a public vector is a replay, if it is nearer to it than `duplicate_share` of what is
        usual among the others.
      undoing: an update aligned with the accepted history by less than this part of what is usual (negative: against it) ...
      undoing_common: ... and whose median cosine to the others is below this part of the mean cosine among them undoes it.
      largest_norm: an update above this multiple of the usual norm is out. (Usual: the lower median of the round's norms, held
        within half and twice the history's norm.)
      clip_norm: one above this multiple is clipped to it by an integer weight. Sites with more data take more steps and so send
        longer updates: at 1 they would be halved.
      split: least difference of mean cosines, within minus between two halves, that is a conflict.
      split_margin: by how much it must exceed its own running mean, too.
      smallest_side: fewest sites whose sum may be opened by itself.
      ballot_gain: part by which a half must lower a site's own validation loss to get its vote.
      majority, sure_majority: part of the votes that decides a conflict; the second where the split is at least `sure_split`.
      clear_history: lead in history, reputation and votes that decides a conflict without a majority.
      policy: what decides a contested one: `anchor` (public data, evaluated by every site) or `hold` (no update).
      anchor_slices: generated slices of the anchor set.
    """

    kind: Literal["sketch", "off"]
    groups: int = Field(ge=16, le=1024)
    zero_norm: float = Field(ge=0, lt=1)
    duplicate: float = Field(ge=0, lt=1)
    duplicate_share: float = Field(ge=0, lt=1)
    replay: float = Field(gt=0, le=1)
    undoing: float = Field(gt=-1, lt=1)
    undoing_common: float = Field(ge=0, le=1)
    largest_norm: float = Field(gt=1)
    clip_norm: float = Field(ge=1)
    split: float = Field(gt=0, le=2)
    split_margin: float = Field(ge=0, le=2)
    smallest_side: int = Field(ge=3, le=127)
    ballot_gain: float = Field(ge=0, lt=1)
    majority: float = Field(gt=0.5, le=1)
    sure_majority: float = Field(gt=0.5, le=1)
    sure_split: float = Field(ge=0, le=2)
    clear_history: float = Field(gt=0)
    policy: Literal["anchor", "hold"]
    anchor_slices: int = Field(ge=4, le=1000)

    @model_validator(mode="after")
    def _clips_before_it_excludes(self) -> Self:
        if self.clip_norm > self.largest_norm:
            raise ValueError(
                f"screening.clip_norm={self.clip_norm:g} exceeds screening.largest_norm={self.largest_norm:g}: what is to be "
                "clipped would be left out before"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_a_power_of_two(self) -> Self:
        if self.groups & (self.groups - 1):
            raise ValueError(f"screening.groups={self.groups} is not a power of two, so it does not divide the ring's degree")
        return self


class AttackSettings(Group):
    """Sites that poison the model, in a simulation only: a deployed site refuses these settings (docs/attacks.md).

    Attributes:
      name: what they do; `none` attacks nothing. `conf/attack/` has a file for each.
      fraction: of the sites that attack, rounded to whole sites, halves down, so that half is never a majority; all of
        them at 1 only. Which ones follows from run.seed.
      start_round: first finalised round, from 1, that they try to spoil; before it they are honest.
    """

    name: AttackName
    fraction: float = Field(ge=0, le=1)
    start_round: int = Field(ge=1)


class StoreSettings(Group):
    """Where ciphertexts lie (docs/store.md).

    Attributes:
      kind: `local` is a folder, `http` what `bahefl store serve` serves, `s3` a bucket.
      path: of `local`: relative to the run folder unless absolute.
      url: "http(s)://host[:port]" of `http`, "s3://bucket[/prefix]" of `s3`; without secrets: every site is told it.
      certificate: of `http`: PEM file of the authority that vouches for the store; empty for the system's.
      endpoint: of `s3`: "http(s)://..." of a service other than Amazon's. region: as the service calls it.
      timeout_s: longest wait for one answer. patience_s: for one request with all its repetitions.
    """

    kind: Literal["local", "http", "s3"]
    path: str
    url: str
    certificate: str
    endpoint: str
    region: str
    timeout_s: float = Field(gt=0, le=600)
    patience_s: float = Field(gt=0, le=3600)

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        for name, url in (("store.url", self.url), ("store.endpoint", self.endpoint)):
            if "@" in urlsplit(url).netloc:
                raise ValueError(f"{name} holds a user name or password, and every site and log would see it: leave it out")
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "local" and (self.url or self.endpoint):
            raise ValueError("store.url and store.endpoint are for stores elsewhere: add store=http or store=s3")
        schemes = {"local": ("",), "http": ("http", "https"), "s3": ("s3",)}[self.kind]
        where = urlsplit(self.url)
        if self.kind != "local" and (where.scheme not in schemes or not where.netloc or where.query or where.fragment):
            raise ValueError(f"store.kind={self.kind} needs store.url={schemes[-1]}://..., got {self.url!r}")
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"store.endpoint needs http(s)://..., got {self.endpoint!r}")
        return self


class TrainSettings(Group):
    """Local training (docs/lesion.md; paper section 4 under `experiment=paper`).

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

    lr: float = Field(gt=0, le=1)
    weight_decay: float = Field(ge=0)
    local_epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    schedule: Literal["cosine", "restarts"]
    warmup_epochs: int = Field(ge=0)
    restart_epochs: int = Field(ge=1)
    restart_mult: int = Field(ge=1)
    clip_norm: float = Field(gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    stage_middle_at: float = Field(ge=0, le=1)
    stage_late_at: float = Field(ge=0, le=1)
    dice_early: float = Field(ge=0, le=1)
    dice_middle: float = Field(ge=0, le=1)
    dice_late: float = Field(ge=0, le=1)
    positive_fraction: float = Field(ge=0, le=1)
    augment: bool
    device: Literal["auto", "cpu", "cuda"]
    threads: int = Field(ge=0)

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        if self.stage_middle_at > self.stage_late_at:
            raise ValueError(f"train.stage_middle_at={self.stage_middle_at} is after train.stage_late_at={self.stage_late_at}")
        return self


class DataSettings(Group):
    """What the sites train on.

    Attributes:
      kind: `phantom` generates CT phantoms, `folder` reads `root`/frames and `root`/masks.
      root: folder of a simulation; in a deployment each site names its own in its node-config. Checked by `check_data_folder`.
      slices: phantom slices over all sites. difficulty: 0 (easy) .. 1 (as hard as real slices).
      cache: folder for drawn phantom slices; empty for one under the user's cache directory. Real slices are never cached.
      alpha: concentration of the Dirichlet split over the sites; smaller is less alike.
      train, validation: fractions; the rest is the test part.
    """

    kind: Literal["phantom", "folder"]
    root: str
    image_size_px: int = Field(ge=32, le=1024, multiple_of=32)
    slices: int = Field(ge=20)
    difficulty: float = Field(ge=0, le=1)
    cache: str
    alpha: float = Field(gt=0)
    split: Literal["slice", "patient"]
    train: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _leaves_a_test_part(self) -> Self:
        if self.train + self.validation >= 1:
            raise ValueError(f"data.train={self.train} and data.validation={self.validation} leave nothing for the test part")
        return self


class ModelSettings(Group):
    """Light U-Net (paper section 3.4.4). `unshuffle` 2 works at half resolution inside: 3.6x less CPU (docs/lesion.md)."""

    width: int = Field(ge=4, le=128)
    depth: int = Field(ge=2, le=5)
    unshuffle: Literal[1, 2]
