"""The command line before anything is started: one message, the right exit code, no traceback."""

from pathlib import Path

import pytest

from bahefl_flwr import errors
from bahefl_flwr.cli import main


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["trian.lr=1"], 2, "error: trian.lr: no such setting; did you mean train.lr?"),
        (["experiment=papre"], 2, "did you mean paper?"),
        (["--num-supernodes", "4", "he.threshold=9"], 2, "he.threshold=9 of a committee of 4"),
        (["--num-supernodes", "1"], 2, "federation.sites: Input should be greater than or equal to 2 (got 1)"),
        (["data.alpha=-1"], 2, "data.alpha"),
        (["data=folder", "data.root=/nowhere"], 3, "'/nowhere' has no frames and no masks"),
        (["--app", "no_such_app"], 2, "--app no_such_app: no such module"),
        (["--app", "no_such_package.app"], 2, "--app no_such_package.app: no such module"),
        (["--app", "bahefl_flwr.app:server_app"], 2, "give the importable module"),
        (["-m", "train.lr=1e-4,oops"], 2, "train.lr: Input should be a valid number"),
        (["-m", "data=folder,phantom"], 3, "data.root"),
        (["attack=sgin_flip"], 2, "did you mean sign_flip?"),
        (["attack.name=sgin_flip"], 2, "did you mean sign_flip?"),
        (["store.path=/proc/nowhere"], 2, "store.path=/proc/nowhere cannot be written"),
        (["store=http", "store.url=http://127.0.0.1:9"], 5, "no answer from the store at http://127.0.0.1:9"),
    ],
)
def test_a_mistake_costs_one_message_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str
) -> None:
    """Refused within a second, before Ray is started."""
    assert main(argv) == code
    output = capsys.readouterr().err
    assert message in output
    assert "Traceback" not in output


def test_verbose_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever has to find the place."""
    assert main(["--verbose", "trian.lr=1"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_option_is_exit_code_2() -> None:
    """argparse's own code, the same as for a misspelt setting."""
    with pytest.raises(SystemExit) as left:
        main(["--no-such-option"])
    assert left.value.code == 2


def test_the_help_has_examples_and_all_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever scripts the command finds the codes of errors.py in its help."""
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.BaheflError)}
    assert all(f"\n  {code:<5}" in output for code in codes)
    assert "experiments: default, numpyclient, paper, poison, smoke" in output


def test_show_prints_the_settings_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The YAML shown is what the run would have."""
    assert main(["--show", "--num-supernodes", "4", "experiment=smoke"]) == 0
    output = capsys.readouterr().out
    assert "experiment: smoke\n" in output
    assert "  sites: 4\n" in output


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_show_says_how_many_attack_and_what_cannot_happen(capsys: pytest.CaptureFixture[str], sweep: list[str]) -> None:
    """As a comment in what is shown, and as a warning beside it."""
    assert main([*sweep, "--show", "experiment=smoke", "attack=sign_flip", "attack.fraction=0.1"]) == 0
    shown, warned = capsys.readouterr()
    assert shown.endswith("# attackers: 0 of 3\n")
    assert warned.startswith("warning: attack=sign_flip, but")
    assert main([*sweep, "--show", "experiment=smoke"]) == 0
    shown, warned = capsys.readouterr()
    assert "attackers:" not in shown
    assert "attack" not in warned


def test_the_start_says_how_many_attack(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started, and a fraction without an attack is warned of."""
    monkeypatch.setattr("bahefl_flwr.cli.simulate", lambda *_, **__: None)
    spare = "federation.min_sites=2"
    assert main(["experiment=smoke", spare, "attack=sign_flip", "attack.fraction=0.5"]) == 0
    assert capsys.readouterr() == ("attackers: 1 of 3\n", "")
    assert main(["experiment=smoke", spare, "attack.fraction=0.5"]) == 0
    said, warned = capsys.readouterr()
    assert (said, warned.startswith("warning: attack.fraction=0.5 does nothing")) == ("", True)


def test_a_federation_that_can_spare_no_site_is_warned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, before anything is started, also for a sweep; one spare site and nothing is said."""
    monkeypatch.setattr("bahefl_flwr.cli.simulate", lambda *_, **__: None)
    assert main(["federation.sites=4", "federation.min_sites=4"]) == 0
    assert capsys.readouterr().err.startswith("warning: federation.min_sites=4 of federation.sites=4: no site may fail")
    assert main(["federation.sites=4", "federation.min_sites=3"]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["he.threshold=3"], "warning: he.threshold=3: all 3 of 3 key holders must open together"),
        (["he.committee=2"], "warning: he.threshold=0: all 2 of 2 key holders must open together"),
        (["he.threshold=2"], ""),
        (["he=single_key"], ""),
    ],
)
def test_a_committee_that_can_spare_no_key_holder_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overrides: list[str], told: str
) -> None:
    """One silent or lying holder would stop the run; with one to spare, or one that is enough, nothing is said."""
    monkeypatch.setattr("bahefl_flwr.cli.simulate", lambda *_, **__: None)
    assert main(["federation.sites=3", "federation.min_sites=2", *overrides]) == 0
    warned = capsys.readouterr().err
    assert warned.startswith(told)
    assert bool(warned) is bool(told)


def test_a_ray_that_does_not_start_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder for its sockets that cannot be made: what was tried, what Ray said, and where to look."""
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    assert main(["experiment=smoke", f"run.root={tmp_path}"]) == 11
    output = capsys.readouterr().err
    assert "error: Ray, on which the simulation runs, did not start (" in output
    assert "Traceback" not in output
