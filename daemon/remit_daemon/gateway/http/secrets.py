"""Credentials that an agent uses and never has.

Each ``[secret.NAME]`` has a placeholder of the value's own shape; the agent finds it in its environment. In a request to a host that the
secret is bound to, at the place that it is bound to, over TLS that we verified (or to this machine), the value takes the
placeholder's place. A placeholder seen anywhere else is refused and recorded as an attempt to take it out. What comes back is
scrubbed of the value in its usual spellings, whose length is the placeholder's, so nothing else changes; where that cannot be
done (a compressed answer) it is refused, and parts of an answer are not asked for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import secrets
import shutil
import string
from typing import TYPE_CHECKING
from urllib.parse import quote

from remit_policy import hosts
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, USER, Rule, Secret, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remit_daemon.gateway.context import Context

    Fields = list[tuple[bytes, bytes]]

MAX_VALUE = 1 << 14  # bytes; a service account's key in JSON is some 2 kB
COMMAND_LIMIT = (
    20.0  # seconds that a command or a keyring may take; it may ask the person to unlock something
)
MIN_VALUE = 8  # characters; a shorter one would be found by chance in what is scrubbed
_KEPT = 16  # characters of a value in which its fixed beginning is looked for, as in ``sk-ant-api03-`` or ``ghp_``


class Entry:
    """One secret: its ``value`` (None when it could not be read, and ``fault`` says why) and its ``placeholder``."""

    def __init__(self, secret: Secret, value: bytes | None, fault: str) -> None:
        self.secret = secret
        self.value = value
        self.fault = fault
        self.placeholder = shaped(value.decode("latin-1") if value else "remit-" + "x" * 34).encode(
            "latin-1"
        )
        rules = tuple(Rule(USER, ALLOW, "connect", host) for host in secret.hosts)
        self._hosts = Engine(Snapshot("", rules))

    def bound_to(self, host: str, port: int) -> bool:
        """Tell whether this secret belongs to the canonical ``host`` at ``port``."""
        return self._hosts.decide("connect", hosts.join(host, port)).verdict == ALLOW


def shaped(value: str) -> str:
    """Return a random text that looks like ``value``: its fixed beginning, its length, its kinds of characters."""
    head = max((value.rfind(c, 0, _KEPT) for c in "-_"), default=-1) + 1
    if len(value) - head < MIN_VALUE:
        head = 0
    out = value[:head]
    for c in value[head:]:
        for kind in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
            if c in kind:
                c = secrets.choice(kind)
                break
        out += c
    return out if out != value else shaped(value)


class Vault:
    """All secrets of a session."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)

    def bound(self, host: str, port: int) -> list[Entry]:
        """Return the secrets that belong to a host."""
        return [e for e in self.entries if e.bound_to(host, port)]

    def found_in(self, data: bytes) -> Entry | None:
        """Return the secret whose placeholder is in ``data``, as it is or in base64."""
        for entry in self.entries:
            if entry.placeholder in data or any(p in data for p in _encoded(entry.placeholder)):
                return entry
        return None

    def tail(self) -> int:
        """Return how many bytes of what was looked at a placeholder could still begin in."""
        return max((len(e.placeholder) for e in self.entries), default=1) - 1


