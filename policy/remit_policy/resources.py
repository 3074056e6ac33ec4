"""Resources that are no files: how they are written, and how the trie knows them.

A rule's pattern, and a request, become components below a name that no path has, so that one matcher and one
law of specificity serve all. What a resource looks like (and a pattern, where wildcards and braces may stand):

    connect    host:port · a Unix socket's path · @name (abstract)       host · *.name · address/bits · *; a port or none
    listen     localhost:port · *:port · address:port
    resolve    name
    request    METHOD scheme://host[:port]/path                          METHOD host[:port]/path; METHOD may be *
    see own    [system:]name                                             org.x.* is every name below org.x
    call emit  [system:]name interface.member /object [argument…]        name interface.member[@/object][(argument, …)]
    use        app:name · secret:name · token:scope

A host without a port is the host at every port. ``*`` is every name, but no address and not ``localhost``: these are
reached only where a rule names them.
"""

from __future__ import annotations

from remit_policy import hosts
from remit_policy.match import DSTAR, PatternError, component, components, expand
from remit_policy.model import FILE_OPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_policy.match import Glob

    Parts = list[str | Glob | None]

HOST_OPS = ("connect", "listen", "resolve")
BUS_OPS = ("see", "call", "emit", "own")
UNSPECIFIED = ("0.0.0.0", "::", "[::]")  # noqa: S104 - addresses by which a listener means every one
APPS = ("screen", "input", "audio", "browser", "keys")
SYSTEM = "system:"  # before the name of a service on the system bus

EXAMPLES = {
    "connect": "such as pypi.org:443, localhost:8080, /run/x.sock or @name",
    "listen": "such as localhost:8080 or *:80",
    "resolve": "such as pypi.org",
    "request": "such as 'GET https://api.github.com/repos'",
    "see": "such as org.mpris.MediaPlayer2.vlc",
    "own": "such as org.example.App",
    "call": "such as 'org.x.Name org.x.Interface.Member /org/x'",
    "emit": "such as 'org.x.Name org.x.Interface.Signal /org/x'",
    "use": "such as app:screen, secret:NAME or token:files:read",
}

# Components that no path and no name holds.
_HOST, _HTTP, _BUS, _USE, _ABSTRACT = "\0host", "\0http", "\0bus", "\0use", "\0abstract"
_NAME, _V4, _V6, _LOCAL, _EVERY = "\0name", "\0v4", "\0v6", "\0local", "\0every"
_METHOD, _MEMBER, _OBJECT, _ARGUMENTS = "\0", "\0member", "\0object", "\0arguments"
_ANY_PORT = ":*"
_SLASH = "\1"  # stands for / in what is one component whatever it holds
_MAX_PREFIXES = 256  # patterns that one address/bits may stand for
_WRONG_HOST = "a host name, *.name, an address, address/bits, and :port if one is meant"
_WRONG_BUS = (
    "interface.member, interface.*, or *; then @/object/path and (first, arguments) if these are meant"
)


def is_path(op: str, text: str) -> bool:
    """Tell whether ``text`` names a place in the file system for ``op``."""
    return op in FILE_OPS or op == "exec" or (op == "connect" and text[:1] == "/")


def key(op: str, text: str) -> str:
    """Return the pseudo path of the resource ``text`` of ``op``, "" when it is none."""
    if "\0" in text or _SLASH in text:
        return ""
    try:
        if op in ("connect", "listen"):
            if text[:1] == "@":
                return f"/{_ABSTRACT}/{text[1:]}"
            host, port = hosts.split(text)
            if op == "listen" and text.rpartition(":")[0] in UNSPECIFIED:
                host = hosts.ANY
            return f"/{_HOST}{_host_key(host)}/:{port}"
        if op == "resolve":
            return f"/{_HOST}{_host_key(hosts.canonical(text))}/:"
        if op == "request":
            return _request_key(text)
        if op in BUS_OPS:
            return _bus_key(op, text)
        kind, colon, name = text.partition(":")
        return f"/{_USE}/{kind}/{name}" if colon and kind and name and "/" not in text else ""
    except (hosts.HostError, ValueError):
        return ""


def _host_key(host: str) -> str:
    if host == hosts.LOCAL:
        return f"/{_LOCAL}"
    if host == hosts.ANY:
        return f"/{_EVERY}"
    if hosts.is_address(host):
        raw = hosts.packed(host)
        if hosts.is_local(raw):
            return f"/{_LOCAL}"
        v4 = raw[12:] if ":" not in host else b""
        return f"/{_V4}/" + "/".join(map(str, v4)) if v4 else f"/{_V6}/" + "/".join(raw.hex())
    return f"/{_NAME}/" + "/".join(reversed(host.split(".")))


def _request_key(text: str) -> str:
    method, _, url = text.partition(" ")
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if not method or "/" in method or not slash or scheme not in ("http", "https"):
        return ""
    if ":" not in authority.rpartition("]")[2]:
        authority += ":443" if scheme == "https" else ":80"
    host, port = hosts.split(authority)
    return f"/{_HTTP}{_host_key(host)}/:{port}/{_METHOD}{method}/{path}"


