"""`python -m bahefl_flwr`: the same command as flower-simulation, for the shipped application."""

from bahefl_flwr.cli import leave, main

if __name__ == "__main__":
    leave(main(prog="python -m bahefl_flwr"))
