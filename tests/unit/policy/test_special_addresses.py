"""Which addresses need a rule of their own, whatever name leads there."""

from __future__ import annotations

import pytest

from remit_policy import hosts


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "169.254.169.254", "168.63.129.16", "100.100.100.200", "::1", "::", "::10.0.0.1", "::ffff:0:10.0.0.1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a00:1::1", "2001::1", "fe80::1", "fc00::1", "ff02::1", "1::1", "4000::1", "8000::1",
    ],
)  # fmt: skip
def test_special(address: str) -> None:
    assert hosts.is_special(hosts.show(hosts.packed(address)))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "2a00:1450::1", "64:ff9b::101:101"]
)
def test_public(address: str) -> None:
    assert hosts.is_special(address) == ""
