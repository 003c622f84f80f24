"""Federations on the real contract for the tests of the ledger; each test gets its own copy of a chain prepared once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_sites import CONFIG, Sites, running_chain


@pytest.fixture(scope="session")
def prepared_chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder with two chains, `registered` and `round_open`, and the address of their contract."""
    folder = tmp_path_factory.mktemp("ledger")
    with running_chain(folder / "registered.sqlite") as chain:
        sites = Sites.deployed(chain, CONFIG)
        sites.register()
    shutil.copy(folder / "registered.sqlite", folder / "round_open.sqlite")
    with running_chain(folder / "round_open.sqlite") as chain:
        again = Sites(chain, sites.admin.address)
        again.start()
        again.ceremony()
    return folder, sites.admin.address


@pytest.fixture
def registered(prepared_chains: tuple[Path, str], tmp_path: Path) -> Iterator[Sites]:
    """Five registered sites, no task yet."""
    folder, address = prepared_chains
    shutil.copy(folder / "registered.sqlite", tmp_path / "chain.sqlite")
    with running_chain(tmp_path / "chain.sqlite") as chain:
        yield Sites(chain, address)


@pytest.fixture
def sites(prepared_chains: tuple[Path, str], tmp_path: Path) -> Iterator[Sites]:
    """Five sites, a committee of three with a key (threshold two), and round 1 open for commits."""
    folder, address = prepared_chains
    shutil.copy(folder / "round_open.sqlite", tmp_path / "chain.sqlite")
    with running_chain(tmp_path / "chain.sqlite") as chain:
        yield Sites(chain, address)
