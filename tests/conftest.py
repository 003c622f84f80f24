"""Makes the modules of this folder importable from every test, and keeps hypothesis quick and free of deadlines."""

import sys
from pathlib import Path

from hypothesis import settings

# pytest's importlib mode adds no folder by itself.
sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("quick", max_examples=50, deadline=None)
settings.load_profile("quick")
