"""Makes the modules of this folder importable from every test, and keeps hypothesis quick, repeatable and free of deadlines."""

import sys
from pathlib import Path

from hypothesis import settings

# pytest's importlib mode adds no folder by itself.
sys.path.insert(0, str(Path(__file__).parent))

# The same examples on every machine: whether a merge passes must not be luck. `thorough` draws new ones each time (nox -s fuzz).
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile("quick")
