"""The sub-commands of `bahefl`, one module each with a typer `app`. Light to import: the work is imported where it is done."""
