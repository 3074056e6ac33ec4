"""Credentials that an agent uses and never has.

Each ``[secret.NAME]`` has a placeholder of the value's own shape; the agent finds it in its environment. In a request to a host that the
secret is bound to, at the place that it is bound to, over TLS that we verified (or to this machine), the value takes the
placeholder's place. A placeholder seen anywhere else is refused and recorded as an attempt to take it out. What comes back is
scrubbed of the value, whose length is the placeholder's, so nothing else changes.
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
from urllib.parse import quote, unquote_plus

from remit_policy import hosts
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, USER, Rule, Secret, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remit_daemon.gateway.context import Context

    Fields = list[tuple[bytes, bytes]]
    Pair = tuple[bytes, bytes]  # what is put, and for what

MAX_VALUE = 1 << 14  # bytes; a service account's key in JSON is some 2 kB
COMMAND_LIMIT = (
    20.0  # seconds that a command or a keyring may take; it may ask the person to unlock something
)
MIN_VALUE = 8  # characters; a shorter one would be found by chance in what is scrubbed
_KEPT = 16  # characters of a value in which its fixed beginning is looked for, as in ``sk-ant-api03-`` or ``ghp_``
_WORD = re.compile("[A-Za-z]{1,8}[0-9]{0,2}")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_VARIED = string.digits + string.ascii_letters


class Entry:
    """One secret: its ``value`` (None when it could not be read, and ``fault`` says why) and its ``placeholder``."""

    def __init__(self, secret: Secret, value: bytes | None, fault: str) -> None:
        self.secret = secret
        self.value = value
        self.fault = fault
        self.placeholder = shaped(value.decode("latin-1") if value else "remit-" + "x" * 34).encode(
            "latin-1"
        )
        self.forms = _forms(self.placeholder)
        rules = tuple(Rule(USER, ALLOW, "connect", host) for host in secret.hosts)
        self._hosts = Engine(Snapshot("", rules))

    def bound_to(self, host: str, port: int) -> bool:
        """Tell whether this secret belongs to the canonical ``host`` at ``port``."""
        return self._hosts.decide("connect", hosts.join(host, port)).verdict == ALLOW


def shaped(value: str) -> str:
    """Return a random text that looks like ``value``: its fixed beginning, its length, its kinds of characters.

    Where most of a value is neither letter nor digit, what is left of it would tell too much: then all is random.
    """
    head = _fixed(value)
    rest = value[head:]
    varied = sum(c in _VARIED for c in rest)
    if varied < MIN_VALUE or varied * 2 < len(rest):
        return "".join(secrets.choice(_VARIED) for _ in value)
    out = value[:head]
    for c in rest:
        for kind in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
            if c in kind:
                c = secrets.choice(kind)
                break
        out += c if c.isascii() else secrets.choice(string.ascii_lowercase)
    return out if out != value else shaped(value)


def _fixed(value: str) -> int:
    """Return how long the beginning of ``value`` is that names its kind, 0 for none.

    It is made of short words (``sk-ant-api03-``, ``github_pat_``), and what follows is long and no words.
    """
    size = max((value.rfind(c, 0, _KEPT) for c in "-_"), default=-1) + 1
    words = value[:size].replace("_", "-").split("-")[:-1]
    rest = value[size:]
    named = all(_WORD.fullmatch(w) for w in words)
    random = len(rest) >= _KEPT and any(c in string.digits + string.ascii_uppercase for c in rest)
    return size if named and random else 0


class Vault:
    """All secrets of a session."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)

    def bound(self, host: str, port: int) -> list[Entry]:
        """Return the secrets that belong to a host."""
        return [e for e in self.entries if e.bound_to(host, port)]

    def found_in(self, data: bytes) -> Entry | None:
        """Return the secret whose placeholder is in ``data``: as it is, in base64 or as a query has it."""
        for entry in self.entries:
            if any(form in data for form in entry.forms):
                return entry
        return None

    def tail(self) -> int:
        """Return how many bytes of what was looked at a placeholder could still begin in."""
        return max((len(form) for e in self.entries for form in e.forms), default=1) - 1


