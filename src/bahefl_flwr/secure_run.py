"""One run around its rounds: its folder and ledger before them, what is shown meanwhile, the summary and report after them.

The rounds themselves are the strategy's; nothing of an application's model or data is known here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flwr.app import Context

from bahefl_flwr import logs, run_folder
from bahefl_flwr.errors import AlreadyDriven, LedgerUnreachable
from bahefl_flwr.federation import Federation, open_federation, run_goes_on
from bahefl_flwr.live import LiveView
from bahefl_flwr.metrics import VARIABLE as METRICS
from bahefl_flwr.metrics import DriverMetrics
from bahefl_flwr.records import LedgerView
from bahefl_flwr.run_folder import AttackFacts, Pooled, RoundLine, RunFolder, RunSummary
from bahefl_flwr.settings import Settings

_ACCOUNT_KEYS = {"automatic": "throw-away keys of a simulation", "registrar": "keys in the sites' own homes"}

_log = logging.getLogger("bahefl_flwr.driver")

OnRound = Callable[[RoundLine], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a task came to.

    Attributes:
      test: figures of the chosen model on the sites' test parts. tested: of how many sites they are.
      final_model, chosen_model: digests in hexadecimal, "" if no site named one. best_round: 0 where no round had a score.
    """

    test: Mapping[str, float | int]
    tested: Pooled
    final_model: str
    chosen_model: str
    best_round: int


Conduct = Callable[[Federation, OnRound, Sequence[RoundLine]], Ending]


def secure_run(context: Context, settings: Settings, conduct: Conduct) -> None:
    """Open a run's folder and ledger, let `conduct` carry its task out, and leave the folder complete, whatever happens.

    Args:
      conduct: gets the open federation, a function to call with the line of each round that has ended, and the lines of the
        rounds before, where this run goes on.

    Raises:
      AlreadyDriven: another process drives this run. Else whatever ended it early; the summary and the report are written before.
    """
    with logs.belonging(run=str(context.run_id)):
        bare = logs.configure(os.environ.get(logs.VARIABLE, ""))
        metrics = DriverMetrics(os.environ.get(METRICS, ""))
        with metrics.run():
            _drive(context, settings, conduct, metrics, quiet=bare)


def _drive(context: Context, settings: Settings, conduct: Conduct, metrics: DriverMetrics, *, quiet: bool) -> None:
    """The run itself. `quiet`: nothing is printed, because the log is what is read."""
    folder = _folder(settings, context.run_id)
    started = time.monotonic() - _spent_s(folder)
    live = LiveView(quiet=quiet)
    live.say(f"run folder {folder.path}")
    on_round = partial(_tell_round, folder, started, metrics, live)
    try:
        with run_folder.driven(folder), live.attached(), open_federation(settings, folder.path) as federation:
            before = folder.metrics()
            for line in before:
                live.round(line)
            ending = conduct(federation, on_round, before)
            summary = _summary(federation, ending, folder, time.monotonic() - started)
    except AlreadyDriven:
        raise
    except Exception as error:
        # What was finalised stays told, whatever ended the run.
        _finish(_failed(error, settings, folder, time.monotonic() - started), folder, live)
        if isinstance(error, LedgerUnreachable):
            where = " --superlink NAME" if settings.ledger.contract else ""
            live.say(f"once the ledger answers, `bahefl resume {folder.path}{where}` goes on with this run")
        raise
    _finish(summary, folder, live)


def _tell_round(folder: RunFolder, started: float, metrics: DriverMetrics, live: LiveView, line: RoundLine) -> None:
    """Keep and show the line of a round that has ended. `started`: of the clock time.monotonic, earlier drivers counted in."""
    folder.append_metrics({**line, "elapsed": round(time.monotonic() - started, 1)})
    metrics.round(line)
    _log.info(run_folder.round_told(line), extra=_figures(line))
    live.round(line)


def _failed(error: Exception, settings: Settings, folder: RunFolder, seconds: float) -> RunSummary:
    if logs.structured():  # else the command that started the run says so, or Flower
        _log.error("the run failed: %s", error, extra={"reason": type(error).__name__})
    return run_folder.summarise(folder.metrics(), experiment=settings.experiment, seconds=seconds, reason=str(error), failed=True)


def _folder(settings: Settings, run_id: int) -> RunFolder:
    """The run's folder: a new one, or that of a run of this name that has not come to its end on this contract."""
    run = settings.run
    if settings.ledger.contract:
        for begun in run_folder.unfinished(run.root, settings.ledger.contract):
            if run_goes_on(settings, begun):
                run_folder.lead_to(begun, run.root, run_id)
                break
    return run_folder.create(run.root, run.name, run_id, settings.yaml())


def _spent_s(folder: RunFolder) -> float:
    """Seconds that earlier drivers of this run took, as far as they told."""
    ended, lines = folder.summary(), folder.metrics()
    return max(ended["seconds"] if ended else 0.0, float(lines[-1].get("elapsed", 0.0)) if lines else 0.0)


def _figures(line: RoundLine) -> dict[str, float]:
    return {"seconds": line["seconds"]["total"], "bytes": sum(line["bytes"].values()), "gas": line["gas"]["total"]}


def _finish(summary: RunSummary, folder: RunFolder, live: LiveView) -> None:
    from bahefl_flwr import report

    folder.write_summary(summary)
    if logs.structured() and summary["outcome"] == "completed":
        _log.info("the run %s", run_folder.outcome_told(summary))
    live.finish(summary, folder.path, report.write(folder))


def _summary(federation: Federation, ending: Ending, folder: RunFolder, seconds: float) -> RunSummary:
    view, lines = federation.ledger.view(), folder.metrics()
    summary = run_folder.summarise(
        lines,
        experiment=federation.settings.experiment,
        seconds=seconds,
        test=ending.test,
        reason=view.task.end_reason,
    )
    if ending.test:
        summary["tested"] = ending.tested
    if federation.settings.attack.name != "none":
        summary["attack"] = _attack(federation, lines)
    summary["asked"] = view.task.rounds
    summary["chosen"] = {"round": ending.best_round or view.last_finalized, "model_digest": ending.chosen_model}
    summary["ledger"] = {
        "contract": federation.ledger.address,
        "chain_id": federation.ledger.chain_id,
        "last_round": view.round.number,
        "block_number": view.block_number,
        "model_digest": ending.final_model,
        "key_mode": _key_mode(view, lines),
        "account_keys": _ACCOUNT_KEYS[federation.settings.federation.admission],
    }
    return summary


def _key_mode(view: LedgerView, lines: Sequence[RoundLine]) -> str:
    threshold, committee = view.epoch.threshold, view.epoch.committee.bit_count()
    epochs = len({line["epoch"] for line in lines})
    renewed = f", {epochs} key epochs" if epochs > 1 else ""
    if threshold > 1:
        return f"threshold {threshold} of {committee}{renewed}"
    return f"single key, held by all {committee} members (the paper's experiment){renewed}"


def _attack(federation: Federation, lines: Sequence[RoundLine]) -> AttackFacts:
    from bahefl_flwr.attack.roster import attacking_members

    attack = federation.settings.attack
    members = attacking_members(federation.settings, federation.folder, federation.ledger.members())
    return run_folder.attack_facts(lines, attack.name, members, attack.start_round)
