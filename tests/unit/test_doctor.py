"""Claims about `bahefl doctor`: each trouble is a finding of its own level, says what was got and what to do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bahefl_flwr import console
from bahefl_flwr.doctor import examination, machine, prediction, protection, services
from bahefl_flwr.doctor.examination import Place, examine, reality
from bahefl_flwr.doctor.finding import Finding, Level
from bahefl_flwr.homes import parsed_site
from bahefl_flwr.identity import FILE_NAME, Identity
from bahefl_flwr.key_files import Passphrase
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.settings import compose
from bahefl_flwr.site.state import task_params
from lesion_run import slice_folder
from round_views import epoch
from run_lines import line

PASSPHRASE = "correct horse battery staple"


def test_the_installed_versions_are_those_it_was_made_for() -> None:
    """On a machine whose tests pass: ok, and the packages that matter are named."""
    assert {f.level for f in machine.versions()} == {Level.OK}
    assert all(f"{name} " in next(machine.versions()).got for name in ("flwr", "tenseal", "torch", "web3", "py-evm"))


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [("flwr<1.0", f"flwr {version('flwr')}, needed <1.0"), ("no-such-package>=2", "no-such-package is missing, needed >=2")],
)
def test_a_version_out_of_range_is_named(wanted: str, problem: str) -> None:
    """With what is there and what is needed."""
    assert machine._problem(Requirement(wanted)) == problem


def test_another_python_is_a_failure() -> None:
    """3.11 to 3.13, whatever the last number."""
    levels = [machine._python(version).level for version in ("3.10.14", "3.11.0", "3.13.9", "3.14.0")]
    assert levels == [Level.FAILURE, Level.OK, Level.OK, Level.FAILURE]


def test_telemetry_that_is_on_is_a_warning() -> None:
    """Off only where the environment says 0."""
    assert [next(machine.telemetry(e)).level for e in ({}, {"FLWR_TELEMETRY_ENABLED": "0"})] == [Level.WARNING, Level.OK]


def test_a_disk_that_is_too_small_is_a_failure(tmp_path: Path) -> None:
    """Judged where the folder will be, and nothing is made there."""
    wanted = tmp_path / "not" / "yet"
    assert machine.disk(wanted, 1, "a run").level is Level.OK
    assert machine.disk(wanted, 10**18, "a run").level is Level.FAILURE
    assert not list(tmp_path.iterdir())


def test_data_that_training_would_refuse_are_a_failure(tmp_path: Path) -> None:
    """Missing, empty, unpaired, unreadable or not named, each in its own words; with nothing wrong, what there is."""
    whole, empty, broken = (tmp_path / name for name in ("whole", "empty", "broken"))
    for folder, count in ((whole, 6), (empty, 0), (broken, 6)):
        slice_folder(folder, count=count)
    (broken / "frames" / "scan0_0.png").write_bytes(b"torn")
    (broken / "masks" / "scan0_1.png").unlink()
    told = [examined(f"data.root={folder}") for folder in (whole, empty, broken, tmp_path / "nowhere")]
    assert [f.level for f in told] == [Level.OK, *[Level.FAILURE] * 3]
    assert told[0].got == f"{whole}: 6 slices, 3 with lesion"
    assert told[1].got == f"{empty}: frames/ and masks/ hold no images"
    assert told[2].got.endswith("scan0_1.png: no masks/scan0_1.png, and 1 more")
    assert "frames is not a folder" in told[3].got
    assert (examined().level, examined().got) == (Level.FAILURE, "data.kind=folder, and no folder is named")


def examined(*overrides: str) -> Finding:
    """What the doctor finds of the data that settings name."""
    place = Place(settings=compose(["data=folder", *overrides]), folder=Path("/nowhere"), ledger=None)
    (found,) = [f for f in examine(place, None) if f.check == "data"]
    return found


def test_a_homes_own_folder_is_looked_at_and_nobody_elses(tmp_path: Path) -> None:
    """The folder in site.yaml counts, whatever a run says; phantoms, and the other sites of a deployment, have none here."""
    home = parsed_site(
        {"ledger-url": "http://h:1", "chain-id": 1, "contract": "0x" + "ab" * 20, "data-root": str(tmp_path / "gone")}
    )
    phantoms = compose(["data=phantom"])
    (found,) = [f for f in examine(Place(settings=phantoms, folder=tmp_path, ledger=None, home=home), None) if f.check == "data"]
    assert found.level is Level.FAILURE and str(tmp_path / "gone") in found.got
    deployed = ("ledger=rpc", "ledger.url=http://h:1", "federation.admission=registrar")
    elsewhere = compose(["data=folder", "data.root=/nowhere", *deployed])
    for settings in (phantoms, elsewhere):
        assert "data" not in {f.check for f in examine(Place(settings=settings, folder=tmp_path, ledger=None), None)}


def test_of_a_run_whose_settings_are_not_known_nothing_is_said(tmp_path: Path) -> None:
    """The default settings are nobody's: their key mode, conditions and cautions would be taken for the run's."""
    home = parsed_site({"ledger-url": "http://h:1", "chain-id": 1, "contract": "0x" + "ab" * 20})
    place = Place(settings=compose([]), folder=tmp_path, ledger=None, home=home, compare=False)
    found = {f.check: f for f in examine(place, None)}
    assert found["settings"].level is Level.WARNING and "nor is a round predicted" in found["settings"].got
    assert not {"key mode", "sites", "site", "round"} & set(found)


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [(0.3, Level.OK), (3.5, Level.WARNING), (8.0, Level.FAILURE), (-30.0, Level.WARNING), (-320.0, Level.FAILURE)],
)
def test_a_clock_is_judged_as_flower_does(ahead_s: float, level: Level) -> None:
    """5 s ahead of the SuperLink are refused, 300 s behind it too."""
    assert machine._judged(ahead_s, "the SuperLink").level is level


def test_a_ledger_from_the_future_means_that_this_clock_is_behind() -> None:
    """An old block says nothing: an idle chain makes none."""
    levels = [machine.clock_of_chain(newest, 1000.0).level for newest in (990, 1004, 1010, 10)]
    assert levels == [Level.OK, Level.OK, Level.FAILURE, Level.OK]


class _Ahead(BaseHTTPRequestHandler):
    """A SuperLink whose clock is a minute behind: this one is ahead of it."""

    def do_GET(self) -> None:
        self.send_response_only(404)
        self.send_header("Date", formatdate(time.time() - 60, usegmt=True))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def superlink() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Ahead) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_superlinks_date_is_read_whatever_it_answers(superlink: str) -> None:
    """Also from a page that is not there."""
    found = machine.clock_of_server(superlink, None)
    assert found.level is Level.FAILURE
    assert found.got.startswith(("59 s ahead", "60 s ahead", "61 s ahead"))


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd"])
def test_only_an_http_address_is_asked(url: str) -> None:
    """The scheme is part of the address."""
    assert "no http(s)://host:port" in machine.clock_of_server(url, None).got


def test_a_single_key_is_said_loudly() -> None:
    """A threshold is fine; the paper's own mode is told in capitals."""
    assert protection.key_mode(3, 5, "the settings").level is Level.OK
    single = protection.key_mode(1, 5, "the settings")
    assert (single.level, single.got.startswith("SINGLE KEY: each of 5")) == (Level.WARNING, True)


