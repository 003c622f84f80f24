"""Claims about `bahefl doctor` on a real ledger and a real served store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr import console
from bahefl_flwr.doctor import services
from bahefl_flwr.doctor.finding import Finding, Level
from bahefl_flwr.errors import LedgerError, StoreRefused
from bahefl_flwr.federation import LedgerAddress
from bahefl_flwr.settings import Settings, compose
from ledger_sites import CHAIN_ID, STRANGER, Sites, running_chain
from served_store import ServedStore, site_identity

# As the contract of the tests is deployed (ledger_sites.CONFIG).
WINDOWS = tuple(
    f"ledger.{name}_s=600" for name in ("commit_window", "aggregate_window", "verify_window", "open_grace", "ceremony_window")
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Composed once: Hydra takes a second."""
    return compose(["federation.sites=5", "he.committee=3", "he.epoch_rounds=0", *WINDOWS])


def where(sites: Sites) -> LedgerAddress:
    return LedgerAddress(url=sites.chain.url, chain_id=CHAIN_ID, contract=sites.admin.address)


def by_level(findings: list[Finding]) -> dict[Level, list[str]]:
    return {level: [f.check for f in findings if f.level is level] for level in Level}


def test_a_ledger_in_order_has_nothing_but_ok(sites: Sites, settings: Settings) -> None:
    """Chain, clock, blocks, gas, contract, the key mode of its epoch, and this site's standing."""
    account = sites.admin.members()[0].address
    findings = list(services.ledger(settings, where(sites), account))
    assert by_level(findings)[Level.OK] == ["ledger", "clock", "blocks", "gas", "contract", "key mode", "member"]
    assert "threshold 2 of 3" in findings[5].got
    assert "key epoch 1, active" in findings[5].got


def test_another_chain_is_refused(registered: Sites, settings: Settings) -> None:
    """Named with both ids."""
    with pytest.raises(LedgerError, match="is chain 20260, expected 1"):
        list(services.ledger(settings, replace(where(registered), chain_id=1)))


def test_a_contract_that_is_not_ours_is_refused(registered: Sites, settings: Settings) -> None:
    """An account without code is none."""
    with pytest.raises(LedgerError, match="there is no contract at"):
        list(services.ledger(settings, replace(where(registered), contract=STRANGER.address)))


def test_other_windows_and_a_lower_threshold_are_failures(sites: Sites, settings: Settings) -> None:
    """What the contract has, what is here, and that this site will not encrypt."""
    wanted = settings.model_copy(
        update={
            "ledger": settings.ledger.model_copy(update={"commit_window_s": 60}),
            "he": settings.he.model_copy(update={"threshold": 3}),
        }
    )
    findings = [f for f in services.ledger(wanted, where(sites)) if f.level is Level.FAILURE]
    assert [f.check for f in findings] == ["contract", "key mode"]
    assert "commit_window_s is 600, here 60" in findings[0].got
    assert "2 of 3 open, these settings ask for 3" in findings[1].got


def test_a_stranger_is_told_to_register(registered: Sites, settings: Settings) -> None:
    """A site that nobody whitelisted."""
    (found,) = [f for f in services.ledger(settings, where(registered), STRANGER.address) if f.check == "member"]
    assert (found.level, "is none on the ledger" in found.got) == (Level.FAILURE, True)


def test_a_served_store_keeps_one_small_object_however_often_it_is_looked_at(tmp_path: Path) -> None:
    """Put and read as a member; the second look adds nothing."""
    member = site_identity()
    with ServedStore(tmp_path, members=(member,)) as served:
        settings = compose(["store=http", f"store.url={served.url}"])
        for _ in range(2):
            (found,) = services.store(settings, tmp_path, member)
            assert (found.level, "put and read back" in found.got) == (Level.OK, True)
        files = list(served.disk.files())
    assert (len(files), sum(f.size_bytes for f in files) < 500) == (2, True)


def test_a_store_that_refuses_this_site_says_why(tmp_path: Path) -> None:
    """Its keys are no member's; without keys, only the greeting is asked for."""
    with ServedStore(tmp_path, members=(site_identity(),)) as served:
        settings = compose(["store=http", f"store.url={served.url}"])
        with pytest.raises(StoreRefused, match="not-a-member"):
            list(services.store(settings, tmp_path, site_identity()))
        (found,) = services.store(settings, tmp_path, None)
        assert (found.level, "were not tried" in found.got) == (Level.OK, True)


def test_a_sites_home_is_all_that_the_command_needs(
    registered: Sites, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys that open, ledger, contract and standing; what only the run says is asked for, not guessed."""
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "passphrase").chmod(0o600)
    home = str(tmp_path / "home")
    opened = ("--passphrase-file", str(tmp_path / "passphrase"))
    assert (
        console.main(["site", "init", home, "--rpc", registered.chain.url, "--contract", registered.admin.address, *opened]) == 0
    )
    capsys.readouterr()
    assert console.main(["doctor", "--site", home, "--no-measure", "--format", "json"]) == 12
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert "opens with the passphrase" in found["key files"]["got"]
    assert found["contract"]["level"] == "ok"
    assert "is none on the ledger" in found["member"]["got"]
    assert (found["store"]["level"], found["store"]["got"]) == ("warning", "not known before a run says it")
    assert console.main(["doctor", "--site", home, "--no-measure", "federation.min_sites=2"]) == 12
    assert "FAILURE  site       this site takes no part, by its site.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("first", [(), ("ledger=hospitals", "experiment=smoke")])
def test_a_healthy_home_needs_only_the_words_of_the_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: tuple[str, ...]
) -> None:
    """What `ledger deploy` adds to them, `doctor --site` adds, too: the agreed digest, contract and store are found in order."""
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "passphrase").chmod(0o600)
    site, administrator = tmp_path / "site", str(tmp_path / "administrator")
    opened, as_json = ("--passphrase-file", str(tmp_path / "passphrase")), ("--format", "json")
    with running_chain(tmp_path / "chain.sqlite") as chain, ServedStore(tmp_path) as served:
        words = (*first, "federation.sites=5", f"run.root='{tmp_path}'", "store=http", f"store.url={served.url}")
        deployed = said(
            capsys, "ledger", "deploy", administrator, "--rpc", chain.url, *opened, *words, "ledger.confirmations=0", *as_json
        )
        init = ("--contract", deployed["contract"], "--settings-digest", deployed["settings_digest"], "--store-url", served.url)
        made = said(capsys, "site", "init", str(site), "--rpc", chain.url, *opened, *init, "--confirmations", "0", *as_json)
        assert console.main(["members", "add", "--weight", "1", administrator, made["address"]]) == 0
        served.accounts.write_text(f"{made['address']}\n")
        capsys.readouterr()
        # As typed for the deployment, and without the store's address, which the home knows.
        for typed in (words, words[:-1]):
            found = said(capsys, "doctor", "--site", str(site), "--no-measure", *typed, "ledger.confirmations=0", *as_json)
            levels = {f["check"]: f["level"] for f in found["findings"]}
            assert [levels[check] for check in ("site", "ledger", "contract", "member", "store")] == ["ok"] * 5
        assert console.main(["doctor", "--site", str(site), *first, "store=s3", "store.url=s3://bucket"]) == 2
        assert f"store.kind=s3 needs store.url=s3://..., got '{served.url}'" in capsys.readouterr().err


def said(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    """What a command prints in JSON; it must end well."""
    capsys.readouterr()
    code, printed = console.main(list(command)), capsys.readouterr().out
    assert code == 0, printed
    answer: dict[str, Any] = json.loads(printed)
    return answer
