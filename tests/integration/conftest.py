"""Federations on the real contract for the tests of the ledger, on the embedded ledger and on anvil.

Each test gets a chain of its own, or one put back to what was prepared once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from anvil_node import AnvilNode
from ledger_sites import CONFIG, RunningChain, Sites, SixSites, running_chain

# What a test may start from, and how it comes about.
STAGES: dict[str, tuple[Callable[[Sites], None], ...]] = {
    "registered": (Sites.register,),
    "round_open": (Sites.register, Sites.start, Sites.ceremony),
    "quorum_open": (Sites.register, Sites.start, Sites.ceremony, Sites.opened_round),
    "commits_closed": (Sites.register, Sites.start, Sites.ceremony, Sites.commit),
    "screening": (Sites.register, partial(Sites.start, screened=True), Sites.ceremony, Sites.commit),
    "six_open": (Sites.register, Sites.start, Sites.ceremony),
}


def federation(stage: str) -> type[Sites]:
    """The sites of a stage."""
    return SixSites if stage.startswith("six") else Sites


class Prepared(Protocol):
    """Chains prepared once, one for each stage."""

    def at(self, stage: str, folder: Path) -> AbstractContextManager[Sites]:
        """A federation at a stage, as nobody has touched it yet."""


class PreparedFiles:
    """The embedded ledger: a copy of a database for each test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._addresses: dict[str, str] = {}
        self._made_at: dict[str, float] = {}

    @contextmanager
    def at(self, stage: str, folder: Path) -> Iterator[Sites]:
        """See `Prepared`."""
        original = self._folder / f"{stage}.sqlite"
        if stage not in self._addresses:
            with running_chain(original) as chain:
                self._addresses[stage] = _prepared(chain, stage).admin.address
            self._made_at[stage] = time.time()
        shutil.copy(original, folder / "chain.sqlite")
        with running_chain(folder / "chain.sqlite") as chain:
            # Its deadlines are those of then, however long the tests before this one took.
            chain.clock.advance(int(self._made_at[stage] - time.time()))
            yield federation(stage)(chain, self._addresses[stage])


class PreparedAnvils:
    """anvil: one node for each stage, put back after each test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._federations: dict[str, Sites] = {}

    @contextmanager
    def at(self, stage: str, folder: Path) -> Iterator[Sites]:
        """See `Prepared`."""
        if stage not in self._federations:
            node = self._stack.enter_context(AnvilNode())
            self._federations[stage] = _prepared(RunningChain(node.url, node), stage)
        sites = self._federations[stage]
        node = sites.chain.clock
        before = node.ask("evm_snapshot")
        try:
            yield sites
        finally:
            assert node.ask("evm_revert", before)


def _prepared(chain: RunningChain, stage: str) -> Sites:
    sites = federation(stage).deployed(chain, CONFIG)
    for step in STAGES[stage]:
        step(sites)
    return sites


@pytest.fixture(scope="session")
def embedded_chains(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return PreparedFiles(tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="session")
def anvil_chains() -> Iterator[Prepared]:
    with ExitStack() as stack:
        yield PreparedAnvils(stack)


@pytest.fixture(params=["embedded", "anvil"])
def chains(request: pytest.FixtureRequest) -> Prepared:
    """The prepared chains of one kind of node: every test that uses them runs on each kind."""
    prepared: Prepared = request.getfixturevalue(f"{request.param}_chains")
    return prepared


@pytest.fixture
def registered(chains: Prepared, tmp_path: Path) -> Iterator[Sites]:
    """Five registered sites, no task yet."""
    with chains.at("registered", tmp_path) as sites:
        yield sites


@pytest.fixture
def sites(chains: Prepared, tmp_path: Path) -> Iterator[Sites]:
    """Five sites, a committee of three with a key (threshold two), and round 1 open for commits."""
    with chains.at("round_open", tmp_path) as sites:
        yield sites


@pytest.fixture
def aggregating(chains: Prepared, tmp_path: Path) -> Iterator[Sites]:
    """As `sites`; all five have committed, so that commits are closed."""
    with chains.at("commits_closed", tmp_path) as sites:
        yield sites


@pytest.fixture
def screening(chains: Prepared, tmp_path: Path) -> Iterator[Sites]:
    """As `aggregating`, in a task whose updates are screened."""
    with chains.at("screening", tmp_path) as sites:
        yield sites


@pytest.fixture
def seeded(screening: Sites) -> Sites:
    """As `screening`; all have revealed their layers, so that the seed is fixed."""
    screening.reveal_layers()
    return screening


@pytest.fixture
def six(chains: Prepared, tmp_path: Path) -> Iterator[SixSites]:
    """As `sites`, with six of them: as many as two halves of three need."""
    with chains.at("six_open", tmp_path) as sites:
        assert isinstance(sites, SixSites)
        yield sites


@pytest.fixture
def opened(chains: Prepared, tmp_path: Path) -> Iterator[Sites]:
    """As `sites`; all five have attested round 1, and the first two of the three key holders released their shares."""
    with chains.at("quorum_open", tmp_path) as sites:
        yield sites
