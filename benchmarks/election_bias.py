"""How often a coalition coordinates, under several ways to elect: the tables in docs/election.md.

    python benchmarks/election_bias.py            prints them
    python benchmarks/election_bias.py --write    puts them into the page

Random numbers come from fixed seeds, so every run gives the same tables. Draws are ideal (uniform); that the contract's hashes
behave like them is a test's business.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from document import table, write_between_markers
from numpy.typing import NDArray

SITES = 10
COALITIONS = (1, 2, 3)
TICKETS = 8  # of every site: the number a new member has
TRIALS = 400_000
RE_ENCRYPTIONS = 300  # by the last site to commit, seconds of work
SALT_ROUNDS = 100  # rounds that one salt serves
LAYERS = 4096  # of a site's onion
RESTS = (2, 16, 64)
SEATS, THRESHOLD, WAITED_BLOCKS = 7, 4, 10
_DOCUMENT = Path(__file__).parents[1] / "docs" / "election.md"
_SEED = 1

Scheme = Callable[[np.random.Generator, int, int], float]


# ---- P(the coordinator belongs to a coalition of k among SITES equal sites), the coalition playing its best


def fair(_: np.random.Generator, k: int, __: int) -> float:
    """Nobody can do anything."""
    return k / SITES


def hash_of_commits(rng: np.random.Generator, k: int, trials: int) -> float:
    """Winner = hash of all commitments. The last to commit encrypts again until it likes the hash."""
    winners = rng.integers(0, SITES, (trials, RE_ENCRYPTIONS), np.uint8)  # (trials, re-encryptions)
    return float((winners < k).any(axis=1).mean())


def randao(rng: np.random.Generator, k: int, trials: int) -> float:
    """Winner = XOR of values committed to before. The last to reveal choose which of theirs to withhold."""
    winners = rng.integers(0, SITES, (trials, 1 << k))  # (trials, sets withheld)
    return float((winners < k).any(axis=1).mean())


def randao_withholders_out(rng: np.random.Generator, k: int, trials: int) -> float:
    """As randao, but who withholds cannot win: the candidates are those that revealed."""
    won = np.zeros(trials, bool)
    for withheld in range(1 << k):
        left = k - withheld.bit_count()
        won |= rng.integers(0, SITES - k + left, trials) < left
    return float(won.mean())


def private_tickets(rng: np.random.Generator, k: int, trials: int) -> float:
    """Ours: lowest ticket wins. The coalition sees all tickets and tries every set of its own to withhold."""
    tickets = _lowest(rng, (trials, SITES))  # (trials, sites)
    others = tickets[:, k:].min(axis=1)
    best = np.zeros(trials, bool)
    for withheld in range(1 << k):
        shown = [i for i in range(k) if not withheld >> i & 1]
        if shown:
            best |= tickets[:, shown].min(axis=1) < others
    return float(best.mean())


def salt_seeing_all(rng: np.random.Generator, k: int, trials: int) -> float:
    """Tickets of SALT_ROUNDS rounds hang on one salt, an XOR the coalition moves 2^k ways; it foresees who wins each."""
    runs = _runs(trials)
    won = np.empty((runs, 1 << k))
    for choice in range(1 << k):
        won[:, choice] = (_lowest(rng, (runs, SALT_ROUNDS, SITES)).argmin(axis=2) < k).mean(axis=1)
    return float(won.max(axis=1).mean())


def salt_seeing_own(rng: np.random.Generator, k: int, trials: int) -> float:
    """The same, but it foresees its own tickets only, as here: the others' layers are secret until revealed."""
    runs = _runs(trials)
    hope = np.empty((runs, 1 << k))
    for choice in range(1 << k):
        hope[:, choice] = _hope(_lowest(rng, (runs, SALT_ROUNDS, k)).min(axis=2), SITES - k).mean(axis=1)
    return float(hope.max(axis=1).mean())


