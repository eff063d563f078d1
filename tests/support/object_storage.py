"""A server that speaks S3, for tests of what reads object storage."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
START = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"


@contextmanager
def storage(files: dict[str, bytes]) -> Iterator[str]:
    """One with a bucket of such files: how URIs end that name it (`s3://bucket/NAME?...`)."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "log")
        with told.open("wb") as log:
            server = subprocess.Popen([sys.executable, "-c", START], stdout=log, stderr=log)
        try:
            place = _place(told)
            system = pyarrow.fs.S3FileSystem(
                access_key="test", secret_key="test", endpoint_override=place, scheme="http", allow_bucket_creation=True
            )
            system.create_dir("bucket")
            for name, data in files.items():
                with system.open_output_stream(f"bucket/{name}") as file:
                    file.write(data)
            yield f"?endpoint_override={place}&scheme=http"
        finally:
            server.kill()
            server.wait()


def _place(told: Path) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := re.search(r"http://(127\.0\.0\.1:\d+)", told.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(told.read_text())
