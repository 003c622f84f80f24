"""Figures and tables of a run, drawn from its folder alone. The home of matplotlib."""

from bahefl_flwr.report.writing import write

__all__ = ["write"]
