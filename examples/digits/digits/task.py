"""The data and the model: nothing here knows of federated learning."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

CLASSES = np.arange(10)
PIXELS = 64


def load_data(partition: int, partitions: int):
    """This site's share of scikit-learn's 1797 digits: images and labels to train on, and to validate on."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[partition::partitions]
    images, labels = images[order] / 16, labels[order]
    cut = len(labels) * 4 // 5
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def model_of(parameters) -> LogisticRegression:
    """scikit-learn's model with these weights."""
    model = LogisticRegression()
    model.coef_, model.intercept_ = parameters
    model.classes_ = CLASSES
    return model


def trained(parameters, images, labels, steps: int, learning_rate: float):
    """The weights after some steps of gradient descent."""
    coef, intercept = (np.array(p) for p in parameters)
    truth = labels[:, None] == CLASSES
    for _ in range(steps):
        error = (model_of((coef, intercept)).predict_proba(images) - truth) / len(labels)
        coef -= learning_rate * error.T @ images
        intercept -= learning_rate * error.sum(axis=0)
    return [coef, intercept]


def evaluated(parameters, images, labels):
    """Mean loss and accuracy."""
    model = model_of(parameters)
    return log_loss(labels, model.predict_proba(images), labels=CLASSES), model.score(images, labels)


def weighted_accuracy(metrics):
    """Mean of the sites' accuracies, by their numbers of examples; shown after each round."""
    accuracy = sum(n * m["accuracy"] for n, m in metrics) / sum(n for n, _ in metrics)
    print(f"accuracy {accuracy:.3f}", flush=True)
    return {"accuracy": accuracy}
