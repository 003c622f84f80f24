"""The folder of one run: settings, one line of metrics a round, the summary; and how each process of the run finds it.

Plain files and JSON only; drawing and printing live in report.py and live.py, and no Flower here.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import AlreadyDriven, RunFailed, StoreError
from bahefl_flwr.untrusted_json import read_json

# Every setting of the run, resolved: `Settings.yaml`.
CONFIG_FILE = "config.yaml"
# Where a run keeps the address and, if it is the embedded one, the database of its ledger.
LEDGER_FILE = "ledger.json"
LEDGER_DATABASE = "ledger.sqlite"
_BY_ID = ".by-id"
_LOCK = "driver.lock"
_PUBLIC = 0o644


# One line of `metrics.jsonl`: a round that ended, as `round_log.round_line` builds it. Used here and by the views:
# round, finalised, abandoned (reason or ""), begun (false where no site had answered when the run was ended), attempt,
# coordinator {index, address}, committed and included (member indices), excluded {index: reason}, train_loss,
# validation {loss, dice, recall, score, ...} (empty where not measured), pooled_over {train, validation: Pooled},
# seconds {phase, total}, bytes {kind}, gas {total}; restarted: a driver began within the round, and knows of seconds, bytes, gas
# and training only what came after; elapsed: seconds that drivers of the run took so far.
RoundLine = Mapping[str, Any]


class Pooled(TypedDict):
    """Of how many sites figures are, and of how many they would be had all answered that were to."""

    sites: int
    of: int


class Best(TypedDict):
    """The round with the highest validation score; Dice and recall where its sites report them."""

    round: int
    score: float
    dice: NotRequired[float]
    recall: NotRequired[float]
    pooled_over: NotRequired[Pooled]


class LedgerFacts(TypedDict):
    """Where the ledger stands at the end of a run, and which keys it used.

    `model_digest` names the model after the last finalised round at every site; `key_mode` says how many key holders open an
    aggregate.
    """

    contract: str
    chain_id: int
    last_round: int
    block_number: int
    model_digest: str
    key_mode: str
    account_keys: str


class AttackFacts(TypedDict):
    """What a simulated attack was, and whom the coordinators left out of the rounds it tried to spoil: mean sites a round.

    `members` are the attackers' indices on the ledger.
    """

    name: str
    members: list[int]
    attackers_excluded: float
    honest_excluded: float


class Chosen(TypedDict):
    """The run's model: after the best round, or after the last one where no round had a score. It was tested, and is exported."""

    round: int
    model_digest: str


