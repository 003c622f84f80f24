"""A site's keys of an epoch: drawn once, bound to their epoch, protected as the identity is, forgotten when over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bahefl_flwr.errors import KeysError
from bahefl_flwr.he.keys import KeyShare, held_subsets
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.identity import Identity
from bahefl_flwr.journal import Journal
from bahefl_flwr.key_files import THROW_AWAY, Passphrase, Protection
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, EpochRecord
from bahefl_flwr.settings import compose
from bahefl_flwr.site.keys import draw_entropy, forget_epochs_before, load_entropy, load_key_share, save_key_share
from bahefl_flwr.site.state import Site, security_params
from bahefl_flwr.store import LocalStore

PASSPHRASE = Passphrase("correct horse battery")
CONTRACT = "0x" + "22" * 20
SETTINGS = compose()


def site_in(folder: Path, protection: Protection = THROW_AWAY, contract: str = CONTRACT, chain_id: int = 20260) -> Site:
    """A site as `open_site` makes it; its ledger is known by name and never called."""
    folder.mkdir(exist_ok=True, mode=0o700)
    connection = Connection("http://127.0.0.1:9", chain_id)
    return Site(
        folder=folder,
        identity=Identity.create_or_load(folder / "identity", protection),
        ledger=FederationLedger(connection, contract),
        store=LocalStore(folder / "store"),
        journal=Journal(folder / "journal"),
        settings=SETTINGS,
    )


def epoch_record(number: int) -> EpochRecord:
    """A key epoch of five members, three of which open."""
    return EpochRecord(
        epoch=number, phase=EpochPhase.ACTIVE, threshold=3, committee=0b11111, committed=0, revealed=0, published=0, confirmed=0,
        key_digest=bytes(32), deadline=0, pool=0b11111, accused=0, renewal=False, finalized_before=0,
    )  # fmt: skip


EPOCH = epoch_record(3)


def some_share() -> KeyShare:
    """A key share of position 2."""
    params = security_params(SETTINGS, EPOCH)
    seeds = {i: SecretSeed(bytes([100 + i]) * 32) for i in held_subsets(2, 5, 3)}
    return KeyShare(position=2, epoch_id=bytes(32), params=params, seeds=seeds)


@pytest.mark.parametrize("protection", [PASSPHRASE, THROW_AWAY], ids=["encrypted", "throw-away"])
def test_keys_of_an_epoch_survive_a_restart(tmp_path: Path, protection: Protection) -> None:
    """Entropy is drawn once, and the share is the one that was saved, in a process that starts anew."""
    site = site_in(tmp_path / "site", protection)
    draw_entropy(site, EPOCH)
    drawn = load_entropy(site, EPOCH).secret_bytes()
    save_key_share(site, EPOCH, some_share())
    again = site_in(tmp_path / "site", protection)
    draw_entropy(again, EPOCH)
    assert load_entropy(again, EPOCH).secret_bytes() == drawn
    assert load_key_share(again, EPOCH).secret_bytes() == some_share().secret_bytes()


def test_a_deployment_leaves_no_secret_in_the_clear(tmp_path: Path) -> None:
    """With a passphrase, no file of the site holds the bytes of its entropy or of a seed of its share."""
    site = site_in(tmp_path / "site", PASSPHRASE)
    save_key_share(site, EPOCH, some_share())
    draw_entropy(site, EPOCH)
    needles = [load_entropy(site, EPOCH).secret_bytes(), bytes([100 + held_subsets(2, 5, 3)[0]]) * 32]
    files = [path.read_bytes() for path in site.folder.rglob("*") if path.is_file()]
    assert not any(needle in file for file in files for needle in needles)


def test_a_share_of_another_epoch_is_refused(tmp_path: Path) -> None:
    """A share file put into another epoch's folder does not open there."""
    site = site_in(tmp_path / "site")
    save_key_share(site, EPOCH, some_share())
    moved = site.epoch_folder(4) / "share.key"
    (site.epoch_folder(3) / "share.key").rename(moved)
    with pytest.raises(KeysError, match=r"epoch 3 .* wanted is the .* epoch 4 "):
        load_key_share(site, epoch_record(4))


