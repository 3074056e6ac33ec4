"""Which addresses of a permitted name are dialled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from remit_daemon.runtime.asks import Caller
from remit_daemon.runtime.dialling import Dialling
from remit_policy.model import ALLOW, DENY, USER, Rule
from unit.broker.test_core import Desk


@pytest.mark.parametrize(
    ("host", "address", "fits"),
    [
        ("a.example", "93.184.216.34", True),
        ("a.example", "127.0.0.1", False),
        ("a.example", "10.0.0.1", False),
        ("a.example", "169.254.169.254", False),
        ("a.example", "::1", False),
        ("a.example", "fe80::1%1", False),
        ("a.example", "10.0.0.7", True),  # a rule names it
        ("a.example", "93.184.216.66", False),  # a rule denies it
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.0.0.1", False),
    ],
)
def test_a_name_leads_only_where_it_may(host: str, address: str, fits: bool) -> None:
    desk = Desk(
        Rule(USER, ALLOW, "connect", "a.example"), Rule(USER, ALLOW, "connect", "10.0.0.7"),
        Rule(USER, DENY, "connect", "93.184.216.66"),
    )  # fmt: skip
    desk.start()
    daemon: Any = SimpleNamespace(broker=desk.broker)
    assert Dialling(daemon)._fits(Caller("s1"), host, address, 443) is fits
