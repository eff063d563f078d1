"""The real Triton Inference Server on a model repository, in a process of its own: for tests and measurements.

Its binaries come from the wheel of NVIDIA's PyTriton, which carries the server and stubs of its Python backend; it is
unpacked, not installed.
"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"  # what its stubs take; those of later servers take later ones
UNPACKED = "SPECBEAM_TRITON"  # environment variable: a folder with the wheel's content, so that nothing is downloaded
PATIENCE = 120.0  # seconds


class NoTriton(Exception):
    """The server cannot be had, or does not run, here."""


@dataclass(frozen=True)
class Triton:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    log: Path
    http: str  # each HOST:PORT
    grpc: str
    metrics: str

    def load(self, model: str) -> None:
        """Load a model's newest version, or load it anew. Raises `RuntimeError` with the server's reason."""
        asked = urllib.request.Request(f"http://{self.http}/v2/repository/models/{model}/load", b"{}")
        try:
            urllib.request.urlopen(asked, timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None

    def shown(self) -> str:
        """What the metrics' endpoint says."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=PATIENCE) as answer:
            return str(answer.read().decode())


def triton_files(folder: Path) -> Path:
    """The wheel's content, in a folder that is made for it unless the environment names one. Raises `NoTriton`."""
    if UNPACKED in os.environ:
        return Path(os.environ[UNPACKED])
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", folder, WHEEL], capture_output=True, text=True)
    if done.returncode:
        raise NoTriton(f"{WHEEL} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "files")
    return folder / "files"


def backends(files: Path, folder: Path) -> Path:
    """A folder of backends with the stub for this Python. Raises `NoTriton` where there is none."""
    server, version = files / "pytriton" / "tritonserver", "{}.{}".format(*sys.version_info)
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise NoTriton(f"there is no stub for Python {version}")
    shutil.copytree(server / "backends", folder)
    Path(shutil.copy(stub, folder / "python")).chmod(0o755)
    return folder


@contextmanager
def triton(files: Path, repository: Path, folder: Path, models: Sequence[str], *more: str) -> Iterator[Triton]:
    """The server on a repository, with these models loaded; its files go to a folder. Raises `NoTriton`.

    files: see `triton_files`; more: options of tritonserver's.
    """
    if not (folder / "backends").exists():
        backends(files, folder / "backends")
    program = files / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    program.chmod(0o755)
    http, grpc, metrics = _free_ports(3)
    command = [
        str(program), "--model-repository", str(repository), "--backend-directory", str(folder / "backends"),
        "--model-control-mode", "explicit", *(f"--load-model={model}" for model in models),
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
        f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", *more,
    ]  # fmt: skip
    libraries = [str(files / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    log = folder / "triton.log"
    with log.open("wb") as writing:
        process = subprocess.Popen(
            command, env=own | {"LD_LIBRARY_PATH": ":".join(libraries)}, stdout=writing, stderr=writing
        )
    running = Triton(process, log, *(f"127.0.0.1:{port}" for port in (http, grpc, metrics)))
    try:
        _wait(running)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(running: Triton) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and running.process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{running.http}/v2/health/ready", timeout=5):
                return
        except (OSError, HTTPException):
            time.sleep(0.1)
    raise NoTriton(f"tritonserver did not get ready:\n{running.log.read_text(errors='replace')[-3000:]}")