def host_of(request: str) -> tuple[str, int] | None:
    """Return the canonical host and the port of the resource ``request``, None when it is none."""
    if not key("request", request):
        return None
    scheme, _, rest = request.partition(" ")[2].partition("://")
    authority = rest.partition("/")[0]
    if ":" not in authority.rpartition("]")[2]:
        authority += ":443" if scheme == "https" else ":80"
    return hosts.split(authority)


def request_root(host: str, port: int) -> str:
    """Return the pseudo path below which all requests to the canonical ``host`` at ``port`` are."""
    return f"/{_HTTP}{_host_key(host)}/:{port}"


def _bus_key(op: str, text: str) -> str:
    bus = "session"
    if text.startswith(SYSTEM):
        bus, text = "system", text[len(SYSTEM) :]
    words = text.split(" ")
    name = words[0].replace(".", "/")
    if "/" in words[0] or "" in words[0].split("."):
        return ""
    head = f"/{_BUS}/{bus}/{name}"
    if op in ("see", "own"):
        return head if len(words) == 1 else ""
    if len(words) < 3 or words[2][:1] != "/" or "/" in words[1] or "" in words[1].split("."):
        return ""
    arguments = "/".join(_argument(w) for w in words[3:])
    member = words[1].replace(".", "/")
    return f"{head}/{_MEMBER}/{member}/{_OBJECT}{words[2].rstrip('/')}/{_ARGUMENTS}/{arguments}".rstrip("/")


def _argument(text: str) -> str:
    text = text.replace("/", _SLASH)
    return text if text not in ("", ".", "..") else text + _SLASH


def bus_resource(
    system: bool, name: str, member: str = "", path: str = "", arguments: tuple[str, ...] = ()
) -> str:
    """Return the resource of a message on a bus; blanks in arguments are written as ``%20``, ``%`` as ``%25``."""
    words = [(SYSTEM if system else "") + name]
    if member:
        words += [member, path, *(a.replace("%", "%25").replace(" ", "%20") for a in arguments)]
    return " ".join(words)


def bus_root(system: bool, name: str) -> str:
    """Return the pseudo path below which all calls to the service ``name`` are."""
    return f"/{_BUS}/{'system' if system else 'session'}/{name.replace('.', '/')}/{_MEMBER}"


def name_part(parts: Parts) -> Parts:
    """Return of a call's pattern what is about the service."""
    return parts[: parts.index(_MEMBER)] if _MEMBER in parts else parts


def patterns(op: str, text: str) -> list[Parts]:
    """Return the components of every alternative of the pattern ``text`` for ``op``. Raises PatternError."""
    out: list[Parts] = []
    for one in expand(text):
        if "\0" in one or _SLASH in one:
            raise PatternError("a control character in a pattern", "printable text")
        if is_path(op, one) or one.startswith("**"):
            out.append(components(one))
        elif op in HOST_OPS:
            out += _host_patterns(op, one)
        elif op == "request":
            out += _request_patterns(one)
        elif op in BUS_OPS:
            out.append(_bus_pattern(op, one))
        else:
            kind, colon, name = one.partition(":")
            if not colon or not kind or not name or "/" in one:
                raise PatternError(f"'{one}' is nothing that is used", "app:NAME or secret:NAME")
            out.append([_USE, component(kind), component(name)])
    return out


def _host_patterns(op: str, text: str) -> list[Parts]:
    if text[:1] == "@":
        if op != "connect" or len(text) < 2:
            raise PatternError("not a host", _WRONG_HOST)
        return [[_ABSTRACT, *(component(p) for p in text[1:].split("/") if p)]]
    host, port = _cut_port(text)
    if op == "resolve":
        if port != _ANY_PORT:
            raise PatternError("a port of a name to resolve", "the name alone")
        return [[_HOST, *parts, component(_ANY_PORT)] for parts in _hosts(host)]
    if op == "listen" and host in (hosts.ANY, *UNSPECIFIED):
        return [[_HOST, _EVERY, component(port)]]
    return [[_HOST, *parts, component(port)] for parts in _hosts(host)]


def _cut_port(text: str) -> tuple[str, str]:
    """Return the host pattern and the component of its port."""
    text = text.replace("\\[", "[").replace("\\]", "]")
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port or (":" in host and host[:1] != "["):
        return text, _ANY_PORT
    if port == "*":
        return host, _ANY_PORT
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise PatternError(f"'{port}' is not a port", "a number from 1 to 65535, or *")
    return host, f":{int(port)}"


