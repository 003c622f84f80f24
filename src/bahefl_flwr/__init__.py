"""Flower plugin for federated learning with threshold CKKS, an auditing ledger and a verified aggregate (README.md)."""
