"""An S3 service as a process: moto's server, from `pip install moto[s3] flask flask-cors`. In memory; it forgets when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from bahefl_flwr.store.s3 import BucketAddress, S3Store

BUCKET = "ciphertexts"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "site", "AWS_SECRET_ACCESS_KEY": "of-a-test", "AWS_EC2_METADATA_DISABLED": "true"}
_START_TIMEOUT_S = 60.0


class S3Server:
    """moto's server with one bucket, from `with` to its end.

    Attributes:
      url: its endpoint. bucket: a second client, for what tests do behind the store's back.
    """

    def __init__(self, log: Path) -> None:
        for needed in ("moto", "flask", "boto3", "obstore"):
            pytest.importorskip(needed)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.bucket: Any = None

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.start()
        return self

    def start(self) -> None:
        """Start it, empty, with the bucket."""
        import boto3

        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.url.rpartition(":")[2]]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **CREDENTIALS})
        self._wait()
        keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "of-a-test", "region_name": REGION}
        service = boto3.resource("s3", endpoint_url=self.url, **keys)
        self.bucket = service.create_bucket(Bucket=BUCKET)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """kill -9."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def store(self, prefix: str = "", *, bucket: str = BUCKET, patience_s: float = 20.0) -> S3Store:
        """The bucket as a site sees it."""
        where = BucketAddress(url=f"s3://{bucket}/{prefix}", endpoint=self.url, region=REGION)
        return S3Store(where, timeout_s=min(10.0, patience_s), patience_s=patience_s)

    def _wait(self) -> None:
        end = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end:
            try:
                with urlopen(f"{self.url}/moto-api/", timeout=1):
                    return
            except (URLError, OSError):
                time.sleep(0.2)
        self.kill()
        raise AssertionError(f"moto did not start: {self._log.read_text()[-500:]}")