SCHEMES: dict[str, Scheme] = {
    "fair": fair,
    f"hash of the commits, {RE_ENCRYPTIONS} re-encryptions": hash_of_commits,
    "RANDAO: XOR of revealed values": randao,
    "RANDAO, who withholds cannot win": randao_withholders_out,
    "**private tickets**, salt fixed": private_tickets,
    f"one-off: choosing the salt of {SALT_ROUNDS} rounds, foreseeing all tickets": salt_seeing_all,
    f"**one-off: choosing the salt of {SALT_ROUNDS} rounds, foreseeing one's own**": salt_seeing_own,
}


# ---- one site that anchors a fresh onion whenever it does not like its tickets


def re_anchoring(rng: np.random.Generator, rest: int, trials: int) -> float:
    """Share of rounds that one site of SITES wins if it re-anchors at the best moments and then sits out `rest` rounds.

    It knows its tickets of all rounds of an onion. With the best stopping, its share g is where an onion is worth no more than
    the rounds it costs: E[max over t of (won in t rounds - g t)] = g rest.
    """
    paths = max(50, trials // 400)
    won = _hope(_lowest(rng, (paths, LAYERS)), SITES - 1).cumsum(axis=1)  # (paths, layers)
    played = np.arange(1, LAYERS + 1)
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        share = (low + high) / 2
        gain = np.maximum((won - share * played).max(axis=1), 0).mean()
        low, high = (share, high) if gain > share * rest else (low, share)
    return low


# ---- a committee drawn from more sites than it has seats


def quorum_chance(sites: int, k: int, draws: int) -> float:
    """P(a coalition of k gets THRESHOLD of SEATS seats) if it may take the best of some draws, all equal in score."""
    total = math.comb(sites, SEATS)
    fits = sum(math.comb(k, held) * math.comb(sites - k, SEATS - held) for held in range(THRESHOLD, min(k, SEATS) + 1))
    return float(1 - (1 - fits / total) ** draws)


# ---- tables


def text(trials: int) -> str:
    """The three tables."""
    bias = table(["P(coordinator in the coalition)", *(f"{k} of {SITES}" for k in COALITIONS)], bias_rows(trials))
    anchoring = table(
        ["rounds without tickets after anchoring anew", *map(str, RESTS)],
        [["share of a site that always picks the best moment, fair 0.100", *re_anchoring_cells(trials)]],
    )
    return "\n\n".join((bias, anchoring, table(_COMMITTEE_HEAD, committee_rows())))


def bias_rows(trials: int) -> Iterator[list[str]]:
    """One row per scheme."""
    for name, scheme in SCHEMES.items():
        yield [name, *(f"{scheme(np.random.default_rng([_SEED, k]), k, trials):.3f}" for k in COALITIONS)]


def re_anchoring_cells(trials: int) -> Iterator[str]:
    """One figure per rest."""
    for rest in RESTS:
        yield f"{re_anchoring(np.random.default_rng([_SEED, rest]), rest, trials):.3f}"


_COMMITTEE_HEAD = (
    f"P(coalition gets {THRESHOLD} of {SEATS} seats)", "one draw", f"best of {WAITED_BLOCKS} draws",
)  # fmt: skip


def committee_rows() -> Iterator[list[str]]:
    """One row per size of federation and coalition."""
    for sites, k in ((10, 4), (20, 4), (20, 6)):
        yield [f"{k} of {sites} sites", *(f"{quorum_chance(sites, k, draws):.3f}" for draws in (1, WAITED_BLOCKS))]


def _lowest(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Lowest of TICKETS uniform draws each."""
    return 1 - rng.random(shape) ** (1 / TICKETS)  # shape


def _hope(ticket: NDArray[np.float64], others: int) -> NDArray[np.float64]:
    """P(a ticket is the lowest) while the other sites' are unknown."""
    return (1 - ticket) ** (TICKETS * others)  # shape of ticket


def _runs(trials: int) -> int:
    return max(20, trials // SALT_ROUNDS)


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.write:
        write_between_markers(_DOCUMENT, "bias", text(options.trials))
    else:
        print(text(options.trials))


if __name__ == "__main__":
    main()
