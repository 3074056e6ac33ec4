"""What this machine's files say of the network: nameservers, host names, the buses' addresses."""

from __future__ import annotations

import os

from remit_policy import hosts

_MAX_FILE = 1 << 20  # bytes; an /etc/hosts of ad blockers has less
_RESOLV, _HOSTS = "/etc/resolv.conf", "/etc/hosts"


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(fd, _MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def nameservers(*, assumed: bool = True) -> list[str]:
    """Return the canonical addresses of resolv.conf(5)'s nameservers; with ``assumed`` this machine's own where it names none."""
    found = []
    for line in _read(_RESOLV).split("\n"):
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = hosts.canonical(words[1].partition("%")[0])
            except hosts.HostError:
                continue
            found.append("127.0.0.1" if address == hosts.LOCAL else address)
    return found or (["127.0.0.1"] if assumed else [])


def resolver_options() -> str:
    """Return what resolv.conf(5) says beside its nameservers."""
    lines = [line for line in _read(_RESOLV).split("\n") if line.split()[:1] not in ([], ["nameserver"])]
    return "".join(line + "\n" for line in lines if not line.startswith(("#", ";")))


class HostsFile:
    """The names of /etc/hosts, read again when it changed."""

    def __init__(self) -> None:
        self._stamp: tuple[int, ...] = ()
        self._names: dict[bytes, list[str]] = {}

    def names(self, where: bytes) -> list[str]:
        """Return the names that the file gives the address ``where`` (16 bytes), ``localhost`` excepted."""
        try:
            st = os.stat(_HOSTS)
        except OSError:
            return []
        stamp = (st.st_ino, st.st_size, st.st_mtime_ns)
        if stamp != self._stamp:
            self._stamp, self._names = stamp, {}
            for line in _read(_HOSTS).split("\n"):
                words = line.partition("#")[0].split()
                try:
                    address = hosts.packed(hosts.canonical(words[0])) if words else b""
                except hosts.HostError:
                    continue
                for name in words[1:]:
                    try:
                        canonical = hosts.canonical(name)
                    except hosts.HostError:
                        continue
                    if canonical != hosts.LOCAL and not hosts.is_address(canonical):
                        self._names.setdefault(address, []).append(canonical)
        return self._names.get(where, [])


def bus_addresses(env: dict[str, str]) -> dict[str, str]:
    """Return ``session`` and ``system`` → the address of that bus, "" where there is none (D-Bus specification, addresses)."""
    runtime = env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    usual = f"unix:path={runtime}/bus" if os.path.exists(runtime + "/bus") else ""
    system = env.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    session = env.get("DBUS_SESSION_BUS_ADDRESS") or usual
    return {"session": session.replace("unix:runtime=yes", f"unix:path={runtime}/bus"), "system": system}


def sockets_of(address: str) -> list[str]:
    """Return the sockets, real paths or @names, that a bus address names."""
    found: list[str] = []
    for one in address.split(";"):
        kind, _, rest = one.partition(":")
        if kind != "unix":
            continue
        for pair in rest.split(","):
            key, _, value = pair.partition("=")
            raw = bytearray()
            parts = value.split("%")
            raw += parts[0].encode()
            for part in parts[1:]:
                try:
                    raw += bytes.fromhex(part[:2]) + part[2:].encode()
                except ValueError:
                    return found
            text = os.fsdecode(bytes(raw))
            if key == "path":
                found.append(os.path.realpath(text))
            elif key == "abstract":
                found.append("@" + text)
    return found
