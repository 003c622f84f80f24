"""Attacks on a simulated federation, to measure what screening is worth. Never part of a deployment."""
