"""The real server over the tiny bundle, in the environment that the recipe makes; once per session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving.triton import NoTriton, Triton, triton, triton_files
from tiny_bundle import Tiny
from triton_cases import make_environment, package, wheel

OPTIONS = ("--threads", 1, "--policy", "in-flight")


@pytest.fixture(scope="session")
def repository(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model "tiny" in its environment."""
    folder = tmp_path_factory.mktemp("repository")
    package(tiny.bundle, folder, "tiny", *OPTIONS)
    make_environment(folder / "tiny", wheel(tmp_path_factory.mktemp("wheel")))
    return folder


@pytest.fixture(scope="session")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    try:
        files = triton_files(tmp_path_factory.mktemp("pytriton"))
        server = triton(files, repository, tmp_path_factory.mktemp("triton"), ["tiny"])
        running = server.__enter__()
    except NoTriton as error:
        pytest.skip(str(error))
    yield running
    server.__exit__(None, None, None)
