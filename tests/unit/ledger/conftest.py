from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.ledger import Clock
from remit_daemon.ledger.store import Ledger


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock, key: Ed25519PrivateKey) -> Iterator[Ledger]:
    opened = Ledger(str(tmp_path / "ledger.db"), key=key, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "s1.journal")
