"""What happens in a schedule, drawn from its seed: who takes part, what goes wrong how often, who cheats, and until when."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

KINDS = ("calm", "lossy", "killed", "store", "cheats", "everything", "halves")
MISDEEDS = ("sum", "exclude", "share", "sketch", "bytes")
"""Of a coordinator: a digest of nothing, leaving a sound update out; of a key holder: wrong shares, wrong openings; of a site:
other bytes than it committed to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A schedule.

    Attributes:
      sites, rounds, screened: of the run. halves: three sites of six pull the other way, so that rounds end in a vote.
      garbage: a site whose update spoils every sum; -1 for none.
      loss, duplicate, late, refusal: chances per message: request or reply lost, delivered again, up to 90 s late, answered with
        Flower's own error.
      site_kill, driver_kill: chance per delivery to be killed somewhere within; seconds between kills of the driver, 0 for none.
      hang: chance that a site is busy for minutes. forget: chance that a killed site comes back without its journal.
      damage, outage: objects of the store lost or altered; times that it does not answer.
      unsure: chance per transaction that its sender hears of an error, whether it took effect or not.
      misdeeds: what each dishonest site does. end_s: seconds after which nothing goes wrong any more but misdeeds.
    """

    seed: int
    kind: str
    sites: int = 4
    rounds: int = 2
    screened: bool = False
    halves: bool = False
    garbage: int = -1
    loss: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    refusal: float = 0.0
    site_kill: float = 0.0
    driver_kill: float = 0.0
    hang: float = 0.0
    forget: float = 0.0
    damage: int = 0
    outage: int = 0
    unsure: float = 0.0
    misdeeds: dict[int, tuple[str, ...]] = field(default_factory=dict)
    end_s: float = 150.0

    def __str__(self) -> str:
        return repr(self)


def plan(seed: int) -> Plan:
    """The schedule of a seed."""
    rng = random.Random(f"plan {seed}")
    kind = rng.choices(KINDS, (1, 4, 4, 2, 4, 4, 1))[0]
    sites = 6 if kind == "halves" else rng.choice((3, 4, 4))
    often = rng.choice((0.03, 0.1, 0.25))
    faults: dict[str, float] = {}
    if kind in ("lossy", "everything", "halves"):
        faults |= {"loss": often, "duplicate": often, "late": often / 2, "refusal": often / 3, "hang": often / 10}
    if kind in ("killed", "everything", "halves"):
        faults |= {"site_kill": often, "driver_kill": rng.choice((0, 8, 25, 60)), "unsure": often / 5, "forget": 0.03}
    if kind in ("store", "everything"):
        faults |= {"damage": rng.randint(1, 6), "outage": rng.randint(0, 2)}
    misdeeds: dict[int, tuple[str, ...]] = {}
    if kind in ("cheats", "everything"):
        misdeeds[rng.randrange(sites)] = tuple(rng.sample(MISDEEDS, rng.randint(1, 2)))
    screened = kind == "halves" or rng.random() < 0.5
    return Plan(
        seed=seed, kind=kind, sites=sites, rounds=rng.choice((1, 1, 2, 3)) if kind != "halves" else rng.choice((1, 2)),
        screened=screened, halves=kind == "halves", misdeeds=misdeeds, end_s=rng.choice((60.0, 150.0, 300.0)),
        garbage=rng.randrange(sites) if screened and kind in ("calm", "lossy", "killed", "cheats") and rng.random() < 0.2 else -1,
        **faults,  # type: ignore[arg-type]
    )  # fmt: skip
