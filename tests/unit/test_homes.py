"""Homes of sites and administrators: what their files may say, and how the keys beside them are opened."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from bahefl_flwr.errors import KeysError, SettingsError
from bahefl_flwr.homes import (
    SITE_FILE,
    AdministratorHome,
    SiteHome,
    load_administrator,
    load_site,
    own_data_root,
    parsed_site,
    protection,
    with_own_data,
    write_home,
)
from bahefl_flwr.key_files import THROW_AWAY
from bahefl_flwr.settings import compose

# YAML takes the last value of a key.
GOOD = f"ledger-url: http://x\nchain-id: 7\ncontract: '0x{'ab' * 20}'\n"
LEDGER = {"ledger-url": "http://127.0.0.1:8545", "chain-id": 7, "contract": "0x" + "ab" * 20}


def test_a_home_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every entry comes back, under the names with hyphens that node-configs use, too."""
    home = parsed_site({**LEDGER, "store-url": "https://store:8790", "data-root": "/data", "min-sites": 5, "unscreened": True})
    path = write_home(tmp_path, home)
    assert load_site(tmp_path) == home
    assert "store-url: https://store:8790" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("node", "in_home", "root"),
    [
        ({}, "", ""),
        ({}, "/of/the/home", "/of/the/home"),
        ({"data.root": "/of/the/node"}, "/of/the/home", "/of/the/node"),
        ({"data.root": "/of/the/node"}, None, "/of/the/node"),
        ({"partition-id": 1}, None, ""),
    ],
)
def test_a_sites_own_slices_come_from_its_node_or_its_home(node: dict[str, object], in_home: str | None, root: str) -> None:
    """The SuperNode's own config first; whatever the run says of data, it does not count then."""
    home = None if in_home is None else parsed_site({**LEDGER, "data-root": in_home})
    assert own_data_root(node, home) == root
    run = compose(["data=phantom", "data.cache=/of/the/run"])
    data = with_own_data(run, root).data
    assert (data.kind, data.root) == (("folder", root) if root else ("phantom", ""))
    assert data.cache == "/of/the/run" and with_own_data(run, root, cache="/mine").data.cache == "/mine"


def test_a_folder_without_the_administrators_file_is_none(tmp_path: Path) -> None:
    """A simulation's administrator has keys only."""
    assert load_administrator(tmp_path) is None
    write_home(tmp_path, AdministratorHome.model_validate(LEDGER))
    assert load_administrator(tmp_path) == AdministratorHome.model_validate(LEDGER)


def test_a_missing_home_says_what_makes_it(tmp_path: Path) -> None:
    """The command is named."""
    with pytest.raises(SettingsError, match=r"site\.yaml is not there; `bahefl site init` makes it"):
        load_site(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ledger-url: [", "cannot read"),
        ("just text", "all of it"),
        ("", "all of it"),
        (f"{GOOD}ledger-url: ftp://x", "ledger-url"),
        (f"{GOOD}chain-id: 0", "chain-id"),
        (f"{GOOD}contract: '0x12'", "contract"),
        (f"{GOOD}contract: ''", "contract"),
        (f"{GOOD}store: here", "store: Extra inputs"),
        (f"{GOOD}min-sites: 1", "min-sites"),
        (f"{GOOD}max-share: 1.5", "max-share"),
        (f"{GOOD}priority-fee-gwei: 1", "priority-fee-gwei 1 exceeds max-fee-gwei 0"),
        (f"{GOOD}passphrase-file: here", "passphrase-file 'here' is not absolute"),
        (f"{GOOD}data-root: here", "data-root 'here' is not absolute"),
        ("!!python/object/apply:os.system ['true']", "cannot read"),
    ],
)
def test_a_wrong_home_names_the_file_and_the_key(tmp_path: Path, content: str, said: str) -> None:
    """And nothing in it is executed."""
    (tmp_path / SITE_FILE).write_text(content)
    with pytest.raises(SettingsError, match=said) as caught:
        load_site(tmp_path)
    assert str(tmp_path / SITE_FILE) in str(caught.value)


def test_a_site_takes_part_in_nothing_weak_unless_it_says_so() -> None:
    """Single keys, unscreened sums and sums of two are what an owner has to allow."""
    home = SiteHome.model_validate(LEDGER)
    assert (home.single_key, home.unscreened, home.min_sites, home.max_fee_gwei) == (False, False, 3, 0)


def test_no_passphrase_file_is_no_passphrase() -> None:
    """Trials only; nothing is asked for."""
    assert protection("") is THROW_AWAY


def test_a_passphrase_file_may_end_in_a_line_break(tmp_path: Path) -> None:
    """Editors and `echo` write one; it is no part of the passphrase. What is read prints redacted and is not pickled."""
    file = tmp_path / "passphrase"
    file.write_bytes(b"five random words are good\r\n")
    file.chmod(0o600)
    found = protection(str(file))
    assert "random" not in repr(found)
    with pytest.raises(TypeError):
        pickle.dumps(found)


def test_a_passphrase_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    file = tmp_path / "passphrase"
    file.write_text("five random words are good")
    file.chmod(0o644)
    with pytest.raises(KeysError, match=f"chmod 600 {file}"):
        protection(str(file))


def test_a_credential_of_systemd_may_belong_to_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is closed to everybody but the service."""
    file = tmp_path / "passphrase"
    file.write_text("five random words are good")
    file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert protection(str(file)) is not THROW_AWAY


@pytest.mark.parametrize(
    "content", [b"too short\n", b"two lines of a passphrase\nare one too many\n", b"\xff\xfe not text at all"]
)
def test_what_is_no_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    """Too short, several lines, or no text; the passphrase is not in the message."""
    file = tmp_path / "passphrase"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeysError) as caught:
        protection(str(file))
    assert "two lines" not in str(caught.value)


def test_a_missing_passphrase_file_is_named() -> None:
    """So that the operator finds the setting."""
    with pytest.raises(KeysError, match="/nowhere/passphrase"):
        protection("/nowhere/passphrase")
