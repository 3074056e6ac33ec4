from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.gateway import World
from remit_daemon.gateway.http import serve


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Return what makes a World; the servers' authority is then the one that this machine trusts."""

    def made(text: str, **env: str) -> World:
        found = World(tmp_path, text, env)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "internet" / "ca.pem"))
        serve._trusting.cache_clear()
        return found

    yield made
    serve._trusting.cache_clear()