@pytest.mark.parametrize(("committee", "levels"), [(0b11111, [Level.OK]), (0b111, [Level.OK, Level.WARNING])])
def test_a_ledger_whose_key_holders_are_all_needed_is_warned_of(committee: int, levels: list[Level]) -> None:
    """Whatever the settings were: members that left or were excluded leave the threshold as it is."""
    found = list(protection.key_mode_on_ledger(epoch(committee=committee), 3))
    assert [f.level for f in found] == levels
    assert all("all 3 of 3 key holders must open together" in f.got for f in found[1:])


def test_settings_without_a_key_holder_to_spare_are_warned_of() -> None:
    """With the numbers, and the threshold that would let one fail."""
    tight = compose(["federation.sites=3", "federation.min_sites=2", "he.threshold=3"])
    place = Place(settings=tight, folder=Path("/nowhere"), ledger=None)
    (warned,) = [f for f in examination._settings(place) if f.level is Level.WARNING]
    assert "all 3 of 3 key holders" in warned.got
    assert warned.advice == "set he.threshold=2, and 1 may fail (docs/protocol.md)"


def test_the_security_level_is_at_least_128_bits() -> None:
    """From the primes that are in use."""
    assert protection.security_level().level is Level.OK


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A site's identity under a passphrase, which lies in a file beside it."""
    Identity.create_or_load(tmp_path / "identity", Passphrase(PASSPHRASE))
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    (tmp_path / "passphrase").chmod(0o600)
    return tmp_path / "identity"


