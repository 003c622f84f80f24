"""Claims about the task that a site takes part in: it is the one its own settings name, or the site says what differs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.client import NumPyClient

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.federation import contract_config
from bahefl_flwr.records import EpochPhase, RoundPhase, Task
from bahefl_flwr.settings import compose
from bahefl_flwr.site import ceremony, training, verification
from bahefl_flwr.site.state import Request, Site, expect_task, task_params
from round_views import epoch, round_, view

SETTINGS = compose()
TASK = replace(view(round_(RoundPhase.COMMIT)).task, security_params=task_params(SETTINGS).digest())


def site_with(*overrides: str, task: Task = TASK) -> Any:
    """Site 0, with its own settings, on a ledger whose task and contract are by the default ones."""
    seen = replace(view(round_(RoundPhase.COMMIT), epoch(EpochPhase.COMMIT)), task=task)
    me = SimpleNamespace(index=0)
    ledger = SimpleNamespace(
        address="0xC", config=lambda: contract_config(SETTINGS), view=lambda: seen,
        ceremony=lambda _: [SimpleNamespace(member=i) for i in range(5)],
    )  # fmt: skip
    return SimpleNamespace(
        ledger=ledger, settings=compose(overrides), me=lambda: me, address="0x0", addresses=lambda: [f"0x{i}" for i in range(5)]
    )  # fmt: skip


def test_a_task_by_its_own_settings_is_accepted() -> None:
    """Nothing differs."""
    expect_task(site_with(), TASK)


@pytest.mark.parametrize(
    ("overrides", "changes", "said"),
    [
        (("screening=off",), {}, "its updates are screened, here screening.kind=off"),
        ((), {"screened": False}, "its updates are not screened, here screening.kind=sketch"),
        (("he.update_range=0.5",), {}, "its security parameters are"),
        (("ledger.verify_window_s=7",), {}, "verify_window_s is 120, here 7"),
    ],
)
def test_what_differs_is_named(overrides: tuple[str, ...], changes: dict[str, Any], said: str) -> None:
    """What the ledger says, what the site has, and that both have to agree."""
    with pytest.raises(SettingsError, match=r"task 1 was started on contract 0xC .*: agree on one set") as told:
        expect_task(site_with(*overrides), replace(TASK, **changes))
    assert said in str(told.value)


def test_a_key_holder_makes_no_key_for_a_task_that_is_screened_otherwise() -> None:
    """Its part in the ceremony is a promise to open what the task asks for."""
    site: Site = site_with(task=replace(TASK, screened=False))
    with pytest.raises(SettingsError, match="its updates are not screened"):
        ceremony.commit_seeds(site, Request(run=TASK.run_digest, number=1))


def test_a_site_without_a_key_sends_no_update_to_a_task_that_is_screened_otherwise() -> None:
    """It has no part in any ceremony, so it compares before it trains."""
    site: Site = site_with(task=replace(TASK, screened=False))
    with pytest.raises(SettingsError, match="its updates are not screened"):
        training.train(site, Request(run=TASK.run_digest, number=4), NumPyClient, {})


def test_a_site_opens_no_unscreened_sum_of_a_screened_task() -> None:
    """Settings come with every message: another driver than the one that started the task could turn screening off later."""
    site: Site = site_with("screening=off")
    with pytest.raises(SettingsError, match=r"its updates are screened, here screening\.kind=off"):
        verification.verify_and_open(site, Request(run=TASK.run_digest, number=4))
