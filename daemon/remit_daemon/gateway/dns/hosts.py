"""Names that this machine gives itself: /etc/hosts and the localhost names (RFC 6761 6.3), and the search list.

The hosts file is the administrator's: a name in it that policy allows needs no further rule for its address.
"""

from __future__ import annotations

import os

from remit_policy import hosts

HOSTS = "/etc/hosts"
RESOLV_CONF = "/etc/resolv.conf"
MAX_BYTES = (
    4 << 20
)  # of either file; block lists in hosts files have a few megabytes, what is behind is not seen
MAX_SEARCH = 32  # domains; glibc takes any number, real lists have up to six
LOOPBACK = ("127.0.0.1", "::1")


def is_localhost(name: str) -> bool:
    """Say whether ``name`` (lower case) means this machine by definition."""
    return name == "localhost" or name.endswith((".localhost", ".localhost.localdomain")) or name in (
        "localhost.localdomain", "ip6-localhost", "ip6-loopback",
    )  # fmt: skip


class Hosts:
    """The hosts file, read again when it has changed. What cannot be read gives no names."""

    def __init__(self, path: str = HOSTS) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, tuple[str, ...]] = {}

    def addresses(self, name: str) -> tuple[str, ...]:
        """Return the addresses of ``name`` in their order, () when the file does not have it."""
        self._look()
        return self._addresses.get(name, ())

    def names(self, address: str) -> tuple[str, ...]:
        """Return the names that the file gives ``address``, without the localhost ones."""
        self._look()
        return self._names.get(address, ())

    def _look(self) -> None:
        try:
            st = os.stat(self._path)
        except OSError:
            self._stamp, self._addresses, self._names = (), {}, {}
            return
        stamp = (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        addresses: dict[str, dict[str, None]] = {}
        names: dict[str, dict[str, None]] = {}
        for words in _lines(self._path):
            try:
                address = hosts.canonical(words[0])
            except hosts.HostError:
                continue
            if not hosts.is_address(address):
                continue
            for word in words[1:]:
                try:
                    name = hosts.canonical(word)
                except hosts.HostError:
                    continue
                if is_localhost(name) or hosts.is_address(name):
                    continue
                addresses.setdefault(name, {})[address] = None
                names.setdefault(address, {})[name] = None
        self._addresses = {k: tuple(v) for k, v in addresses.items()}
        self._names = {k: tuple(v) for k, v in names.items()}


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, "rb") as f:
            text = f.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [w for line in text.splitlines() if len(w := line.split("#", 1)[0].split()) > 1]


def search_list(path: str = RESOLV_CONF) -> tuple[str, ...]:
    """Return the domains that clients append to short names (resolv.conf(5): the last `search` or `domain` counts)."""
    found: list[str] = []
    for words in _lines(path):
        if words[0] in ("search", "domain"):
            found = [w.lower().rstrip(".") for w in words[1:]]
    return tuple([d for d in found if d][:MAX_SEARCH])
