"""What may go wrong, provoked. Small models and made-up inputs are those of the tests, in tests/support."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "support"))
