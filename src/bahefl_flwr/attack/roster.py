"""Which sites of a simulation attack, by partition id and as members of the ledger; and that it is a simulation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.homes import DATA_ROOT, SITE_HOME
from bahefl_flwr.identity import FILE_NAME
from bahefl_flwr.key_files import stated_site
from bahefl_flwr.records import Member
from bahefl_flwr.settings import Settings

# Keeps this draw apart from others of the same seed.
_DOMAIN = 0xA77AC
_DEPLOYED = (DATA_ROOT, "ledger-url", SITE_HOME)


def attackers(settings: Settings) -> tuple[int, ...]:
    """Partition ids of the sites that attack, ascending: equal settings give equal sites in every process."""
    attack, sites = settings.attack, settings.federation.sites
    if attack.name == "none":
        return ()
    most = sites if attack.fraction == 1 else sites - 1
    order = np.random.default_rng([settings.run.seed, _DOMAIN]).permutation(sites)
    return tuple(sorted(int(site) for site in order[: min(most, _nearest(attack.fraction * sites))]))


def _nearest(count: float) -> int:
    """Rounded, halves down: half of the sites is never a majority."""
    # A product such as 0.3 * 5 may be off by a last bit.
    return math.ceil(count - 0.5 - 1e-9)


def announced(settings: Settings) -> str:
    """How many sites will attack, to be told before a run starts; "" where no attack was asked for."""
    if settings.attack.name == "none":
        return ""
    return f"attackers: {len(attackers(settings))} of {settings.federation.sites}"


def warnings(settings: Settings, overrides: Iterable[str] = ()) -> tuple[str, ...]:
    """Why an attack that was asked for cannot happen.

    Args:
      overrides: as given on the command line.
    """
    attack, sites, rounds = settings.attack, settings.federation.sites, settings.federation.rounds
    if attack.name == "none":
        given = list(overrides)
        idle = [o for o in given if o.startswith(("attack.fraction=", "attack.start_round="))]
        if not idle or any(o.startswith(("attack=", "attack.name=")) for o in given):
            return ()
        return (f"{' '.join(idle)} does nothing without an attack: add attack=<name>, or leave it out",)
    told = []
    if attack.fraction and not attackers(settings):
        told.append(f"attack={attack.name}, but attack.fraction={attack.fraction:g} of {sites} sites is no site: nobody attacks")
    if attack.start_round > rounds:
        told.append(f"attack={attack.name}, but attack.start_round={attack.start_round} is after the last of {rounds} rounds")
    return tuple(told)


def attacking_members(settings: Settings, run: Path, members: Iterable[Member]) -> tuple[int, ...]:
    """Member indices of the attackers, ascending, from the addresses in the sites' own folders of a simulation.

    The ledger numbers its members in the order of their registration, which is another in every run.

    Args:
      run: the run's folder. members: of its ledger.
    """
    indices = {member.address.lower(): member.index for member in members}
    files = (run / "sites" / f"{site:03d}" / "identity" / FILE_NAME for site in attackers(settings))
    # A site that never answered has no identity, and one that never registered no index.
    found = (indices.get(stated_site(file).lower()) for file in files if file.is_file())
    return tuple(sorted(index for index in found if index is not None))


def refuse_deployed(settings: Settings, node_config: Mapping[str, object]) -> None:
    """Let nothing but a node of a simulation attack.

    Checks:
      1. the node has a partition of a simulation's data.
      2. it names no data folder, ledger node or home of its own.
      3. there are as many nodes as `federation.sites`, from which the attackers are drawn.

    Raises:
      SettingsError: one of them does not hold.
    """
    told = f"attack.name={settings.attack.name} is for simulations only"
    if "partition-id" not in node_config or "num-partitions" not in node_config:
        raise SettingsError(f"{told}, and this node has no partition-id: add attack=none")
    own = [key for key in _DEPLOYED if node_config.get(key)]
    if own:
        raise SettingsError(f"{told}, and this node has {' and '.join(own)} of its own: add attack=none")
    nodes, sites = node_config["num-partitions"], settings.federation.sites
    if nodes != sites:
        raise SettingsError(f"{nodes} nodes, but federation.sites={sites}: an attack needs them equal, to know who attacks")
