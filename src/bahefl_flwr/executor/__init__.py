"""`bahefl-executor`: Flower's SuperExec with everything loaded once, and a fork instead of a new Python for every task."""
