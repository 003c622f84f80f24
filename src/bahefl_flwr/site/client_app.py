"""Any Flower NumPyClient as a secure site: one message in, one action, one plain reply out.

Only the translation between Flower's messages and the site's actions lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from bahefl_flwr.errors import BaheflError, SettingsError, TooFewUpdates
from bahefl_flwr.settings import Scalar, from_run_config
from bahefl_flwr.site import ceremony, confirmation, conflict, coordination, dispute, hello, sketches, training, verification
from bahefl_flwr.site.numpy_client import ClientConfig, ClientFn, make_client
from bahefl_flwr.site.state import Outcome, Request, Site, open_site
from bahefl_flwr.site.telling import telling
from bahefl_flwr.steps import EVALUATE, EVALUATION, Action

_Act = Callable[[Site, Request], Outcome]
_ActWithClient = Callable[[Site, Request, Callable[[], NumPyClient], ClientConfig], Outcome]

_QUERIES: dict[Action, _Act] = {
    Action.COMMIT_SEEDS: ceremony.commit_seeds,
    Action.REVEAL_SEEDS: ceremony.reveal_seeds,
    Action.PUBLISH_KEY_PARTS: ceremony.publish_key_parts,
    Action.UPLOAD_KEY_PARTS: ceremony.upload_key_parts,
    Action.CONFIRM_KEY: ceremony.confirm_key,
    Action.JUDGE: dispute.judge,
    Action.UPLOAD: training.upload,
    Action.SCREEN: sketches.release_sketches,
    Action.AGGREGATE: coordination.aggregate,
    Action.OPEN: verification.verify_and_open,
    Action.REVEAL_BALLOT: conflict.reveal_ballot,
}
_QUERIES_WITH_CLIENT: dict[Action, _ActWithClient] = {
    Action.CAST_BALLOT: conflict.cast_ballot,
    Action.CONFIRM: confirmation.confirm_opening,
}


def secure_client_app(client_fn: ClientFn) -> ClientApp:
    """A ClientApp that trains with the given NumPyClient and lets nothing but ciphertexts and plain metrics leave the site.

    Args:
      client_fn: as in stock Flower: from the Context to a NumPyClient (or `NumPyClient(...).to_client()`). All sites must
        return the same `get_parameters` at the start; `get_properties` may name the site's `num-examples`.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = partial(make_client, client_fn, context)
        return _answer(message, context, lambda s, r: training.train(s, r, client, _client_config(message)))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = partial(make_client, client_fn, context)
        return _answer(message, context, lambda s, r: training.evaluate(s, r, client(), _client_config(message)))

    @app.query(_name(Action.HELLO))
    def greet(message: Message, context: Context) -> Message:
        client = partial(make_client, client_fn, context)
        return _answer(message, context, lambda s, _: hello.hello(s, client()))

    for action, act in _QUERIES.items():
        app.query(_name(action))(partial(_answer, act=act))
    for action, act_with_client in _QUERIES_WITH_CLIENT.items():
        app.query(_name(action))(partial(_answer_with_client, client_fn=client_fn, act=act_with_client))
    return app


def _answer_with_client(message: Message, context: Context, client_fn: ClientFn, act: _ActWithClient) -> Message:
    client = partial(make_client, client_fn, context)
    return _answer(message, context, lambda s, r: act(s, r, client, _client_config(message)))


def _name(action: Action) -> str:
    return action.value.partition(".")[2]


def _answer(message: Message, context: Context, act: _Act) -> Message:
    """Carry out one action; an error of ours becomes a reply that says what happened, so one site never ends a run."""
    with telling(message, context) as tell:
        try:
            tell.begin()
            settings = from_run_config(context.run_config)
            request = _request(message)
            tell.number(request.number)
            with open_site(context, settings, request) as site:
                tell.by(site.address)
                outcome = act(site, request)
            tell.done(outcome)
        except BaheflError as error:
            tell.failed(error)
            return Message(_failure(error), reply_to=message)
    return Message(_reply(outcome), reply_to=message)


def _failure(error: BaheflError) -> RecordDict:
    verdict = error.verdict if isinstance(error, TooFewUpdates) else ""
    status: dict[str, bool | str] = {"ok": False, "error": type(error).__name__, "message": str(error), "screening": verdict}
    return RecordDict({"status": ConfigRecord({k: v for k, v in status.items() if v != ""})})


def _request(message: Message) -> Request:
    config = message.content["config"]
    if not isinstance(config, ConfigRecord):
        raise SettingsError(f"a message without a config record cannot be answered (got {type(config).__name__})")
    try:
        return Request(
            run=bytes(config["bahefl-run"]),  # type: ignore[arg-type]
            number=int(config["bahefl-number"]),  # type: ignore[arg-type]
            quorum=int(str(config["bahefl-quorum"]), 16),
            last_try=bool(config["bahefl-last-try"]),
            block=int(config["bahefl-block"]),  # type: ignore[arg-type]
            evaluate=bool(config.get(EVALUATE, True)),
            evaluation=_evaluation(config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"a message whose config lacks or garbles {error} is not from BaheflStrategy; ignored") from None


def _evaluation(config: ConfigRecord) -> Mapping[str, Scalar | bytes]:
    """What the NumPyClient's evaluate is told along with training."""
    ours = {key: value for key, value in config.items() if key.startswith(EVALUATION)}
    return {k.removeprefix(EVALUATION): v for k, v in ours.items() if isinstance(v, bool | bytes | float | int | str)}


def _client_config(message: Message) -> ClientConfig:
    """What Flower's strategies give a NumPyClient: the config record, without our own entries."""
    config = message.content["config"]
    return {k: v for k, v in config.items() if not k.startswith("bahefl-") and isinstance(v, bool | bytes | float | int | str)}


def _reply(outcome: Outcome) -> RecordDict:
    return RecordDict(
        {
            "status": ConfigRecord({"ok": True, "notes": "\n".join(outcome.notes), **outcome.facts}),
            "metrics": MetricRecord(dict(**outcome.metrics)),
            "evaluation": MetricRecord(dict(**outcome.evaluation)),
            "seconds": MetricRecord(dict(outcome.seconds)),
            "bytes": MetricRecord({**outcome.bytes, "gas": outcome.gas}),
        }
    )
