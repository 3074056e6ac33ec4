"""Why a secret has no value, in words for a person."""

from __future__ import annotations

import pytest

from remit_daemon.gateway.http.secrets import _fault
from remit_policy.model import Secret


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "/home/p/token"), "/home/p/token: no such file or directory"),
        (OSError("the variable T is not set"), "the variable T is not set"),
        (TimeoutError(), "pass did not end within"),
    ],
)  # fmt: skip
def test_it_is_said_what_is_wrong_and_where(fault: OSError, said: str) -> None:
    secret = Secret("s", "command", ("pass", "show"), "T", ("x.org",), "bearer", "", "mine.toml:3")
    assert _fault(secret, fault).startswith(said)
    assert "Errno" not in _fault(secret, fault)
