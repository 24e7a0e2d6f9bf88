import sys
from pathlib import Path

# tools/ is no package of the distribution: only these tests and the commands in its README import from it.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
