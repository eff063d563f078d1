"""The hardware kit's parts, and what runs and reports them. Made-up models' tokenizers are those of tests/support."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests" / "support"))
