"""The command line: its verbs, and how their errors are told."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from threading import current_thread, main_thread
from traceback import walk_tb
from typing import Any

import click

from specbeam import __version__
from specbeam.catalog.errors import SpecBeamError, said
from specbeam.catalog.extras import EXTRAS, install_module
from specbeam.verbs.bench import bench
from specbeam.verbs.build_engine import build_engine
from specbeam.verbs.build_pool import build_pool
from specbeam.verbs.catalog import catalog
from specbeam.verbs.doctor import doctor
from specbeam.verbs.explain import explain
from specbeam.verbs.export import demo, export
from specbeam.verbs.generate import generate
from specbeam.verbs.group import group_items, group_users
from specbeam.verbs.infer import infer
from specbeam.verbs.inspect import inspect
from specbeam.verbs.learn import align, train
from specbeam.verbs.measure import evaluate, tune
from specbeam.verbs.model import model
from specbeam.verbs.package_triton import package_triton
from specbeam.verbs.serve import serve


class Verbs(click.Group):
    """A group whose verbs print errors a user can mend as one message, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with ends_when_terminated(), tells_broken_packages():
                return super().invoke(context)
        except SpecBeamError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            package = missing_package(error)
            if package is None:
                raise
            raise click.ClickException(f"{package} is not installed. Run: {install_module(package)}") from error
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # a reader that has gone away: click ends quietly
                raise
            remedy = "Check the path, its permissions and the free space."
            raise click.ClickException(f"Cannot read or write: {error}. {remedy}") from error


def missing_package(error: BaseException | None) -> str | None:
    """The package of an extra whose absence an error, or what it was raised from (transformers wraps it), tells of."""
    while error is not None:
        package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
        if package in EXTRAS:
            return package
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def tells_broken_packages() -> Iterator[None]:
    """Raise our error for one that importing an installed package of an extra raised, whatever that is."""
    try:
        yield
    except Exception as error:
        package = broken_package(error)
        if package is None or isinstance(error, SpecBeamError) or missing_package(error) not in (None, package):
            raise
        names = " ".join(packages_distributions().get(package, [package]))
        raise SpecBeamError(
            f"{package} is installed, but cannot be imported: {said(error)}. Install it again: pip install "
            f"--force-reinstall {names}"
        ) from error


def broken_package(error: BaseException | None) -> str | None:
    """The package of an extra, one of whose modules raised an error (or what that came from) when it was imported."""
    while error is not None:
        for frame, _ in walk_tb(error.__traceback__):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if frame.f_code.co_name == "<module>" and package in EXTRAS:
                return package
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def ends_when_terminated() -> Iterator[None]:
    """Let SIGTERM end the process as SIGINT does, so that no temporary file is left."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="specbeam")
def main() -> None:
    """Fast top-K generative recommendation: a draft proposes beams, the target verifies them in one call.

    \b
    The usual order:
      specbeam export --target T --draft D --catalog index.json --output bundle
      specbeam build-engine bundle
      specbeam infer bundle histories.jsonl --output recs.jsonl

    \b
    Exit status:
      0  all of it was done
      1  an error, or requests that an engine could not answer; what was done is kept
      2  a wrong command line
      3  with --strict-input: all was done but for lines that were rejected
      128 + n  signal n stopped a run between two batches; the same command goes on
    """


VERBS = (
    export, build_engine, infer, tune, evaluate, bench, inspect, train, align, demo, explain, generate, build_pool,
    group_users, group_items, doctor, serve, catalog, model, package_triton,
)  # fmt: skip
for verb in VERBS:
    main.add_command(verb)

if __name__ == "__main__":
    main()
