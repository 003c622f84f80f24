"""The site: an ordinary NumPyClient."""

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from digits.task import CLASSES, PIXELS, evaluated, load_data, trained


class DigitsClient(NumPyClient):
    """Trains on this site's digits."""

    def __init__(self, data, run_config):
        self.images, self.labels, self.validation_images, self.validation_labels = data
        self.steps, self.learning_rate = int(run_config["local-steps"]), float(run_config["learning-rate"])

    def get_properties(self, config):
        return {"num-examples": len(self.labels)}

    def get_parameters(self, config):
        return [np.zeros((len(CLASSES), PIXELS)), np.zeros(len(CLASSES))]

    def fit(self, parameters, config):
        weights = trained(parameters, self.images, self.labels, self.steps, self.learning_rate)
        loss, _ = evaluated(weights, self.images, self.labels)
        return weights, len(self.labels), {"loss": loss}

    def evaluate(self, parameters, config):
        loss, accuracy = evaluated(parameters, self.validation_images, self.validation_labels)
        return loss, len(self.validation_labels), {"accuracy": accuracy}


def client_fn(context: Context):
    """The client of this node."""
    data = load_data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    return DigitsClient(data, context.run_config).to_client()


app = ClientApp(client_fn=client_fn)
