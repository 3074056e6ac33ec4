"""Bus addresses."""

from __future__ import annotations

import pytest

from remit_daemon.gateway.dbus.address import sockets


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("unix:path=/run/user/1000/bus", [b"/run/user/1000/bus"]),
        ("unix:abstract=/tmp/dbus-X,guid=00", [b"\0/tmp/dbus-X"]),
        ("unix:path=/a%20b%2cc", [b"/a b,c"]),
        ("unix:runtime=yes", [b"/run/user/7/bus"]),
        ("unix:path=/a,guid=1;unix:path=/b", [b"/a", b"/b"]),
        ("tcp:host=localhost,port=1;unix:path=/b;", [b"/b"]),
        ("unixexec:path=/bin/sh;autolaunch:", []),
        ("", []),
    ],
)
def test_sockets(address: str, found: list[bytes]) -> None:
    assert sockets(address, "/run/user/7") == found


@pytest.mark.parametrize(
    "address",
    [
        "/run/bus",
        "unix:path=/a,path=/b",
        "unix:path",
        "unix:path=%0",
        "unix:path=%zz",
        "unix:path=",
        "unix:path=/a%00b",
    ],
)
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValueError):
        sockets(address)
