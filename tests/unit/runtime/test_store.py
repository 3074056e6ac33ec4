"""The daemon's memory, where a record cannot be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit_daemon.broker.events import Store
from remit_daemon.broker.records import Account
from remit_daemon.runtime.store import Memory, StoreError


def account(owner: str) -> Account:
    return Account(f"{owner}\tcalls 1h", owner, "calls 1h", "calls", 10, 3600.0, 0.0, 1.0)


def test_what_cannot_be_kept_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """A program may be called by bytes that are no text: its record fails, and the next one's, whosever, does not."""
    memory = Memory(str(tmp_path / "store.db"))
    with pytest.raises(StoreError):
        memory.keep([Store(account("first")), Store(account("odd\udcff"))])
    memory.keep([Store(account("other"))])
    assert [a.owner for a in memory.accounts()] == ["other"]
    memory.close()
