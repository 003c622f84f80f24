"""Handwritten digits by logistic regression, federated with Flower."""
