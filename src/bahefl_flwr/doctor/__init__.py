"""What `bahefl doctor` looks at before a run, one module a subject. Every check takes plain values and gives findings.

Nothing here changes a federation, and nothing is asked but the endpoints that the caller names.
"""
