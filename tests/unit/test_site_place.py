"""A site in a home of its own: what it asks of a run, and where it keeps what belongs to a task."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from bahefl_flwr.administration import make_site
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.homes import SITE_FILE, SiteHome, parsed_site
from bahefl_flwr.records import Task
from bahefl_flwr.settings import Settings, compose
from bahefl_flwr.site.place import Place, expect_conditions, place_of

CONTRACT = "0x" + "ab" * 20
SERVED = ("store=http", "store.url=http://127.0.0.1:8790", "federation.admission=registrar")
HOME = parsed_site(
    {"ledger-url": "http://127.0.0.1:8545", "chain-id": 7, "contract": CONTRACT, "store-url": "http://10.0.0.1:8790"}
)


def at(folder: Path, settings: Settings) -> Place:
    """The place of a node whose config names a home."""
    context = Context(1, 1, {"site-home": str(folder)}, RecordDict(), dict(settings.flat()))
    return place_of(context, settings)


def task(number: int, *, open_: bool) -> Task:
    """The ledger's present task."""
    return Task(
        number=number, run_digest=bytes([number]) * 32, initial_model=bytes(32), security_params=bytes(32), rounds=3,
        screened=True, open=open_, end_reason="", excluded=0, absent=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("he.threshold=1",), r"he\.threshold=1 in a committee of 5 lets one or two"),
        (("he.committee=2",), r"he\.threshold=0 in a committee of 2 lets one or two"),
        (("federation.admission=automatic",), r"federation\.admission=automatic lets anybody in"),
        (("screening=off",), r"screening\.kind=off adds poisoned updates"),
        (("federation.min_sites=2",), r"federation\.min_sites=2 is below min-sites: 3"),
        (("attack=zero",), r"attack\.name=zero is for simulations only"),
        (("store=local", "store.url=''"), r"store\.kind=local needs store-path"),
    ],
)
def test_a_site_takes_no_part_in_less_than_its_owner_allows(overrides: tuple[str, ...], said: str) -> None:
    """Settings come from whoever starts a run; these are not theirs to decide."""
    with pytest.raises(SettingsError, match=said):
        expect_conditions(HOME, compose([*SERVED, *overrides]))


def test_an_owner_may_allow_more() -> None:
    """Each by its own key."""
    home = SiteHome.model_validate({**HOME.model_dump(), "single_key": True, "unscreened": True, "min_sites": 2})
    expect_conditions(home, compose([*SERVED, "he.threshold=1", "screening=off", "federation.min_sites=2"]))


def test_a_site_may_agree_to_one_set_of_settings(tmp_path: Path) -> None:
    """Whatever is not each site's own business is in the digest; paths and names are not."""
    agreed = compose(SERVED)
    home = SiteHome.model_validate({**HOME.model_dump(), "settings_digest": agreed.digest().hex()})
    expect_conditions(home, compose([*SERVED, "run.name=other"]))
    with pytest.raises(SettingsError, match=f"agreed was settings-digest: {agreed.digest().hex()}"):
        expect_conditions(home, compose([*SERVED, "screening.largest_norm=9"]))


def test_what_the_owner_decides_does_not_come_from_the_run(tmp_path: Path) -> None:
    """Ledger, store address and fees are the home's, whatever the run's settings say."""
    own = {**HOME.model_dump(by_alias=True), "max-fee-gwei": 2, "confirmations": 3}
    make_site(tmp_path / "home", parsed_site(own))
    place = at(tmp_path / "home", compose([*SERVED, "ledger.max_fee_gwei=900", "store.certificate=/theirs.pem"]))
    assert (place.ledger.url, place.ledger.chain_id, place.ledger.contract) == ("http://127.0.0.1:8545", 7, CONTRACT)
    assert (place.store.url, place.store.certificate) == ("http://10.0.0.1:8790", "")
    assert (place.policy.max_fee_gwei, place.policy.confirmations) == (2, 3)
    assert len(place.binding) == 65


def test_every_task_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Between tasks a message of none belongs to the next, one of the last task to that."""
    make_site(tmp_path, HOME)
    folder = at(tmp_path, compose(SERVED)).folder
    before, during = folder(task(0, open_=False), b""), folder(task(1, open_=True), b"")
    assert before == during == tmp_path / "runs" / "abababab-0001"
    assert folder(task(1, open_=False), bytes([1]) * 32) == during
    assert folder(task(1, open_=False), b"") == tmp_path / "runs" / "abababab-0002"


def test_a_new_task_takes_the_keys_of_the_last_one_away(tmp_path: Path) -> None:
    """Models stay, key shares do not."""
    make_site(tmp_path, HOME)
    folder = at(tmp_path, compose(SERVED)).folder
    first = folder(task(1, open_=True), b"")
    (first / "epochs" / "00001").mkdir(parents=True)
    (first / "epochs" / "00001" / "share.key").write_bytes(b"a share")
    (first / "model.safetensors").write_bytes(b"a model")
    folder(task(2, open_=True), b"")
    assert [p.name for p in first.iterdir()] == ["model.safetensors"]


def test_a_home_is_made_once(tmp_path: Path) -> None:
    """A second time would exchange the keys that others know."""
    make_site(tmp_path, HOME)
    with pytest.raises(SettingsError, match=f"edit {tmp_path / SITE_FILE}"):
        make_site(tmp_path, HOME)


def test_a_node_without_a_home_says_what_to_do() -> None:
    """The option is named."""
    settings = compose(SERVED)
    with pytest.raises(SettingsError, match="this node has no site-home: start its SuperNode with"):
        place_of(Context(1, 1, {}, RecordDict(), dict(settings.flat())), settings)
