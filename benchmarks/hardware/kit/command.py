"""The kit's command: what is asked for, looked at; the parts, run one after another; the report, whatever happens."""

import signal
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from benchmarks.hardware.kit.machine import found_setup
from benchmarks.hardware.kit.parts import PARTS, Job, Part
from benchmarks.hardware.kit.record import Record, Setup, file_of, read, write
from benchmarks.hardware.kit.report import write_report
from benchmarks.hardware.kit.sources import check_source, default_pair
from benchmarks.hardware.kit.supervise import lacks, run_part, stopped
from specbeam.catalog.claims import claim
from specbeam.catalog.errors import OptionError, SpecBeamError

INTERRUPTED = 130


def arguments(description: str | None, words: Sequence[str] | None) -> Namespace:
    head, _, rest = (description or "").partition("\n\n")
    parser = ArgumentParser(
        prog="benchmarks/hardware/all.py", description=head, epilog=rest, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for results and report; made if absent")
    parser.add_argument("--minutes", type=float, default=8, help="of a part, at most (default: %(default)g)")
    parser.add_argument("--resume", action="store_true", help="keep what is done in OUT, and do what lacks")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a dry run, without a GPU")
    parser.add_argument(
        "--pair",
        help="an exported bundle with a draft, or `made` for a small pair of random weights (default: the public "
        "Beauty pair where SPECBEAM_DATA names the folder that holds it, else `made`)",
    )
    parser.add_argument("--histories", type=Path, help="of the pair's users (default: the public ones, or made up)")
    parser.add_argument("--parts", help=f"of these, with commas between (default: all): {', '.join(names(PARTS))}")
    return parser.parse_args(words)


def names(parts: Sequence[Part]) -> list[str]:
    return [part.name for part in parts]


def chosen(listed: str | None, parts: Sequence[Part]) -> list[Part]:
    """The parts that are named, and those that they cannot do without. Raises `OptionError` for an unknown one."""
    wanted = set(names(parts)) if listed is None else {name.strip() for name in listed.split(",")}
    if unknown := sorted(wanted - set(names(parts))):
        raise OptionError(f"--parts: there is no part {', '.join(unknown)}; expected of {', '.join(names(parts))}.")
    for part in [part for part in parts if part.name in wanted]:
        read = set(part.needs) - set(part.without)  # whose results it reads: some of them at least
        wanted |= {*part.without, *(read if read.isdisjoint(wanted) else ())}
    return [part for part in parts if part.name in wanted]


def checked(options: Namespace, parts: Sequence[Part]) -> Job:
    """What is to be done, looked at before anything runs. Raises `SpecBeamError` with the remedy."""
    if not 0 < options.minutes < float("inf"):
        raise OptionError(f"--minutes: got {options.minutes:g}; expected more than 0, e.g. 8.")
    out = options.out.resolve()
    if out.exists() and not out.is_dir():
        raise OptionError(f"{options.out} is not a folder. Choose another.")
    found = [part.name for part in parts if file_of(out, part.name).exists()]
    if found and not options.resume:
        raise OptionError(
            f"{options.out} holds results already ({', '.join(found)}). Go on with them by --resume, or choose another "
            "folder; nothing of it is replaced otherwise."
        )
    if out.is_dir() and not found and any(one.name != "logs" for one in out.iterdir() if one.name[0] != "."):
        raise OptionError(f"{options.out} holds other files, and no results of this kit. Choose another folder.")
    pair = options.pair or default_pair()
    check_source(pair, options.histories)
    pair = pair if pair in ("made", "beauty") else str(Path(pair).resolve())
    setup = found_setup(options.device, pair, "full" if options.device == "cuda" else "small")
    return Job(out=out, setup=setup, histories=options.histories and options.histories.resolve())


@contextmanager
def interrupts() -> Iterator[None]:
    """A request to end is an interrupt, too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watched(job: Job, part: Part, place: str, seconds: float) -> Record:
    """Run a part under a bar of its steps."""
    shape = "{desc}: {n}/{total} steps, {elapsed} {postfix}"
    with tqdm(desc=f"{place} {part.title}", total=1, disable=None, leave=False, bar_format=shape) as bar:

        def watch(record: Record | None) -> None:
            if record is not None:
                bar.total, bar.n = len(record.planned) or 1, len(record.steps)
                bar.set_postfix_str(record.running or "")

        return run_part(job, part, seconds, watch)


def run(job: Job, parts: Sequence[Part], minutes: float) -> bool:
    """Run what lacks, and report; whether everything was done or passed over. An interrupt leaves a report as well."""
    print(described(job.setup), flush=True)
    ran: list[str] = []
    try:
        for number, part in enumerate(parts, 1):
            place = f"{number}/{len(parts)}"
            if lacks(job, part, ran) is None:
                print(f"{place} {part.name}: done before, kept", flush=True)
                continue
            record = watched(job, part, place, 60 * minutes)
            ran.append(part.name)
            print(f"{place} {told(record)}", flush=True)
    except KeyboardInterrupt:
        for part in parts:
            left = read(job.out, part.name)
            if left is not None and left.running is not None:
                write(job.out, stopped(left, "interrupted"))
        raise
    finally:
        report = write_report(job, parts)
        print(f"Report: {report}", flush=True)
    records = [read(job.out, part.name) for part in parts]
    return all(record is not None and record.status in ("done", "passed over") for record in records)


def described(setup: Setup) -> str:
    gpu = f"{setup.gpu}, compute capability {setup.compute_capability}, driver {setup.driver}"
    dry = f"A dry run on {setup.processor}: nothing of it says anything about a GPU"
    return f"{gpu if setup.device == 'cuda' else dry}; pair: {setup.pair}"


def told(record: Record) -> str:
    done = sum(step.status == "done" for step in record.steps)
    why = "" if record.reason is None else f": {record.reason}"
    return f"{record.part}: {record.status}, {done} of {len(record.planned)} steps, {record.seconds:.0f} s{why}"


def main(description: str | None = None, words: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """The exit status. description: for --help; words: default those of the command line."""
    options = arguments(description, words)
    try:
        wanted = chosen(options.parts, parts)
        job = checked(options, parts)
        try:
            job.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"{job.out} cannot be written to: {error.strerror}. Give another folder.") from error
        with interrupts(), claim(job.out / "report.json"):
            return 0 if run(job, wanted, options.minutes) else 1
    except SpecBeamError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Interrupted. What is done is kept. Go on with: --resume (in {options.out})", file=sys.stderr)
        return INTERRUPTED
