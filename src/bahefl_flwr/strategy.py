"""BaheflStrategy: the Flower strategy of a secure run. It holds no key, no model and no data, and sees no ciphertext.

Here stand Flower's interface and the course of a task; the loop itself is in `driver.py`, its decisions in `round.py`.
"""

from __future__ import annotations

import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from bahefl_flwr.driver import Driver, end_task
from bahefl_flwr.early_stopping import EarlyStopping
from bahefl_flwr.errors import RunFailed, SettingsError
from bahefl_flwr.federation import Federation
from bahefl_flwr.records import LedgerView, RoundPhase, RoundRecord, members_in
from bahefl_flwr.replies import Config, Numbers, Reply, ask_until_back, request_config
from bahefl_flwr.round_log import PHASES, Ended, RoundFigures, round_line
from bahefl_flwr.run_folder import Pooled, RoundLine, round_told
from bahefl_flwr.secure_run import Ending, OnRound, secure_run
from bahefl_flwr.settings import Scalar, from_run_config
from bahefl_flwr.site.selection import BEST_ROUND
from bahefl_flwr.site_metrics import EXAMPLES, MetricsAggregation, aggregated, coverage, weighted_mean
from bahefl_flwr.steps import EVALUATE, EVALUATION, Action, Ask
from bahefl_flwr.strategy_options import client_config, least, refuse_what_cannot_be, share
from bahefl_flwr.task import gather, rounds_before

_log = logging.getLogger("bahefl_flwr.driver")


