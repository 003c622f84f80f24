"""The command `bahefl-supernode`: flower-supernode, which looks for messages more often when there is traffic."""

from __future__ import annotations

import sys

from bahefl_flwr._flwr_deployment import run_supernode


def bahefl_supernode() -> None:
    """Console script `bahefl-supernode`; the options are those of flower-supernode."""
    run_supernode(sys.argv[1:])


if __name__ == "__main__":
    bahefl_supernode()