def _hosts(text: str) -> list[Parts]:
    """Return the components of the host pattern ``text``, which has no port. Raises PatternError."""
    if text == "*":
        return [[_NAME, DSTAR]]
    if text.isascii() and text.isdigit():
        raise PatternError("a number alone", "a host before it, as in localhost:8080")
    address, slash, bits = text.partition("/")
    if slash:
        return _prefix(address, bits)
    deep = text.startswith("*.")
    name = text[2:] if deep else text
    try:
        if "*" not in name and "?" not in name:
            host = hosts.canonical(name)
            if hosts.is_address(host) or host == hosts.LOCAL:
                if deep and host != hosts.LOCAL:
                    raise hosts.HostError("an address behind '*.'")
                return [[p for p in _host_key(host).split("/") if p]]
            name = host
    except hosts.HostError as e:
        raise PatternError(f"not a host: {e}", _WRONG_HOST) from None
    labels = name.lower().removesuffix(".").split(".")
    if not all(labels) or any(c.isspace() or c in "\\/[]:@" for c in name):
        raise PatternError("not a host", _WRONG_HOST)
    parts: Parts = [_NAME]
    for label in reversed(labels):
        if label == "**":
            raise PatternError("'**' in a host", "*.name for every host below it")
        parts.append(component(label))
    return [[*parts, component("*"), DSTAR]] if deep else [parts]


def _prefix(address: str, bits: str) -> list[Parts]:
    """Return the patterns that together are the network ``address/bits``."""
    try:
        host = hosts.canonical(address)
        raw = hosts.packed(host)
        size = int(bits) if bits.isdigit() and len(bits) < 4 else -1
        if not hosts.is_address(host):
            raise hosts.HostError("no address")
    except (hosts.HostError, ValueError):
        raise PatternError("not a network", "address/bits, as in 10.0.0.0/8") from None
    v4 = ":" not in host
    units = list(raw[12:]) if v4 else [int(c, 16) for c in raw.hex()]
    each, top = (8, _V4) if v4 else (4, _V6)
    if not 0 <= size <= each * len(units):
        raise PatternError("not a network", "address/bits, as in 10.0.0.0/8")
    whole, rest = divmod(size, each)
    show = str if v4 else "{:x}".format
    head: Parts = [top, *(show(u) for u in units[:whole])]
    if not rest:
        return [[*head, DSTAR] if whole < len(units) else head]
    first = units[whole] >> (each - rest) << (each - rest)
    found = [[*head, show(first + i)] for i in range(1 << (each - rest))]
    return [[*f, DSTAR] if whole + 1 < len(units) else f for f in found][:_MAX_PREFIXES]


def _request_patterns(text: str) -> list[Parts]:
    method, blank, url = text.partition(" ")
    url = url.strip()
    if not blank or not url or (not method.replace("-", "").isalpha() and method != "*"):
        raise PatternError("not a request", "METHOD host/path")
    at = url.find("/", url.rfind("]") + 1)
    host, port = _cut_port(url[:at] if at >= 0 else url)
    path = url[at:] if at >= 0 else "/**"
    verb = component("\0*") if method == "*" else _METHOD + method
    return [[_HTTP, *parts, component(port), verb, *components(path)] for parts in _hosts(host)]


def _bus_pattern(op: str, text: str) -> Parts:
    bus = "session"
    if text.startswith(SYSTEM):
        bus, text = "system", text[len(SYSTEM) :]
    name, _, rest = text.partition(" ")
    parts: Parts = [_BUS, bus, *_dotted(name)]
    if op in ("see", "own"):
        if rest:
            raise PatternError("more than a name", "the name alone")
        return parts
    if not rest or rest == "*":
        return [*parts, _MEMBER, DSTAR]
    rest, paren, arguments = rest.partition("(")
    if paren and arguments[-1:] != ")":
        raise PatternError("a '(' without its ')'", _WRONG_BUS)
    member, at, path = rest.strip().partition("@")
    if member != "*" and member and "." not in member and " " not in member:
        raise PatternError("a member of no interface", _WRONG_BUS)
    parts += [_MEMBER, DSTAR] if member == "*" else [_MEMBER, *_dotted(member, below=False)]
    if not at and not arguments:
        return [*parts, DSTAR]
    parts += [_OBJECT, *components(path)] if at else [DSTAR]
    parts.append(_ARGUMENTS)
    if arguments:
        parts += [component(_argument(a.strip()).replace("**", "*")) for a in arguments[:-1].split(",")]
    return [*parts, DSTAR]


def _dotted(text: str, below: bool = True) -> Parts:
    """Return the components of a dotted name; with ``below`` a last ``*`` is every name below."""
    if text == "*" and below:
        return [DSTAR]
    names = text.split(".")
    if not all(names) or any(c.isspace() or c in "/@(){}" for c in text):
        raise PatternError(
            f"'{text}' is no name on a bus", "names divided by dots; * for one, .* at the end for all below"
        )
    parts: Parts = [component(n) for n in names]
    return [*parts, DSTAR] if below and names[-1] == "*" else parts


def exact(op: str, text: str) -> str:
    """Return the pattern that stands for exactly the resource ``text``."""
    from remit_policy.match import escape

    if op == "request":
        method, _, url = text.partition(" ")
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        if ":" not in authority.rpartition("]")[2]:
            authority += ":443" if scheme == "https" else ":80"
        return f"{method} {authority}/{escape(path)}"
    if op in ("call", "emit"):
        words = text.split(" ")
        arguments = f"({', '.join(map(escape, words[3:]))})" if words[3:] else ""
        return f"{words[0]} {words[1]}@{escape(words[2])}{arguments}"
    if op in HOST_OPS and text[:1] not in ("/", "@"):
        return text
    return escape(text)
