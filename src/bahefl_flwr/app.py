"""What Flower loads: the lesion application as a secure ServerApp and ClientApp.

Plain assignments, because Flower reads this file's syntax tree; heavy imports wait until an action needs them.
"""

from __future__ import annotations

from flwr.app import Context, MetricRecord, RecordDict
from flwr.client import Client, NumPyClient
from flwr.serverapp import Grid, ServerApp

from bahefl_flwr.settings import from_run_config
from bahefl_flwr.site import secure_client_app

server_app = ServerApp()


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
    # What only the driver needs, web3 among it, stays out of the sites' processes until they need it.
    from bahefl_flwr.strategy import BaheflStrategy

    BaheflStrategy(context, evaluate_metrics_aggr_fn=pooled_evaluation).start(grid)


def pooled_evaluation(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Sum the sites' exact pixel counts and compute the figures from the sums (docs/lesion.md); the loss is per example."""
    from bahefl_flwr.lesion.metrics import pooled

    return MetricRecord(pooled([dict(record["metrics"].items()) for record in records], weighted_by_key))
