"""The values of a policy document: patterns, hosts, arguments, durations, rates and time windows.

Each ``check_`` returns its text or raises ValueError, each ``parse_`` what the text stands for. The message of
the error holds what is wrong, what was expected and perhaps a key, divided by SEPARATOR: so they travel
through pydantic's messages.
"""

from __future__ import annotations

import re

from remit_policy.limits import MONEY
from remit_policy.match import MAX_EXPANSIONS, PatternError, components, escape, expand
from remit_policy.match import component as token
from remit_policy.resources import APPS, patterns

SEPARATOR = "\x1f"
MAX_SHOWN = 120  # characters of a faulty value that an error repeats
VARIABLES = (
    "PROJECT", "HOME", "TMPDIR",
    "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
)  # fmt: skip
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_SCOPE = re.compile(r"[a-z][a-z0-9_-]*(:[a-z][a-z0-9_-]*)?")
_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "day": 86400, "d": 86400}


def bad(message: str, expected: str, key: str = "") -> ValueError:
    """Return the error for a fault; ``key`` is the one to blame, where the value itself is a table."""
    return ValueError(SEPARATOR.join(t.replace(SEPARATOR, "?") for t in (message, expected, key)))


def check_scope(text: str) -> str:
    """Return the name of a token's scope, or of a role of scopes."""
    if not _SCOPE.fullmatch(text):
        raise bad(
            f"{quoted(text)} is no scope",
            "a scope such as files:read, or a role's name; none stands for all",
        )
    return text


def quoted(text: str) -> str:
    """Return ``text`` in quotes, its middle left out where it is long."""
    half = MAX_SHOWN // 2
    return f"'{text}'" if len(text) <= MAX_SHOWN else f"'{text[:half]}…{text[-half:]}'"


def alternatives(text: str) -> int:
    """Return for how many patterns the braces of ``text`` stand, repeats counted."""
    outer: list[tuple[int, int]] = []
    done, product = 0, 1
    for c in _ESCAPED.sub("", text):
        if c == "{":
            outer.append((done, product))
            done, product = 0, 1
        elif c == "," and outer:
            done, product = done + product, 1
        elif c == "}" and outer:
            inner = done + product
            done, product = outer.pop()
            product = min(product * inner, MAX_EXPANSIONS + 1)
    return product


def expand_variables(text: str, values: dict[str, str] | None) -> str:
    """Return pattern ``text`` with a leading ``~`` or ``$NAME`` put in; None for values: only check.

    Raises PatternError for variables that are unknown, have no value, or do not stand at the start.
    """
    head, slash, tail = text.partition("/")
    if "$" in _ESCAPED.sub("", tail) or ("$" in head and not head.startswith("$")):
        raise PatternError(
            "a variable in the middle of a pattern",
            "variables only at the start, or \\$ for the character itself",
        )
    if head == "~":
        name = "HOME"
    elif head.startswith("~"):
        raise PatternError(f"'{head}' is another person's home", "~ or an absolute path")
    elif head.startswith("$"):
        name = head[1:].removeprefix("{").removesuffix("}")
        if name not in VARIABLES:
            raise PatternError(f"unknown variable '{head}'", "one of $" + ", $".join(VARIABLES))
    else:
        return text
    if values is None:
        return "/v" + slash + tail
    if not values.get(name):
        raise PatternError(f"'${name}' has no value here", "a variable that this session has")
    value = "/".join(escape(p) for p in values[name].rstrip("/").split("/"))
    return value + slash + tail if value or slash else "/"


def check_pattern(text: str) -> str:
    """Return ``text`` if it is a path pattern. Raises ValueError."""
    try:
        if not text:
            raise PatternError("an empty pattern", "a path pattern")
        for one in expand(text):
            components(expand_variables(one, None))
    except PatternError as e:
        raise bad(f"{e} in {quoted(text)}", e.expected) from None
    return text


def _checked(op: str, text: str, shown: str) -> None:
    try:
        patterns(op, text)
    except PatternError as e:
        raise bad(f"{e} in {quoted(shown)}", e.expected) from None


def is_socket(text: str) -> bool:
    """Tell whether a pattern among hosts is a Unix socket's path."""
    return text.startswith(("/", "~", "$"))


def check_host(text: str) -> str:
    """Return ``text`` if it is a pattern of hosts or of Unix sockets. Raises ValueError."""
    if is_socket(text):
        return check_pattern(text)
    if "://" in text:
        raise bad(f"a URL among hosts in {quoted(text)}", "the host alone, with :port if one is meant")
    _checked("connect", text, text)
    return text


def check_named_host(text: str) -> str:
    """Return ``text`` if it is a pattern of hosts, no socket. Raises ValueError."""
    if text.startswith(("/", "~", "$", "@")) or "://" in text:
        raise bad(f"{quoted(text)} is not a host", "a host, *.name or an address; :port if one is meant")
    _checked("connect", text, text)
    return text


def check_listener(text: str) -> str:
    """Return ``text`` if it is a pattern of addresses to listen on. Raises ValueError."""
    _checked("listen", text, text)
    return text


def check_name_of_host(text: str) -> str:
    """Return ``text`` if it is a pattern of names to resolve. Raises ValueError."""
    _checked("resolve", text, text)
    return text


