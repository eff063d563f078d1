"""Everything that this project says of GPUs, measured on this one: parts of some minutes each, that can be resumed.

  python benchmarks/hardware/all.py OUT             on a machine with an NVIDIA GPU
  python benchmarks/hardware/all.py OUT --resume    what lacks: after an interrupt, or with another library
  python benchmarks/hardware/all.py OUT --device cpu --pair made    a dry run: the same code, small sizes

Every part runs in a process of its own and writes OUT/<part>.json; what is not installed, or does not run on this
GPU, is told and passed over. In the end, and whenever the run is interrupted, OUT/report.md, OUT/report.json and
OUT/pictures tell what there is. The exit status is 0 if every part was done or passed over, 1 if one has failed or is
unfinished, 2 for what cannot be asked for.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    if str(ROOT) not in sys.path:  # run by its path
        sys.path.append(str(ROOT))
    try:
        from benchmarks.hardware.kit.command import main as command
    except ModuleNotFoundError as error:
        remedy = f"Run `make gpu`, which makes an environment, or: pip install '{ROOT}[gpu,export,explain]'"
        print(f"Error: {error.name} is not installed here. {remedy}", file=sys.stderr)
        return 2
    return command(__doc__)


if __name__ == "__main__":
    sys.exit(main())