def test_keys_that_open_are_fine(keys: Path) -> None:
    """The address is told, nothing else."""
    (found,) = protection.key_files(keys, None, str(keys.parent / "passphrase"))
    assert (found.level, found.got.endswith(Identity.load(keys, Passphrase(PASSPHRASE)).address)) == (Level.OK, True)


@pytest.mark.parametrize(
    ("path", "mode", "told"),
    [("passphrase", 0o644, "holds a passphrase and others may read it"), (f"identity/{FILE_NAME}", 0o640, "run: chmod 600"),
     ("identity", 0o755, "run: chmod 700")],
)  # fmt: skip
def test_a_file_that_others_may_read_is_a_failure(keys: Path, path: str, mode: int, told: str) -> None:
    """Keys, their folder, and what opens them."""
    (keys.parent / path).chmod(mode)
    findings = protection.key_files(keys, None, str(keys.parent / "passphrase"))
    assert any(f.level is Level.FAILURE and told in f.got + f.advice for f in findings)


def test_a_wrong_passphrase_is_a_failure_without_it_in_the_text(keys: Path) -> None:
    """Neither the right one nor the wrong one is ever printed."""
    (keys.parent / "passphrase").write_text("something else entirely\n")
    (found,) = protection.key_files(keys, None, str(keys.parent / "passphrase"))
    assert found.level is Level.FAILURE
    assert "does not open with this passphrase" in found.got
    assert not any(word in str(found) for word in ("something", "horse"))


def test_a_local_store_is_tried_without_a_trace(tmp_path: Path) -> None:
    """Put, read back, and gone."""
    settings = compose(["experiment=smoke"])
    (tmp_path / "store").mkdir()
    (found,) = services.store(settings, tmp_path, None)
    assert (found.level, "nothing stays" in found.got) == (Level.OK, True)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """The run makes it."""
    (found,) = services.store(compose(["experiment=smoke"]), tmp_path / "new", None)
    assert found.level is Level.OK
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overrides", [("experiment=smoke",), ("experiment=smoke", "he=single_key", "screening=off")])
def test_a_prediction_measures_every_step(overrides: tuple[str, ...]) -> None:
    """Real encryption of a small model: each step took time, and sizes are those of the formats."""
    settings = compose(overrides)
    p = prediction.predict(20_000, task_params(settings), settings.screening.groups if len(overrides) == 1 else 0)
    assert {"encrypt", "verify updates", "aggregate", "share", "open"} <= p.seconds.keys()
    assert min(p.seconds.values()) > 0
    assert p.object_bytes[ObjectKind.AGGREGATE] == 2 * 98_304 + 28
    assert p.stored_bytes > 3 * p.object_bytes[ObjectKind.UPDATE] > 3 * p.object_bytes[ObjectKind.AGGREGATE]


def test_rounds_of_another_size_say_that_the_model_is_another() -> None:
    """The prediction is for the lesion model unless the number is given."""
    p = prediction.predict(20_000, task_params(compose(["experiment=smoke"])), 0)
    size = p.object_bytes[ObjectKind.UPDATE]
    fitting = {**line(1), "committed": [0, 1], "bytes": {"update": 2 * size}}
    assert [next(reality(p, [told])).level for told in (fitting, {**fitting, "bytes": {"update": size}})] == [
        Level.OK, Level.WARNING,
    ]  # fmt: skip
    assert not list(reality(p, []))


def test_the_command_says_everything_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Findings and prediction; exit 0 where nothing fails."""
    words = ["doctor", "experiment=smoke", f"run.root={tmp_path}", "--parameters", "20000", "--format", "json"]
    assert console.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"versions", "key mode", "security", "ledger", "store", "disk", "round"} <= {f["check"] for f in told["findings"]}
    assert told["prediction"]["object_bytes"]["update"] > 400_000


def test_a_failure_is_exit_code_12(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens there: ledger and store are failures, each with its own line, and nothing is raised."""
    nowhere = "http://127.0.0.1:9"
    words = ["ledger=rpc", f"ledger.url={nowhere}", "store=http", f"store.url={nowhere}", "--no-measure"]
    assert console.main(["doctor", *words]) == 12
    output = capsys.readouterr().out
    assert f"FAILURE  ledger     no answer from {nowhere}" in output
    assert f"FAILURE  store      no answer from the store at {nowhere}" in output
    assert "Traceback" not in output