def check_request_path(text: str) -> str:
    """Return ``text`` if it is a pattern of request paths. Raises ValueError."""
    if not text.startswith(("/", "**")):
        raise bad(f"{quoted(text)} is no request path", "a path that begins with /")
    _checked("request", "GET x" + (text if text[0] == "/" else "/" + text), text)
    return text


def check_method(text: str) -> str:
    """Return ``text`` if it is a method of HTTP, WEBSOCKET or ``*``. Raises ValueError."""
    if text != "*" and not (text.isascii() and text.replace("-", "").isalpha() and text == text.upper()):
        raise bad(f"{quoted(text)} is not a method", "GET, POST …, WEBSOCKET, or *")
    return text


def check_member(text: str) -> str:
    """Return ``text`` if it is a pattern of members on a bus. Raises ValueError."""
    _checked("call", "x.y " + text, text)
    return text


def check_bus_name(text: str) -> str:
    """Return ``text`` if it is a pattern of names on a bus. Raises ValueError."""
    _checked("see", text, text)
    return text


def check_app(text: str) -> str:
    """Return ``text`` if it is an app permission. Raises ValueError."""
    if text not in APPS:
        raise bad(f"{quoted(text)} is no app permission", "one of " + ", ".join(APPS))
    return text


def check_position(text: str) -> str:
    """Return ``text`` if it says where in a request a secret belongs. Raises ValueError."""
    kind, colon, name = text.partition(":")
    good = bool(name) and name.isascii() and not any(c in ' \t\r\n:;,="' or c < " " for c in name)
    if not (text in ("bearer", "basic") or (colon and kind in ("header", "query") and good)):
        raise bad(f"{quoted(text)} is no place for a secret", "bearer, basic, header:NAME or query:NAME")
    return text


def parse_money(text: str) -> int:
    """Return the millionths of ``0.02``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,6})(?:\.([0-9]{1,6}))?", text)
    if found:
        amount = int(found[1]) * MONEY + int((found[2] or "").ljust(6, "0"))
        if amount:
            return amount
    raise bad(f"{quoted(text)} is no amount of money", "a number with at most six decimals, as in 0.02")


def parse_spend(text: str) -> tuple[int, int]:
    """Return (millionths, seconds) of ``5/day``. Raises ValueError."""
    head, slash, tail = text.partition("/")
    if not slash:
        raise bad(f"{quoted(text)} is no limit of money", "money per time, as in 5/day or 2.50/h")
    return parse_money(head.strip()), parse_rate("1/" + tail.strip())[1]


def parse_budget(text: str) -> tuple[int, int]:
    """Return (bytes, seconds) of ``10MB/day``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}) *([kMG]?)B */ *([0-9]{0,6})([a-z]+)", text)
    if found and found[4] in _UNITS:
        size = int(found[1]) * {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}[found[2]]
        seconds = int(found[3] or 1) * _UNITS[found[4]]
        if size and seconds:
            return size, seconds
    raise bad(f"{quoted(text)} is not a budget", "bytes per time, as in 10MB/day")


def check_name(text: str) -> str:
    """Return ``text`` if it is a glob on names. Raises ValueError."""
    try:
        for one in expand(text):
            token(one)
    except PatternError as e:
        raise bad(f"{e} in {quoted(text)}", e.expected) from None
    if not text or "/" in text:
        raise bad(f"{quoted(text)} is not a name", "an agent's name; * and ? are wildcards")
    return text


def check_argv(text: str) -> str:
    """Return ``text`` if it is a pattern of arguments. Raises ValueError."""
    try:
        for one in text.split():
            for part in expand(one):
                token(part)
    except PatternError as e:
        raise bad(f"{e} in {quoted(text)}", e.expected) from None
    return text


def parse_duration(text: str) -> float:
    """Return the seconds of ``25s``, ``2min``, ``1h``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) *([a-z]+)", text)
    if not found or found[2] not in _UNITS or float(found[1]) <= 0:
        raise bad(f"{quoted(text)} is not a duration", "a number and s, min, h or d, as in 25s")
    return float(found[1]) * _UNITS[found[2]]


def parse_rate(text: str) -> tuple[int, int]:
    """Return (uses, seconds) of ``200/min``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}) */ *([0-9]{0,6})([a-z]+)", text)
    if found and found[3] in _UNITS:
        uses, seconds = int(found[1]), int(found[2] or 1) * _UNITS[found[3]]
        if uses and seconds:
            return uses, seconds
    raise bad(f"{quoted(text)} is not a rate", "uses per time, as in 200/min or 5/10s")


def parse_window(text: str) -> tuple[int, int]:
    """Return (start, end) in minutes of the day of ``09:00-17:30``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})", text)
    if found:
        h1, m1, h2, m2 = map(int, found.groups())
        if h1 < 24 and m1 < 60 and m2 < 60 and (h2 < 24 or (h2, m2) == (24, 0)) and (h1, m1) != (h2, m2):
            return h1 * 60 + m1, h2 * 60 + m2
    raise bad(f"{quoted(text)} is not a time window", "start-end of the local day, as in 09:00-17:30")
