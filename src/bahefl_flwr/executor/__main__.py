"""`python -m bahefl_flwr.executor`, the same as `bahefl-executor`."""

from bahefl_flwr.executor.command import bahefl_executor

if __name__ == "__main__":
    bahefl_executor()
