"""A run checked by anybody: a numbered list of checks over ledger and store, and the bundle that carries both elsewhere.

Nothing here needs a key, a model or the driver's word. The list with its meaning: docs/audit.md.
"""
