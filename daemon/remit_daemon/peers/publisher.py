"""Who a program is from, as far as files beside it say so: a note for people, and no proof of anything."""

from __future__ import annotations

import json
import os

MAX_UP = 6  # directories above a script in which its package.json is looked for
MAX_JSON = 1 << 20  # bytes of a package.json; honest ones have some thousand
MAX_LISTS = 64 << 20  # bytes of dpkg's lists; a large machine has a third
DPKG = "/var/lib/dpkg/info"


def publisher_of(path: str, dpkg: str = DPKG) -> str:
    """Return a note such as ``npm @anthropic-ai/claude-code 2.1.3`` or ``Debian package git``, "" when nothing says. Blocks for some ms."""
    return _npm(path) or _debian(path, dpkg)


def _npm(path: str) -> str:
    if "/node_modules/" not in path:
        return ""
    at = os.path.dirname(path)
    for _ in range(MAX_UP):
        try:
            fd = os.open(at + "/package.json", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(fd, "rb") as f:
                found = json.loads(f.read(MAX_JSON))
        except (OSError, ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("name"), str):
            return f"npm {found['name']} {found.get('version') or ''}".strip()
        if os.path.basename(at) == "node_modules":
            return ""
        at = os.path.dirname(at)
    return ""


def _debian(path: str, dpkg: str) -> str:
    if not path.startswith(("/usr/", "/opt/", "/bin/", "/sbin/", "/lib/")):
        return ""
    # Lists may have the name that a file had before /bin and /lib became links into /usr.
    lines = [b"\n" + os.fsencode(p) + b"\n" for p in {path, path.removeprefix("/usr")}]
    left = MAX_LISTS
    try:
        names = sorted(n for n in os.listdir(dpkg) if n.endswith(".list"))
        for name in names:
            with open(f"{dpkg}/{name}", "rb") as f:
                data = f.read(left)
            left -= len(data)
            if any(line in data for line in lines):
                return f"Debian package {name.removesuffix('.list').partition(':')[0]}"
            if left <= 0:
                break
    except OSError:
        pass
    return ""