def _forms(text: bytes) -> list[bytes]:
    """Return ``text`` as it is and as a query has it, and what is sure to stand in base64 of a text that holds it."""
    out = [text]
    if (quoted := quote(text, safe="").encode()) != text:
        out.append(quoted)
    for skip in range(3):  # the alignments
        whole = base64.b64encode(b"\0" * skip + text)
        part = whole[(skip * 8 + 5) // 6 : len(text) * 8 // 6 - 1]
        out.append(part)
        if (other := part.translate(_URL_SAFE)) != part:
            out.append(other)
    return out


def put(entry: Entry, fields: Fields, query: str) -> tuple[Fields, str, list[Pair]]:
    """Return fields and query with the value at its bound place, and what was put for what; empty when nothing was."""
    kind, _, name = entry.secret.position.partition(":")
    value = entry.value
    assert value is not None
    found: list[Pair] = []
    if kind == "query":
        parts = query.split("&")
        for at, part in enumerate(parts):
            key, _, text = part.partition("=")
            if (
                unquote_plus(key) == name
                and unquote_plus(text, "latin-1").encode("latin-1") == entry.placeholder
            ):
                fresh = quote(value, safe="")
                found.append((fresh.encode(), text.encode("latin-1")))
                parts[at] = f"{key}={fresh}"
        return fields, "&".join(parts), found
    header = (name if kind == "header" else "authorization").encode().lower()
    out: Fields = []
    for field, said in fields:
        if field.lower() == header and (pair := _replaced(entry, kind, said, value)) is not None:
            found.append(pair)
            said = said.replace(pair[1], pair[0])
        out.append((field, said))
    return out, query, found


def _replaced(entry: Entry, kind: str, text: bytes, value: bytes) -> Pair | None:
    """Return what is to be put for which part of a field's ``text``, None when the placeholder is not where it belongs."""
    if kind == "header":
        return (value, entry.placeholder) if entry.placeholder in text else None
    scheme, _, rest = text.partition(b" ")
    rest = rest.strip()
    if kind == "bearer" and scheme.lower() in (b"bearer", b"token") and rest == entry.placeholder:
        return value, rest
    if kind == "basic" and scheme.lower() == b"basic":
        try:
            plain = base64.b64decode(rest, validate=True)
        except (binascii.Error, ValueError):
            return None
        user, _, password = plain.partition(b":")
        wanted = entry.secret.user.encode()
        if password == entry.placeholder and (not wanted or user == wanted):
            return base64.b64encode(user + b":" + value), rest
    return None


def _spelled(value: bytes, placeholder: bytes) -> list[Pair]:
    """Return how a server may say ``value`` when it repeats what it was told, each with what takes its place.

    As it is, in base64 (as in Basic), in a URL, in JSON. What takes a place is as long, or a body would change its length.
    """
    pairs = dict.fromkeys(zip(_spellings(value), _spellings(placeholder), strict=True))
    return [p for p in pairs if len(p[0]) == len(p[1])]


def _spellings(text: bytes) -> list[bytes]:
    quoted = [quote(text, safe=safe) for safe in ("", "/")]
    lower = [re.sub("%..", lambda found: found[0].lower(), q) for q in quoted]
    encoded = []
    for skip in range(
        3
    ):  # base64 of a text that holds it, by where it begins there: what is sure to stand there
        whole = base64.b64encode(b"\0" * skip + text)
        encoded.append(whole[(skip * 8 + 5) // 6 : (skip + len(text)) * 8 // 6])
    return [text, *encoded, *(q.encode() for q in quoted + lower), text.replace(b"/", b"\\/")]


class Scrub:
    """Takes values out of what comes back: of the secrets ``bound`` to the host, and as they were sent.

    ``feed`` returns what of a stream may go on. What takes a value's place is as long.
    """

    def __init__(self, bound: Iterable[Entry]) -> None:
        self._pairs = [pair for e in bound if e.value for pair in _spelled(e.value, e.placeholder)]
        self._held = b""
        self.used = False

    @property
    def holds(self) -> bool:
        """Whether something is kept back that could be the beginning of a value."""
        return bool(self._held)

    def sent(self, pairs: list[Pair]) -> None:
        """Take note of values that went out, in the form in which they did."""
        self.used = True
        for value, placeholder in pairs:
            self._pairs += [p for p in _spelled(value, placeholder) if p not in self._pairs]
        self._pairs.sort(key=lambda p: -len(p[0]))  # the whole before what is surely a part of it

    def whole(self, data: bytes) -> bytes:
        """Return ``data``, which stands for itself, without values."""
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
                raise OSError(f"a value of {len(value)} bytes, and {MIN_VALUE} to {MAX_VALUE} are expected")
            if secret.position != "basic" and any(b < 0x20 or b == 0x7F for b in value):
                raise OSError("a value with a line break or another control character")
            entries.append(Entry(secret, value, ""))
        except (OSError, TimeoutError) as e:
            entries.append(Entry(secret, None, _fault(secret, e)))
            ctx.log.error("secret %s (%s): %s", secret.name, secret.source, entries[-1].fault)
        ctx.placeholders[secret.env] = entries[-1].placeholder.decode("latin-1")
    return Vault(entries)


def _fault(secret: Secret, e: OSError | TimeoutError) -> str:
    """Return why a secret has no value, in a person's words."""
    if isinstance(e, TimeoutError) and e.errno is None:
        return f"{secret.place[0]} did not end within {COMMAND_LIMIT:g} s"
    return f"{e.filename}: {e.strerror.lower()}" if e.filename and e.strerror else str(e)


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
        async with asyncio.timeout(COMMAND_LIMIT):
            out = await process.stdout.read(MAX_VALUE + 2)
            status = await process.wait()
        if status:
            raise OSError(f"{command[0]} ended with status {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
    return out.strip()


def vault_of(ctx: Context) -> Vault:
    """Return the session's secrets."""
    found = ctx.parts.get("vault")
    return found if isinstance(found, Vault) else Vault()
