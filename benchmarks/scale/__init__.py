"""Large catalogs, models and lists. The tokenizers of made-up models are those of the tests, in tests/support."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "support"))
