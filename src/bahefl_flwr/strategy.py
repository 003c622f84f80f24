"""BaheflStrategy: the Flower strategy of a secure run. It holds no key, no model and no data, and sees no ciphertext.

Here stand Flower's interface and the metrics; the loop itself is in `driver.py`, its decisions in `round.py`.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from bahefl_flwr._flwr_deployment import aggregate_metricrecords
from bahefl_flwr.driver import Driver, end_task
from bahefl_flwr.errors import RunFailed, SettingsError
from bahefl_flwr.federation import Federation
from bahefl_flwr.records import LedgerView, RoundPhase, RoundRecord
from bahefl_flwr.replies import Numbers, Reply, ask, request_config
from bahefl_flwr.round_log import RoundFigures, round_line
from bahefl_flwr.settings import Scalar
from bahefl_flwr.site.selection import BEST_ROUND
from bahefl_flwr.steps import Action, Ask
from bahefl_flwr.task import gather, rounds_before

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]
OnRound = Callable[[Mapping[str, Any]], None]

_EXAMPLES = "num-examples"
_PHASES = {
    Action.TRAIN: "train",
    Action.UPLOAD: "upload",
    Action.SCREEN: "screen",
    Action.AGGREGATE: "aggregate",
    Action.OPEN: "verify",
    Action.CAST_BALLOT: "ballot",
    Action.REVEAL_BALLOT: "ballot",
    Action.CONFIRM: "open",
}

_log = logging.getLogger("bahefl_flwr.driver")


class BaheflStrategy(Strategy):
    """Secure federated averaging: threshold CKKS, ledger, elected coordinators (DESIGN section 4).

    Args:
      federation: the run's ledger and settings, from `open_federation`.
      fraction_train: share of the active sites selected for a round (at least `min_train_nodes`).
      min_train_nodes: least number of sites to select; never below `federation.min_sites`, which is also the default.
      min_available_nodes: sites to wait for before the task starts; default `federation.sites`.
      weighted_by_key: metric that weighs the other metrics in the default aggregations.
      train_metrics_aggr_fn, evaluate_metrics_aggr_fn: as in Flower's FedAvg.
      on_round: called with each round's line (`metrics.jsonl`) as soon as it is complete.
      rounds_before: lines that earlier drivers of this run have written, in order; empty for a new run.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        fraction_train: float = 1.0,
        min_train_nodes: int | None = None,
        min_available_nodes: int | None = None,
        weighted_by_key: str = _EXAMPLES,
        train_metrics_aggr_fn: MetricsAggregation = aggregate_metricrecords,
        evaluate_metrics_aggr_fn: MetricsAggregation = aggregate_metricrecords,
        on_round: OnRound | None = None,
        rounds_before: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if not 0 < fraction_train <= 1:
            raise SettingsError(f"fraction_train={fraction_train}; it must be above 0 and at most 1")
        settings = federation.settings.federation
        most = max(min_train_nodes or 0, min_available_nodes or 0)
        if most > settings.sites:
            raise SettingsError(
                f"{most} nodes are asked for, but federation.sites={settings.sites}: no more than that may take part"
            )
        self.federation = federation
        self.fraction_train = fraction_train
        self.min_train_nodes = max(min_train_nodes or 0, settings.min_sites)
        self.min_available_nodes = min_available_nodes or settings.sites
        self.weighted_by_key = weighted_by_key
        self.train_metrics_aggr_fn = train_metrics_aggr_fn
        self.evaluate_metrics_aggr_fn = evaluate_metrics_aggr_fn
        self.on_round = on_round
        self.result = Result()
        self.test_metrics: dict[str, float | int] = {}
        self.final_model = ""
        self.chosen_model = ""
        self._nodes: dict[int, int] = {}
        self._rounds = 0
        self._configs = (ConfigRecord(), ConfigRecord())
        self._figures: defaultdict[int, RoundFigures] = defaultdict(RoundFigures)
        self._unevaluated: RoundRecord | None = None
        self._best: tuple[float, int] = (float("-inf"), 0)
        self._worse_in_a_row = 0
        self._reported = 0
        for line in rounds_before:
            self._reported = int(line["round"])
            self._compare(self._reported, line["validation"].get("score"))

    @property
    def best_round(self) -> int:
        """The finalised round whose model has the best pooled validation score so far; 0 before the first."""
        return self._best[1]

    def summary(self) -> None:
        """Log what this strategy is configured for."""
        _log.info("contract %s, waiting for %d sites", self.federation.ledger.address, self.min_available_nodes)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the task to its end: `num_rounds` finalised rounds, or an earlier end with its reason on the ledger.

        Args:
          initial_arrays, evaluate_fn: refused; the driver never holds a model.
          num_rounds: finalised rounds (abandoned ones do not count); default `federation.rounds`.
          timeout: longest wait in seconds for each evaluation after the task. Rounds are bounded by the ledger's deadlines.
          train_config, evaluate_config: handed to the sites' NumPyClients, with `server-round` and `rounds` added.

        Returns:
          Flower's Result with the metrics of all rounds; its `arrays` stay empty.

        Raises:
          RunFailed: no round could be finalised, no site could open the final model, or the sites never came together.
        """
        if initial_arrays or evaluate_fn is not None:
            raise SettingsError("the driver of a secure run holds no model: leave out initial_arrays and evaluate_fn")
        self._configs = (train_config or ConfigRecord(), evaluate_config or ConfigRecord())
        self._rounds = num_rounds or self.federation.settings.federation.rounds
        self.summary()
        self._nodes = gather(self.federation, grid, self.min_available_nodes, self._rounds)
        Driver(
            self.federation.ledger, grid, self._nodes, client_config=self._client_config, on_replies=self._on_replies,
            on_round_end=self._on_round_end, screened=self.federation.settings.screening.kind != "off",
            fraction=self.fraction_train, least=self.min_train_nodes, reported=self._reported or rounds_before(self.federation),
        ).run()  # fmt: skip
        self._evaluate_final(grid, timeout)
        return self.result

    def _client_config(self, view: LedgerView, action: Action) -> Mapping[str, Scalar]:
        config = {**self._configs[0], BEST_ROUND: self.best_round} if action is Action.TRAIN else {}
        return {**config, "server-round": view.finalized_count + 1, "rounds": view.task.rounds}  # type: ignore[dict-item]

    def _on_replies(self, view: LedgerView, command: Ask, replies: Mapping[int, Reply], wall_s: float) -> None:
        phase = _PHASES.get(command.action)
        if phase is None:
            return
        figures = self._figures[command.number]
        figures.add(phase, wall_s, replies)
        if command.action is Action.TRAIN:
            metrics = self._aggregated("train", self.train_metrics_aggr_fn, figures.trained)
            figures.train.update(metrics)
            self.result.train_metrics_clientapp[view.finalized_count + 1] = MetricRecord(dict(metrics))
            self._on_evaluation(replies)

    def _on_round_end(self, r: RoundRecord) -> None:
        if r.phase is RoundPhase.FINALIZED:
            if self._unevaluated is not None:
                # Several rounds ended between two drivers; the sites hold the newest model by now.
                self._write_line(self._unevaluated, {}, {})
            self._unevaluated = r
        else:
            _log.warning("round %d was abandoned: %s", r.number, r.abort_reason)
            self._write_line(r, {}, {})

    def _on_evaluation(self, replies: Mapping[int, Reply]) -> None:
        """Sites evaluated the newest finalised model; with that, the line of its round is complete."""
        r = self._unevaluated
        number = r.number if r else 0
        fresh = {m: reply for m, reply in replies.items() if reply.ok and reply.evaluation.get("model-round") == number}
        if not fresh:
            return
        evaluations = {m: reply.evaluation for m, reply in fresh.items()}
        metrics = self._aggregated("evaluation", self.evaluate_metrics_aggr_fn, evaluations)
        self.result.evaluate_metrics_clientapp[number] = MetricRecord(dict(metrics))
        if r is not None:
            self._unevaluated = None
            by_site = {
                m: self._aggregated("evaluation", self.evaluate_metrics_aggr_fn, {m: figures})
                for m, figures in evaluations.items()
            }
            self._write_line(r, metrics, by_site)
            self._stop_early(number, metrics.get("score"))

    def _compare(self, number: int, score: object) -> None:
        """Counts finalised rounds whose model was evaluated with a score; others say nothing about progress."""
        if isinstance(score, int | float):
            better = score > self._best[0]
            self._worse_in_a_row = 0 if better else self._worse_in_a_row + 1
            self._best = (score, number) if better else self._best

    def _stop_early(self, number: int, score: object) -> None:
        self._compare(number, score)
        patience = self.federation.settings.federation.patience
        if patience and self._worse_in_a_row >= patience and self.federation.ledger.view().task.open:
            reason = f"early stopping: no better score than round {self._best[1]}'s in {patience} evaluated rounds"
            end_task(self.federation.ledger, reason)

    def _write_line(self, r: RoundRecord, evaluation: Numbers, by_site: Mapping[int, Numbers]) -> None:
        ledger = self.federation.ledger
        members = {m.index: m for m in ledger.members()}
        figures = self._figures.pop(r.number, RoundFigures())
        if self.on_round:
            self.on_round(round_line(r, figures, members, ledger.updates(r.number), evaluation, by_site))

    def _evaluate_final(self, grid: Grid, timeout_s: float) -> None:
        """Every site opens the last aggregate and validates it; then it tests the model of the best round, once."""
        view = self.federation.ledger.view()
        if not view.finalized_count:
            why = view.round.abort_reason or view.task.end_reason
            raise RunFailed(f"no round was finalised; round {view.round.number} ended with: {why}")
        replies = self._evaluate_part(grid, view, "validation", timeout_s)
        self.final_model = _named_model(replies)
        if not self.final_model:
            why = "; ".join(f"site {m}: {r.error or 'named no model'}" for m, r in sorted(replies.items()))
            raise RunFailed(f"no site could open and evaluate the final model, of round {view.last_finalized}. {why}")
        self._on_evaluation(replies)
        replies = self._evaluate_part(grid, view, "test", timeout_s)
        self.chosen_model = _named_model(replies)
        evaluations = {m: r.evaluation for m, r in replies.items() if r.ok}
        self.test_metrics = dict(self._aggregated("test", self.evaluate_metrics_aggr_fn, evaluations))

    def _evaluate_part(self, grid: Grid, view: LedgerView, part: str, timeout_s: float) -> dict[int, Reply]:
        told = {
            **self._configs[1], "part": part, "server-round": view.finalized_count, "rounds": view.task.rounds,
            BEST_ROUND: self.best_round,
        }  # fmt: skip
        config = request_config(
            told,  # type: ignore[arg-type]
            run=view.task.run_digest,
            number=view.round.number,
            last_try=True,
            block=view.block_number,
        )
        configs = dict.fromkeys(self._nodes.values(), config)
        by_node = ask(grid, Action.EVALUATE, configs, group="evaluate", timeout_s=timeout_s)
        for member, node in self._nodes.items():
            if not by_node[node].ok:
                _log.warning("site %d did not evaluate on its %s part: %s", member, part, by_node[node].error)
        return {member: by_node[node] for member, node in self._nodes.items()}

    def _aggregated(self, phase: str, aggregate: MetricsAggregation, by_site: Mapping[int, Numbers]) -> Numbers:
        """Aggregate over the sites whose metrics can be: a figure that cannot never ends a run that trains well."""
        records = self._comparable(phase, by_site)
        if not records:
            return {}
        try:
            return dict(aggregate(records, self.weighted_by_key).items())  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  # the function is the user's, and its input is what sites claim
            _log.warning("the %s metrics could not be aggregated (%s: %s); left out", phase, type(error).__name__, error)
            return {}

    def _comparable(self, phase: str, by_site: Mapping[int, Numbers]) -> list[RecordDict]:
        """What most sites report the same keys of, from at least one example; other sites are left out, with a warning."""
        weightless = [m for m, n in by_site.items() if n and (n.get(_EXAMPLES, 1) < 1 or n.get(self.weighted_by_key, 1) <= 0)]
        if weightless:
            _log.warning("%s metrics of sites %s claim to come from less than one example and are left out", phase, weightless)
        by_site = {m: numbers for m, numbers in by_site.items() if m not in weightless}
        shapes = [frozenset(numbers) for numbers in by_site.values() if numbers]
        if not shapes:
            return []
        usual = max(set(shapes), key=shapes.count)
        odd = [m for m, numbers in by_site.items() if numbers and frozenset(numbers) != usual]
        if odd:
            _log.warning("%s metrics of sites %s have other keys than the rest and are left out", phase, odd)
        if self.weighted_by_key not in usual:
            return []
        return [RecordDict({"metrics": MetricRecord(dict(n))}) for n in by_site.values() if frozenset(n) == usual]

    # --- Flower's hooks of its own loop, which a secure run does not use ------------------------------------------

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Refused: the ledger decides who trains, and no arrays travel through the driver."""
        self._refuse()

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refused: the elected site aggregates, under encryption."""
        self._refuse()

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Refused: sites evaluate what they opened themselves."""
        self._refuse()

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Refused: see `evaluate_metrics_aggr_fn`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SettingsError("BaheflStrategy drives its rounds itself: call strategy.start(grid=grid, num_rounds=...)")


def _named_model(replies: Mapping[int, Reply]) -> str:
    """Digest of the model that most sites evaluated; "" if none did."""
    models = Counter(str(r.facts["model"]) for r in replies.values() if r.ok and r.facts.get("model"))
    return models.most_common(1)[0][0] if models else ""
