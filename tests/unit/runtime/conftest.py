"""The real daemon, for the tests of its sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from fakes.machine import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    root = tempfile.mkdtemp(prefix="remit-")  # short: a socket's path has 108 bytes
    found = Machine(root)
    try:
        found.start()
        yield found
        found.stop()
    finally:
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait()
        shutil.rmtree(root, ignore_errors=True)
