"""How fast batches come from a store: `make bench`."""

import sys
from pathlib import Path

# The S3 server of the tests serves here as well.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
