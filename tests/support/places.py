"""Where the repository is, and real data beside it; tests that need these say so where they are absent."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("SPECBEAM_DATA", ROOT.parent / "shared"))
DATA = SHARED / "data"
