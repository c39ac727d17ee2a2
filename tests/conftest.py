"""Settings shared by all tests."""

import os
import sys
from pathlib import Path

# Two workers on two cores: one thread each, set before torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# NequIP's mixins call nequip-train & co. by name: let them find those of this environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