class BaheflStrategy(Strategy):
    """Secure federated averaging: threshold CKKS, ledger, elected coordinators (docs/protocol.md).

    In an ordinary `@app.main()`: `BaheflStrategy(context).start(grid, num_rounds=3)`. What it does and leaves is in
    docs/numpyclient.md. Arguments have the names and the meaning of Flower's FedAvg where nothing else is said.

    Args:
      context: Flower's, of the ServerApp: settings are read from its run-config, and `start` keeps a run folder, as `run.root`
        says. Or a federation that is open; then folder, summary and report are the caller's.
      fraction_train: share of the active sites selected for a round, above 0.
      fraction_evaluate: share of the active sites that evaluate each model, of those that train in the round after it. 0
        evaluates nothing.
      min_train_nodes: least number of sites to select; never below `federation.min_sites`, which is also the default.
      min_evaluate_nodes: least number of sites that evaluate, where `fraction_evaluate` is not 0.
      min_available_nodes: sites to wait for before the task starts; never below `federation.min_sites`, default
        `federation.sites`.
      weighted_by_key: "num-examples" only: updates are weighed on the ledger, by the number that `fit` returns.
      arrayrecord_key, configrecord_key: "arrays" and "config" only: no arrays travel, and a NumPyClient sees no records.
      train_metrics_aggr_fn, evaluate_metrics_aggr_fn: given a RecordDict with a record "metrics" for each site.
      on_round: called with each round's line (`metrics.jsonl`) as soon as it is complete.
      rounds_before: lines that earlier drivers of this run have written, in order; with a context `start` finds them itself.

    Raises:
      SettingsError: an argument asks for what this strategy does not do, or contradicts the settings; says why.
    """

    def __init__(
        self,
        context: Context | Federation,
        *,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int | None = None,
        min_evaluate_nodes: int | None = None,
        min_available_nodes: int | None = None,
        weighted_by_key: str = EXAMPLES,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsAggregation | None = None,
        evaluate_metrics_aggr_fn: MetricsAggregation | None = None,
        on_round: OnRound | None = None,
        rounds_before: Sequence[RoundLine] = (),
    ) -> None:
        self._of = context
        self.settings = context.settings if isinstance(context, Federation) else from_run_config(context.run_config)
        refuse_what_cannot_be(weighted_by_key, arrayrecord_key, configrecord_key)
        federation = self.settings.federation
        self.fraction_train = share("fraction_train", fraction_train, zero=False)
        self.fraction_evaluate = share("fraction_evaluate", fraction_evaluate, zero=True)
        self.min_train_nodes = max(least("min_train_nodes", min_train_nodes, federation.sites), federation.min_sites)
        self.min_evaluate_nodes = least("min_evaluate_nodes", min_evaluate_nodes, federation.sites)
        available = least("min_available_nodes", min_available_nodes, federation.sites)
        self.min_available_nodes = max(available, federation.min_sites) if available else federation.sites
        self.train_metrics_aggr_fn = train_metrics_aggr_fn or weighted_mean
        self.evaluate_metrics_aggr_fn = evaluate_metrics_aggr_fn or weighted_mean
        self.on_round = on_round
        self.result = Result()
        self.test_metrics: dict[str, float | int] = {}
        self.final_model = ""
        self.chosen_model = ""
        self._nodes: dict[int, int] = {}
        self._rounds = 0
        self._configs: tuple[Mapping[str, Scalar | bytes], Mapping[str, Scalar | bytes]] = ({}, {})
        self._figures: defaultdict[int, RoundFigures] = defaultdict(RoundFigures)
        self._unevaluated: RoundRecord | None = None
        self._stopping = EarlyStopping(federation.patience)
        self._reported = 0
        self._open_before = 0
        self._tested = coverage({}, 0)
        self._refusals: dict[int, str] = {}
        self._told: set[str] = set()
        self._remember(rounds_before)

    @property
    def best_round(self) -> int:
        """The finalised round whose model has the best pooled validation score so far; 0 before the first."""
        return self._stopping.best_round

    @property
    def federation(self) -> Federation:
        """The open federation.

        Raises:
          SettingsError: `start` has not opened it yet.
        """
        if not isinstance(self._of, Federation):
            raise SettingsError("the federation of this strategy is open only while strategy.start(...) runs")
        return self._of

    def summary(self) -> None:
        """Log what this strategy is configured for."""
        _log.info(
            "waiting for %d sites; of the active ones %g train, at least %d, and %g evaluate, at least %d",
            self.min_available_nodes, self.fraction_train, self.min_train_nodes, self.fraction_evaluate, self.min_evaluate_nodes,
        )  # fmt: skip

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
          timeout: longest wait in seconds for each evaluation after the task, for sites that come back too. Rounds are bounded by
            the ledger's deadlines.
          train_config, evaluate_config: handed to the sites' `fit` and `evaluate`, with `server-round` and `rounds` added;
            `evaluate` gets `part`, too. Scalars and bytes only, as a NumPyClient's config.

        Returns:
          Flower's Result with the metrics of all rounds; its `arrays` stay empty.

        Raises:
          RunFailed: no round could be finalised, no site could open the final model, or the sites never came together.
        """
        if initial_arrays or evaluate_fn is not None:
            raise SettingsError(
                "the driver of a secure run holds no model: leave out initial_arrays and evaluate_fn; sites start from their "
                "NumPyClient's get_parameters, and evaluate by its evaluate"
            )
        self._configs = client_config("train_config", train_config), client_config("evaluate_config", evaluate_config)
        self._rounds = least("num_rounds", num_rounds) or self.settings.federation.rounds
        if isinstance(self._of, Federation):
            self._conduct(self._of, grid, timeout)
        else:
            secure_run(self._of, self.settings, lambda f, on_round, before: self._opened(f, on_round, before, grid, timeout))
        return self.result

    def _opened(
        self, federation: Federation, on_round: OnRound, before: Sequence[RoundLine], grid: Grid, timeout_s: float
    ) -> Ending:
        """`start` with a context: the lines of rounds go into the run's folder, and to the user's function, if there is one."""
        context, also = self._of, self.on_round

        def both(line: RoundLine) -> None:
            on_round(line)
            if also:
                also(line)

        self._of, self.on_round = federation, both
        self._remember(before)
        try:
            return self._conduct(federation, grid, timeout_s)
        finally:
            self._of, self.on_round = context, also

    def _remember(self, before: Sequence[RoundLine]) -> None:
        """What earlier drivers of this run have reported."""
        for line in before:
            self._reported = int(line["round"])
            self._stopping.note(self._reported, line["validation"].get("score"))

    def _conduct(self, federation: Federation, grid: Grid, timeout_s: float) -> Ending:
        self.summary()
        self._open_before = federation.ledger.view().round.number
        self._nodes = gather(federation, grid, self.min_available_nodes, self._rounds)
        Driver(
            federation.ledger, grid, self._nodes, client_config=self._client_config, on_replies=self._on_replies,
            on_round_end=self._on_round_end, screened=self.settings.screening.kind != "off",
            fraction=self.fraction_train, least=self.min_train_nodes, reported=self._reported or rounds_before(federation),
        ).run()  # fmt: skip
        self._evaluate_final(grid, timeout_s)
        self._write_unevaluated()
        return Ending(
            test=self.test_metrics, tested=self._tested, final_model=self.final_model, chosen_model=self.chosen_model,
            best_round=self.best_round,
        )  # fmt: skip

    def _client_config(self, view: LedgerView, action: Action, member: int) -> Mapping[str, Scalar]:
        when = {"server-round": view.finalized_count + 1, "rounds": view.task.rounds}
        train, evaluate = self._configs
        told: Mapping[str, object] = {}
        if action is Action.TRAIN:
            evaluation = {EVALUATION + key: value for key, value in evaluate.items()}
            asked = member in self._evaluators(view, members_in(view.round.selected))
            told = {**train, **evaluation, EVALUATE: asked, BEST_ROUND: self.best_round}
        elif action in (Action.CAST_BALLOT, Action.CONFIRM):
            told = evaluate
        return {**told, **when}  # type: ignore[dict-item]

    def _evaluators(self, view: LedgerView, members: Iterable[int]) -> tuple[int, ...]:
        """Who of `members` evaluates the newest finalised model; the same at every question about it."""
        if not self.fraction_evaluate:
            return ()
        candidates = sorted(members)
        wanted = max(self.min_evaluate_nodes, 1, round(self.fraction_evaluate * view.active.bit_count()))
        draw = random.Random(view.task.run_digest + b"evaluate" + view.last_finalized.to_bytes(4, "big"))
        return tuple(sorted(draw.sample(candidates, min(len(candidates), wanted))))

    def _on_replies(self, view: LedgerView, command: Ask, replies: Mapping[int, Reply], wall_s: float) -> None:
        self._tell(replies)
        phase = PHASES.get(command.action)
        if phase is None:
            return
        figures = self._figures[command.number]
        figures.add(phase, wall_s, replies)
        if command.action is Action.TRAIN:
            metrics = aggregated("train", self.train_metrics_aggr_fn, figures.trained)
            figures.train.update(metrics)
            figures.pooled = coverage(figures.trained)["sites"]
            self.result.train_metrics_clientapp[view.finalized_count + 1] = MetricRecord(dict(metrics))
            self._refusals |= {m: reply.error for m, reply in replies.items() if not reply.ok}
            self._on_evaluation(replies, len(self._evaluators(view, members_in(view.round.selected))))

    def _tell(self, replies: Mapping[int, Reply]) -> None:
        """What sites note is shown once: the next round's differs in its figures only."""
        for member, reply in replies.items():
            for note in str(reply.facts.get("notes", "")).splitlines():
                words = f"{member} {re.sub(r'[0-9][0-9.e+-]*', '', note)}"
                if words not in self._told:
                    self._told.add(words)
                    _log.warning("site %d notes: %s", member, note)

    def _on_round_end(self, r: RoundRecord) -> None:
        self._write_unevaluated()
        if r.phase is RoundPhase.FINALIZED:
            self._unevaluated = r
            return
        line = self._line(r, {}, {})
        _log.warning("%s", round_told(line))
        self._write(line)

    def _write_unevaluated(self) -> None:
        """The line of a round whose model nobody evaluated, before anything later is told."""
        if self._unevaluated is not None:
            r, self._unevaluated = self._unevaluated, None
            self._write(self._line(r, {}, {}))

    def _on_evaluation(self, replies: Mapping[int, Reply], asked: int) -> None:
        """Sites evaluated the newest finalised model, `asked` were to; with that, the line of its round is complete."""
        r = self._unevaluated
        number = r.number if r else 0
        fresh = {m: reply for m, reply in replies.items() if reply.ok and reply.evaluation.get("model-round") == number}
        if not fresh:
            return
        evaluations = {m: reply.evaluation for m, reply in fresh.items()}
        metrics = aggregated("evaluation", self.evaluate_metrics_aggr_fn, evaluations)
        self.result.evaluate_metrics_clientapp[number] = MetricRecord(dict(metrics))
        if r is not None:
            self._unevaluated = None
            by_site = {
                m: aggregated("evaluation", self.evaluate_metrics_aggr_fn, {m: figures}) for m, figures in evaluations.items()
            }
            self._write(self._line(r, metrics, by_site, coverage(evaluations, asked)))
            self._stop_early(number, metrics.get("score"))

    def _stop_early(self, number: int, score: object) -> None:
        self._stopping.note(number, score)
        if (reason := self._stopping.why_over) and self.federation.ledger.view().task.open:
            end_task(self.federation.ledger, reason)

    def _line(
        self, r: RoundRecord, evaluation: Numbers, by_site: Mapping[int, Numbers], validated: Pooled | None = None
    ) -> RoundLine:
        figures, open_before = self._figures.pop(r.number, RoundFigures()), r.number <= self._open_before
        return round_line(self._ended(r), figures, evaluation, by_site, validated, restarted=open_before)

    def _write(self, line: RoundLine) -> None:
        if self.on_round:
            self.on_round(line)

    def _ended(self, r: RoundRecord) -> Ended:
        ledger = self.federation.ledger
        return Ended(
            round=r,
            members={m.index: m for m in ledger.members()},
            updates=ledger.updates(r.number),
            ballots=ledger.ballots(r.number) if r.split else (),
            end_reason=ledger.view().task.end_reason,
        )

    def _evaluate_final(self, grid: Grid, timeout_s: float) -> None:
        """Every site opens the last aggregate and validates it; then it tests the model of the best round, once."""
        view = self.federation.ledger.view()
        if not view.finalized_count:
            why = view.round.abort_reason or view.task.end_reason
            said = "".join(f"\n  site {m}: {error}" for m, error in sorted(self._refusals.items()))
            raise RunFailed(f"no round was finalised; round {view.round.number} ended with: {why}{said}")
        replies = self._evaluate_part(grid, view, "validation", timeout_s)
        self.final_model = _named_model(replies)
        if not self.final_model:
            why = "; ".join(f"site {m}: {r.error or 'named no model'}" for m, r in sorted(replies.items()))
            raise RunFailed(f"no site could open and evaluate the final model, of round {view.last_finalized}. {why}")
        asked = len(self._evaluators(view, members_in(view.active)))
        self._on_evaluation(replies, asked)
        replies = self._evaluate_part(grid, view, "test", timeout_s)
        self.chosen_model = _named_model(replies)
        evaluations = {m: r.evaluation for m, r in replies.items() if r.ok}
        self.test_metrics = dict(aggregated("test", self.evaluate_metrics_aggr_fn, evaluations))
        self._tested = coverage(evaluations, asked)

    def _evaluate_part(self, grid: Grid, view: LedgerView, part: str, timeout_s: float) -> dict[int, Reply]:
        told: dict[str, Scalar | bytes] = {
            **self._configs[1], "part": part, "server-round": view.finalized_count, "rounds": view.task.rounds,
            BEST_ROUND: self.best_round,
        }  # fmt: skip
        evaluators = self._evaluators(view, self._nodes)

        def config(member: int) -> Config:
            return request_config(
                {**told, EVALUATE: member in evaluators},  # type: ignore[dict-item]
                run=view.task.run_digest, number=view.round.number, last_try=True, block=view.block_number,
            )  # fmt: skip

        configs = {node: config(member) for member, node in self._nodes.items()}
        by_node = ask_until_back(grid, Action.EVALUATE, configs, group="evaluate", timeout_s=timeout_s)
        for member, node in self._nodes.items():
            if not by_node[node].ok:
                _log.warning("site %d did not evaluate on its %s part: %s", member, part, by_node[node].error)
        replies = {member: by_node[node] for member, node in self._nodes.items()}
        self._tell(replies)
        return replies

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
