"""What Flower loads: the lesion application as a secure ServerApp and ClientApp.

Plain assignments, because Flower reads this file's syntax tree; heavy imports wait until an action needs them.
"""

from __future__ import annotations

import logging
import operator
import os
import time
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from flwr.app import Context, MetricRecord, RecordDict
from flwr.client import Client, NumPyClient
from flwr.serverapp import Grid, ServerApp

from bahefl_flwr import logs, run_folder
from bahefl_flwr.errors import BaheflError
from bahefl_flwr.metrics import VARIABLE as METRICS
from bahefl_flwr.metrics import DriverMetrics
from bahefl_flwr.settings import from_run_config
from bahefl_flwr.site import secure_client_app

if TYPE_CHECKING:
    from bahefl_flwr.federation import Federation
    from bahefl_flwr.live import LiveView
    from bahefl_flwr.run_folder import AttackFacts, RoundLine, RunFolder, RunSummary
    from bahefl_flwr.settings import Settings
    from bahefl_flwr.strategy import BaheflStrategy

_ACCOUNT_KEYS = {"automatic": "throw-away keys of a simulation", "registrar": "keys in the sites' own homes"}

server_app = ServerApp()

_log = logging.getLogger("bahefl_flwr.driver")


def _client_fn(context: Context) -> Client | NumPyClient:
    # torch, albumentations and OpenCV take seconds to import, and most messages do not train.
    from bahefl_flwr.client import client_fn

    if from_run_config(context.run_config).attack.name == "none":
        return client_fn(context)
    from bahefl_flwr.attack.client import attacking

    return attacking(client_fn)(context)


client_app = secure_client_app(_client_fn)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Drive one run and leave its folder complete."""
    with logs.belonging(run=str(context.run_id)):
        bare = logs.configure(os.environ.get(logs.VARIABLE, ""))
        metrics = DriverMetrics(os.environ.get(METRICS, ""))
        with metrics.run():
            _drive(grid, context, metrics, quiet=bare)


def _drive(grid: Grid, context: Context, metrics: DriverMetrics, *, quiet: bool) -> None:
    """The run itself. `quiet`: nothing is printed, because the log is what is read."""
    # What only the driver needs, Ray and matplotlib among it, stays out of the sites' processes.
    from bahefl_flwr.federation import open_federation
    from bahefl_flwr.live import LiveView
    from bahefl_flwr.strategy import BaheflStrategy

    settings = from_run_config(context.run_config)
    started = time.monotonic()
    folder = _folder(settings, context.run_id)
    live = LiveView(quiet=quiet)
    live.say(f"run folder {folder.path}")

    def on_round(line: RoundLine) -> None:
        folder.append_metrics(line)
        metrics.round(line)
        _log.info(run_folder.round_told(line), extra=_figures(line))
        live.round(line)

    try:
        with live.attached(), open_federation(settings, folder.path) as federation:
            strategy = BaheflStrategy(
                federation, evaluate_metrics_aggr_fn=pooled_evaluation, on_round=on_round, rounds_before=folder.metrics()
            )
            strategy.start(grid=grid, num_rounds=settings.federation.rounds)
            summary = _summary(federation, strategy, folder, time.monotonic() - started)
    except BaheflError as error:
        # What was finalised stays told, whatever ended the run.
        seconds = time.monotonic() - started
        if logs.structured():  # else the command that started the run says so, or Flower
            _log.error("the run failed: %s", error, extra={"reason": type(error).__name__})
        summary = run_folder.summarise(
            folder.metrics(), experiment=settings.experiment, seconds=seconds, reason=str(error), failed=True
        )
        _finish(summary, folder, live)
        raise
    _finish(summary, folder, live)


def _folder(settings: Settings, run_id: int) -> RunFolder:
    """The run's folder: a new one, or that of a run of this name that has not come to its end on this contract."""
    from bahefl_flwr.federation import run_goes_on

    run = settings.run
    if settings.ledger.contract:
        for begun in run_folder.unfinished(run.root, run.name, settings.ledger.contract):
            # Without a summary it was cut off, be it in the last evaluations; with one it failed, perhaps for a passing reason.
            if begun.summary() is None or run_goes_on(settings, begun.path):
                run_folder.lead_to(begun, run.root, run_id)
                break
    return run_folder.create(run.root, run.name, run_id, settings.yaml())


def _figures(line: RoundLine) -> dict[str, float]:
    return {"seconds": line["seconds"]["total"], "bytes": sum(line["bytes"].values()), "gas": line["gas"]["total"]}


def _finish(summary: RunSummary, folder: RunFolder, live: LiveView) -> None:
    from bahefl_flwr import report

    folder.write_summary(summary)
    live.finish(summary, folder.path, report.write(folder))


def _summary(federation: Federation, strategy: BaheflStrategy, folder: RunFolder, seconds: float) -> RunSummary:
    view = federation.ledger.view()
    threshold, committee = view.epoch.threshold, view.epoch.committee.bit_count()
    single = f"single key, held by all {committee} members (the paper's experiment)"
    lines = folder.metrics()
    epochs = len({line["epoch"] for line in lines})
    renewed = f", {epochs} key epochs" if epochs > 1 else ""
    summary = run_folder.summarise(
        lines,
        experiment=federation.settings.experiment,
        seconds=seconds,
        test=strategy.test_metrics,
        reason=view.task.end_reason,
    )
    if federation.settings.attack.name != "none":
        summary["attack"] = _attack(federation, lines)
    summary["chosen"] = {"round": strategy.best_round or view.last_finalized, "model_digest": strategy.chosen_model}
    summary["ledger"] = {
        "contract": federation.ledger.address,
        "chain_id": federation.ledger.chain_id,
        "last_round": view.round.number,
        "block_number": view.block_number,
        "model_digest": strategy.final_model,
        "key_mode": (f"threshold {threshold} of {committee}" if threshold > 1 else single) + renewed,
        "account_keys": _ACCOUNT_KEYS[federation.settings.federation.admission],
    }
    return summary


def _attack(federation: Federation, lines: Sequence[RoundLine]) -> AttackFacts:
    from bahefl_flwr.attack.roster import attacking_members

    attack = federation.settings.attack
    members = attacking_members(federation.settings, federation.folder, federation.ledger.members())
    return run_folder.attack_facts(lines, attack.name, members, attack.start_round)


def pooled_evaluation(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Sum the sites' exact pixel counts and compute the figures from the sums (docs/lesion.md); the loss is per example."""
    from bahefl_flwr.lesion.metrics import from_metrics, to_metrics

    sites: list[dict[str, Any]] = [dict(record["metrics"].items()) for record in records]
    total = reduce(operator.add, (from_metrics(site) for site in sites))
    examples = sum(int(site[weighted_by_key]) for site in sites)
    loss = sum(float(site["loss"]) * int(site[weighted_by_key]) for site in sites) / examples
    ratios = {name: getattr(total.pixels, name) for name in ("dice", "precision", "recall", "score")}
    means = {
        "mean-dice-of-positive-slices": total.mean_dice_of_positive_slices,
        "mean-hd95-px": total.mean_hd95_px,
        "mean-penalised-hd95-px": total.mean_penalised_hd95_px,
    }
    sums: dict[str, Any] = to_metrics(total)
    return MetricRecord({**sums, **ratios, **means, "loss": loss, weighted_by_key: examples})