class RunSummary(TypedDict):
    """`summary.json`, of the whole run, however many drivers it took.

    With one finalised round at least it is completed, early or not. `rounds` counts the finalised rounds, `abandoned` those that
    gave no model; `asked` is how many had to be finalised (not there if an error ended the run). `reason` says why the run ended
    early, "" if it did not; `test` is the chosen model's on the test parts of `tested` sites. `seconds` are all drivers'; of one
    that was killed, up to the last line that it wrote.
    """

    experiment: str
    outcome: Literal["completed", "failed"]
    reason: str
    rounds: int
    abandoned: int
    best: Best | None
    test: Mapping[str, float]
    seconds: float
    asked: NotRequired[int]
    tested: NotRequired[Pooled]
    chosen: NotRequired[Chosen]
    ledger: NotRequired[LedgerFacts]
    attack: NotRequired[AttackFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """One run's folder. Writers: the driver only. Readers: anybody, also while the run goes on."""

    path: Path

    def append_metrics(self, line: RoundLine) -> None:
        """Add one round; on disk when this returns. Values that are not finite become null."""
        with (self.path / "metrics.jsonl").open("a+b") as file:
            file.seek(0)
            # A crash may have left half a line; the rest must not be glued to it.
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(_json(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> tuple[RoundLine, ...]:
        """All rounds so far, in order; a line torn by a crash at the very end is left out.

        Raises:
          StoreError: a line elsewhere is not JSON.
        """
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else [""]
        # What follows the last newline was never completed.
        return tuple(cast("RoundLine", _parse(text, f"{file}:{n}")) for n, text in enumerate(lines[:-1], 1))

    def write_summary(self, summary: RunSummary) -> None:
        """Write `summary.json`, replacing an earlier one."""
        atomic_write(self.path / "summary.json", (_json(summary, indent=2) + "\n").encode(), mode=_PUBLIC)

    def summary(self) -> RunSummary | None:
        """The summary, None while the run has not ended.

        Raises:
          StoreError: the file is not JSON.
        """
        file = self.path / "summary.json"
        return cast("RunSummary", _parse(file.read_text(encoding="utf-8"), str(file))) if file.is_file() else None


@contextmanager
def driven(run: RunFolder) -> Iterator[None]:
    """Be the only driver of a run while the block lasts.

    Raises:
      AlreadyDriven: another process does.
    """
    with (run.path / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyDriven(
                f"the run of {run.path} is being driven already: wait for it, or end its ServerApp first (Ctrl-C at `flwr run "
                "--stream` ends the stream only; `flwr stop` ends the run)"
            ) from None
        yield


def create(root: str | Path, name: str, run_id: int, config_yaml: str) -> RunFolder:
    """Create `root/<UTC time>-<name>/` with config.yaml, and the link by which `find` leads there.

    Called again for the same run (a restarted driver) it returns the folder that is there.

    Args:
      root: `run.root`; relative to the working directory, which all processes of a run must share then.
      name: `run.name`.
      run_id: Flower's `context.run_id`.
      config_yaml: resolved settings as text.

    Raises:
      RunFailed: the folder cannot be created (permission, full disk); says which.
    """
    link = _link(root, run_id)
    try:
        if link.is_dir():
            return RunFolder(path=link.resolve())
        link.parent.mkdir(parents=True, exist_ok=True)
        path = _new_folder(link.parent.parent, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}")
        atomic_write(path / CONFIG_FILE, config_yaml.encode(), mode=_PUBLIC)
        link.symlink_to(Path("..") / path.name, target_is_directory=True)
    except OSError as error:
        raise RunFailed(f"cannot create a run folder under {link.parent.parent}: {error}; choose another run.root") from error
    return RunFolder(path=path)


def unfinished(root: str | Path, contract: str) -> tuple[RunFolder, ...]:
    """Folders of runs on this contract that have not been completed, newest first."""
    folders = sorted((path for path in _link(root, 0).parent.parent.glob("*") if path.is_dir()), reverse=True)
    runs = [RunFolder(path=path) for path in folders if _contract_of(path) == contract.lower()]
    return tuple(run for run in runs if (run.summary() or {"outcome": "failed"})["outcome"] != "completed")


def _contract_of(run: Path) -> str:
    file = run / LEDGER_FILE
    return str(json.loads(file.read_text())["contract"]).lower() if file.is_file() else ""


def lead_to(run: RunFolder, root: str | Path, run_id: int) -> None:
    """Let `find` and `create` lead to a folder that is there: Flower gives a run that is continued another id.

    Repeated, it changes nothing.

    Raises:
      RunFailed: the folder's root cannot be written.
    """
    link = _link(root, run_id)
    if link.is_dir():
        return
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(run.path.resolve(), target_is_directory=True)
    except OSError as error:
        raise RunFailed(f"cannot note in {link.parent} that run {run_id} continues {run.path}: {error}") from error


def find(root: str | Path, run_id: int) -> RunFolder:
    """The folder that the driver of this run created.

    Raises:
      RunFailed: there is none; the processes disagree about `run.root` or the driver never came so far.
    """
    link = _link(root, run_id)
    if not link.is_dir():
        raise RunFailed(
            f"no folder of run {run_id} under {link.parent.parent}: the driver has not created it, or runs elsewhere; "
            "give run.root as an absolute path that driver and sites share"
        )
    return RunFolder(path=link.resolve())


def summarise(
    lines: Sequence[RoundLine], *, experiment: str, seconds: float, test: Mapping[str, float] | None = None, reason: str = "",
    failed: bool = False,
) -> RunSummary:  # fmt: skip
    """The summary of a run's lines; it failed when an error ended it, or no round was finalised."""
    finalised = [line for line in lines if line["finalised"]]
    measured = [line for line in finalised if "score" in line["validation"]]
    best = max(measured, key=lambda line: float(line["validation"]["score"]), default=None)
    return {
        "experiment": experiment,
        "outcome": "completed" if finalised and not failed else "failed",
        "reason": reason,
        "rounds": len(finalised),
        "abandoned": abandoned_rounds(lines),
        "best": _best(best) if best else None,
        "test": dict(test or {}),
        "seconds": round(seconds, 1),
    }


def abandoned_rounds(lines: Sequence[RoundLine]) -> int:
    """How many rounds gave no model. One that nobody had begun when the run was ended is none: it only says why."""
    return sum(not line["finalised"] and was_begun(line) for line in lines)


def was_begun(line: RoundLine) -> bool:
    """Whether any site had answered in a round; earlier versions did not note it, and called all rounds begun."""
    return bool(line.get("begun", True))


def attack_facts(lines: Sequence[RoundLine], name: str, members: Sequence[int], start_round: int) -> AttackFacts:
    """Whom rounds left out from the `start_round`-th on, abandoned ones too where somebody had committed.

    Args:
      lines: of a whole run. members: the attackers' indices. start_round: from 1.
    """
    # A round that comes to nothing is tried again under the same number of finalised ones.
    tried = zip(lines, accumulate((bool(line["finalised"]) for line in lines), initial=0), strict=False)
    attacked = [line for line, finalised in tried if finalised + 1 >= start_round and line["committed"]]
    excluded = [int(member) for line in attacked for member in line["excluded"]]
    caught = sum(member in members for member in excluded)
    return {
        "name": name,
        "members": list(members),
        "attackers_excluded": caught / max(1, len(attacked)),
        "honest_excluded": (len(excluded) - caught) / max(1, len(attacked)),
    }


def attack_told(attack: AttackFacts) -> str:
    """One line for people."""
    who = ", ".join(map(str, attack["members"])) or "no site"
    left_out = f"{attack['attackers_excluded']:.2f} of them and {attack['honest_excluded']:.2f} honest ones left out a round"
    return f"simulated: {attack['name']} by {who}; {left_out}"


def round_told(line: RoundLine) -> str:
    """One sentence for people on a round that ended."""
    if not line["finalised"]:
        return f"round {line['round']} was {lost_how(line)}: {line['abandoned']}"
    left_out = "".join(f"; site {member} left out: {reason}" for member, reason in line["excluded"].items())
    fewer = "".join(f"; {text}" for text in fewer_told(line))
    return f"round {line['round']} finalised: {len(line['included'])} of {len(line['committed'])} updates{left_out}{fewer}"


def lost_how(line: RoundLine) -> str:
    """In a word, what became of a round that was not finalised."""
    return "abandoned" if was_begun(line) else "not begun"


def fewer_told(line: RoundLine) -> tuple[str, ...]:
    """What figures of a round are of fewer sites than they should be, each as a phrase; and that a driver began within it."""
    pooled = {phase: of_sites(p) for phase, p in line.get("pooled_over", {}).items()}
    told = tuple(f"{phase} figures of {fewer}" for phase, fewer in pooled.items() if fewer)
    restarted = ("seconds, bytes and gas since a driver was restarted",) if line.get("restarted") else ()
    return told + restarted


def of_sites(pooled: Pooled | None) -> str:
    """`2 of 3 sites` where figures are of fewer than they should be, else nothing."""
    return f"{pooled['sites']} of {pooled['of']} sites" if pooled and pooled["sites"] < pooled["of"] else ""


def _rounds_told(summary: RunSummary) -> str:
    """How many rounds gave a model, `7 of 10` where fewer did than were asked for."""
    rounds = summary["rounds"]
    return f"{rounds} of {asked}" if (asked := summary.get("asked", rounds)) > rounds else str(rounds)


def outcome_told(summary: RunSummary) -> str:
    """One line for people on how a run ended: how many of the rounds asked for gave a model, and why the others did not."""
    lost = f", {summary['abandoned']} abandoned" if summary["abandoned"] else ""
    why = f"; {summary['reason']}" if summary["reason"] else ""
    return f"{summary['outcome']}: {_rounds_told(summary)} rounds in {summary['seconds']:.1f} s{lost}{why}"


def best_told(best: Best) -> str:
    """One line for people."""
    figures = [f"score {best['score']:.4f}"]
    if "dice" in best and "recall" in best:
        figures += [f"pooled Dice {best['dice']:.4f}", f"recall {best['recall']:.4f}"]
    if fewer := of_sites(best.get("pooled_over")):
        figures.append(f"of {fewer}")
    return ", ".join(figures)


def _best(line: RoundLine) -> Best:
    validation = line["validation"]
    best: Best = {"round": line["round"], "score": validation["score"]}
    if "dice" in validation and "recall" in validation:
        best |= {"dice": validation["dice"], "recall": validation["recall"]}
    if pooled := line.get("pooled_over", {}).get("validation"):
        best["pooled_over"] = pooled
    return best


def _link(root: str | Path, run_id: int) -> Path:
    return Path(root).expanduser().absolute() / _BY_ID / str(run_id)


def _new_folder(root: Path, name: str) -> Path:
    # Two runs may start within one second.
    attempt = 1
    while True:
        path = root / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            attempt += 1
        else:
            return path


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(_finite(value), allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    """JSON has no NaN: a diverged loss is null in the file, and the line is kept."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value


def _parse(text: str, where: str) -> object:
    try:
        return read_json(text.encode())
    except ValueError as error:
        raise StoreError(f"{where} is damaged ({error}); the run folder was edited or the disk failed") from None