def _encoded(text: bytes) -> list[bytes]:
    """Return what is sure to stand in base64 of a text that holds ``text``, for each of the three alignments."""
    out = []
    for skip in range(3):
        whole = base64.b64encode(b"\0" * skip + text)
        out.append(whole[(skip * 8 + 5) // 6 : (skip + len(text)) * 8 // 6])
    return out


def put(entry: Entry, fields: Fields, query: str) -> tuple[Fields, str, bool]:
    """Return fields and query with the value at its bound place, and whether the placeholder was there."""
    position, used = entry.secret.position, False
    value = entry.value
    assert value is not None
    kind, _, name = position.partition(":")
    if kind == "query":
        parts = query.split("&") if query else []
        wanted = f"{name}={entry.placeholder.decode('latin-1')}"
        if wanted in parts:
            parts[parts.index(wanted)] = f"{name}={value.decode('latin-1')}"
            return fields, "&".join(parts), True
        return fields, query, False
    header = (name if kind == "header" else "authorization").encode().lower()
    out: Fields = []
    for field, text in fields:
        if field.lower() == header:
            fresh = _replaced(entry, kind, text, value)
            used = used or fresh is not text
            text = fresh
        out.append((field, text))
    return out, query, used


def _replaced(entry: Entry, kind: str, text: bytes, value: bytes) -> bytes:
    scheme, _, rest = text.partition(b" ")
    if kind == "header":
        return text.replace(entry.placeholder, value) if entry.placeholder in text else text
    if kind == "bearer" and scheme.lower() in (b"bearer", b"token") and rest.strip() == entry.placeholder:
        return scheme + b" " + value
    if kind == "basic" and scheme.lower() == b"basic":
        try:
            plain = base64.b64decode(rest.strip(), validate=True)
        except (binascii.Error, ValueError):
            return text
        user, _, password = plain.partition(b":")
        wanted = entry.secret.user.encode()
        if password == entry.placeholder and (not wanted or user == wanted):
            return scheme + b" " + base64.b64encode(user + b":" + value)
    return text


def _spellings(text: bytes) -> list[bytes]:
    """Return how a server may say ``text`` when it repeats what it was told: as it is, in base64 (as in Basic), in a URL, in JSON."""
    quoted = [quote(text, safe=safe) for safe in ("", "/")]
    lower = [re.sub("%..", lambda found: found[0].lower(), q) for q in quoted]
    return [text, *_encoded(text), *(q.encode() for q in quoted + lower), text.replace(b"/", b"\\/")]


class Scrubber:
    """Takes the values of ``entries`` out of a stream: ``feed`` returns what may go on."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._pairs = [
            pair
            for e in entries
            if e.value
            for pair in dict.fromkeys(zip(_spellings(e.value), _spellings(e.placeholder), strict=True))
        ]
        self._held = b""

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def whole(self, data: bytes) -> bytes:
        """Return ``data``, which nothing of the same follows, without the values."""
        for value, placeholder in self._pairs:
            data = data.replace(value, placeholder)
        return data

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take ``data``; what could be the beginning of a value is kept back unless it is the ``last``."""
        if not self._pairs:
            return data
        data = self.whole(self._held + data)
        keep = 0 if last else max(_overlap(data, value) for value, _ in self._pairs)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]


def _overlap(data: bytes, value: bytes) -> int:
    """Return how long an end of ``data`` is that ``value`` begins with."""
    end = data[max(0, len(data) - len(value) + 1) :]
    at = end.find(value[:1])
    while at >= 0 and not value.startswith(end[at:]):
        at = end.find(value[:1], at + 1)
    return len(end) - at if at >= 0 else 0


async def prepare(ctx: Context) -> Vault:
    """Read every secret of the session and give out the placeholders."""
    entries = []
    for secret in ctx.authority.snapshot.secrets:
        try:
            value = await _value(secret, ctx.env)
            if not MIN_VALUE <= len(value) <= MAX_VALUE:
                raise OSError(f"a value of {len(value)} bytes")
            if secret.position != "basic" and any(b < 0x20 or b == 0x7F for b in value):
                raise OSError("a value with line ends or other characters that no field has")
            entries.append(Entry(secret, value, ""))
        except (OSError, TimeoutError) as e:
            entries.append(Entry(secret, None, str(e) or type(e).__name__))
            ctx.log.error("secret %s (%s): %s", secret.name, secret.source, entries[-1].fault)
        ctx.placeholders[secret.env] = entries[-1].placeholder.decode("latin-1")
    return Vault(entries)


async def _value(secret: Secret, env: dict[str, str]) -> bytes:
    if secret.kind == "env":
        if not env.get(secret.place[0]):
            raise OSError(f"the variable {secret.place[0]} is not set")
        return env[secret.place[0]].encode("utf-8", "surrogateescape")
    if secret.kind == "file":
        path = secret.place[0].replace("\\", "")
        with open(path, "rb") as f:
            return f.read(MAX_VALUE + 1).strip()
    command = list(secret.place)
    if secret.kind == "keyring":
        tool = shutil.which("secret-tool")
        if tool is None:
            raise OSError("secret-tool (package libsecret-tools) is not installed")
        command = [tool, "lookup", *secret.place]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=os.path.expanduser("~"), start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        out = await asyncio.wait_for(process.stdout.read(MAX_VALUE + 2), COMMAND_LIMIT)
        if await asyncio.wait_for(process.wait(), COMMAND_LIMIT):
            raise OSError(f"{command[0]} ended with status {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
    return out.strip()


def vault_of(ctx: Context) -> Vault:
    """Return the session's secrets."""
    found = ctx.parts.get("vault")
    return found if isinstance(found, Vault) else Vault()