def test_a_share_of_another_site_is_refused(tmp_path: Path) -> None:
    """A share file of another site does not open here."""
    mine, other = site_in(tmp_path / "mine"), site_in(tmp_path / "other")
    save_key_share(other, EPOCH, some_share())
    (other.epoch_folder(3) / "share.key").rename(mine.epoch_folder(3) / "share.key")
    with pytest.raises(KeysError, match=f"{other.address.lower()}, .* wanted is the key share of {mine.address}"):
        load_key_share(mine, EPOCH)


@pytest.mark.parametrize("ledger", [{"contract": "0x" + "33" * 20}, {"chain_id": 1}], ids=["contract", "chain"])
def test_a_share_of_another_ledger_is_refused(tmp_path: Path, ledger: dict[str, int]) -> None:
    """Epochs are numbered by their contract: epoch 3 of another contract or chain is another epoch."""
    save_key_share(site_in(tmp_path / "site"), EPOCH, some_share())
    with pytest.raises(KeysError, match="wanted is the key share"):
        load_key_share(site_in(tmp_path / "site", **ledger), EPOCH)  # type: ignore[arg-type]


def test_lost_entropy_is_not_drawn_again(tmp_path: Path) -> None:
    """Fresh entropy in mid-ceremony would contradict the site's own commitment, and make honest members look like cheats."""
    with pytest.raises(KeysError, match="takes no further part in the ceremony of epoch 3"):
        load_entropy(site_in(tmp_path / "site"), EPOCH)


def test_entropy_and_share_are_not_exchanged(tmp_path: Path) -> None:
    """A file opens as what it is only."""
    site = site_in(tmp_path / "site")
    save_key_share(site, EPOCH, some_share())
    (site.epoch_folder(3) / "share.key").rename(site.epoch_folder(3) / "entropy.key")
    with pytest.raises(KeysError, match="wanted is the epoch entropy"):
        load_entropy(site, EPOCH)


def test_a_share_open_to_others_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The message holds the command that mends it."""
    site = site_in(tmp_path / "site")
    save_key_share(site, EPOCH, some_share())
    (site.epoch_folder(3) / "share.key").chmod(0o644)
    with pytest.raises(KeysError, match="run: chmod 600 "):
        load_key_share(site, EPOCH)


def test_keys_of_a_simulation_are_not_used_in_a_deployment(tmp_path: Path) -> None:
    """A plain share beside an encrypted identity is refused: the identity decides how all key files are protected."""
    plain = replace(site_in(tmp_path / "site", PASSPHRASE), identity=Identity.create_or_load(tmp_path / "plain"))
    save_key_share(plain, EPOCH, some_share())
    with pytest.raises(KeysError, match="throw-away"):
        load_key_share(site_in(tmp_path / "site", PASSPHRASE), EPOCH)


def test_keys_of_past_epochs_are_forgotten(tmp_path: Path) -> None:
    """Keys of the epochs before the named one are gone, later ones stay, other files too, and repeating it does no harm."""
    site = site_in(tmp_path / "site")
    for number in (1, 2, 3, 10):
        draw_entropy(site, epoch_record(number))
    save_key_share(site, EPOCH, some_share())
    (site.folder / "epochs" / "notes").mkdir()
    assert forget_epochs_before(site, 3) == (1, 2)
    assert forget_epochs_before(site, 3) == ()
    assert sorted(path.name for path in (site.folder / "epochs").iterdir()) == ["00003", "00010", "notes"]
    assert load_key_share(site, EPOCH).secret_bytes() == some_share().secret_bytes()


def test_forgetting_is_harmless_before_the_first_epoch(tmp_path: Path) -> None:
    """A site without any epoch has nothing to forget."""
    assert forget_epochs_before(site_in(tmp_path / "site"), 5) == ()
