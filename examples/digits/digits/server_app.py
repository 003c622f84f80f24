"""The server: federated averaging."""

from flwr.app import Context
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

from digits.task import weighted_accuracy


def server_fn(context: Context):
    strategy = FedAvg(min_available_clients=3, evaluate_metrics_aggregation_fn=weighted_accuracy)
    config = ServerConfig(num_rounds=int(context.run_config["num-server-rounds"]))
    return ServerAppComponents(strategy=strategy, config=config)


app = ServerApp(server_fn=server_fn)
