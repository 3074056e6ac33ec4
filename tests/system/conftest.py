"""What the system tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from system.harness import Arena


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    """A home, a project, the usual policy and a running daemon, for the tests of one module."""
    a = Arena()
    try:
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()
