"""What a prompt offers for what is no file: hosts, requests, services on a bus, apps and secrets.

For a host: at this port, at every port, and the hosts of its domain; for a request: this one, those below its directory,
all of its method at this host; for a call: this one, its member, its interface. As with files, an edit counts when it
is an offer or lies inside one.
"""

from __future__ import annotations

from collections.abc import Iterable

from remit_daemon.broker.records import Scope
from remit_policy import hosts
from remit_policy.match import PatternError
from remit_policy.resources import exact, patterns

# Registries below which anybody may have a name: no domain to offer (publicsuffix.org; the common second levels).
_SECOND_LEVELS = (
    "co",
    "com",
    "net",
    "org",
    "gov",
    "edu",
    "ac",
    "or",
    "ne",
    "go",
    "gob",
    "nom",
    "id",
    "ltd",
    "plc",
    "me",
)
_SHARED_DOMAINS = (
    "github.io", "gitlab.io", "pages.dev", "workers.dev", "vercel.app", "netlify.app", "herokuapp.com", "web.app",
    "appspot.com", "amazonaws.com", "cloudfront.net", "azurewebsites.net", "windows.net", "blogspot.com", "fly.dev",
    "ngrok.io", "ngrok-free.app", "trycloudflare.com", "googleusercontent.com", "cloudapp.net", "duckdns.org",
)  # fmt: skip

# What saying yes to an app permission really means.
MEANINGS = {
    "app:screen": "it sees everything on your screen and can work every window",
    "app:input": "it types and clicks as you, in every window",
    "app:audio": "it hears your microphone and plays sound",
    "app:browser": "it acts in your browser, wherever you are logged in",
    "app:keys": "it signs and logs in with your keys, as you, while it runs",
}


def _domain(host: str) -> str:
    """Return the domain that ``host`` shares with its owner's other hosts, "" when that cannot be told."""
    labels = host.split(".")
    if hosts.is_address(host) or len(labels) < 3:
        return ""
    parent = ".".join(labels[1:])
    second = len(labels) == 3 and len(labels[2]) == 2 and labels[1] in _SECOND_LEVELS
    return "" if second or any(parent == d or parent.endswith("." + d) for d in _SHARED_DOMAINS) else parent


def resource_offers(op: str, text: str) -> tuple[Scope, ...]:
    """Return the scopes offered for ``op`` on the resource ``text``, narrow to broad; never none."""
    found = [Scope(exact(op, text), MEANINGS.get(text, "exactly this"))]
    if op == "connect" and text[:1] != "@":
        host, port = hosts.split(text)
        if host == hosts.LOCAL:
            return tuple(found)
        shown = f"[{host}]" if ":" in host else host
        why = hosts.is_special(host) if hosts.is_address(host) else ""
        kind = f", no address of the internet ({why})" if why else ""
        found[0] = Scope(found[0].pattern, f"{shown} at port {port}{kind}")
        found.append(Scope(shown, f"{shown} at every port"))
        if domain := _domain(host):
            found.append(Scope(f"*.{domain}:{port}", f"every host below {domain}, at port {port}"))
    elif op == "listen" and text.startswith(hosts.ANY + ":"):
        found[0] = Scope(
            found[0].pattern, f"port {text.rpartition(':')[2]}, for every machine that can reach this one"
        )
    elif op == "resolve" and (domain := _domain(text)):
        found.append(Scope(f"*.{domain}", f"every name below {domain}"))
    elif op == "request":
        method, _, rest = found[0].pattern.partition(" ")
        authority, _, path = rest.partition("/")
        top = path.rpartition("/")[0]
        if top:
            found.append(Scope(f"{method} {authority}/{top}/**", f"{method} of everything below /{top}"))
        found.append(Scope(f"{method} {authority}/**", f"every {method} at {authority}"))
    elif op in ("call", "emit"):
        words = text.split(" ")
        interface = words[1].rpartition(".")[0]
        found.append(Scope(f"{words[0]} {words[1]}", f"{words[1]} with any arguments"))
        if interface:
            found.append(Scope(f"{words[0]} {interface}.*", f"every member of {interface}"))
    return tuple(s for i, s in enumerate(found) if s.pattern not in [f.pattern for f in found[:i]])


def resource_within(op: str, edit: str, offered: Iterable[Scope]) -> bool:
    """Tell whether the pattern ``edit`` is one of ``offered``, or inside one that ends in a tree; when unsure, no."""
    offers = list(offered)
    try:
        parts = patterns(op, edit)
    except PatternError:
        return False
    if any(edit == s.pattern for s in offers):
        return True
    if len(parts) != 1:
        return False
    edited = parts[0]
    for scope in offers:
        (whole,) = patterns(op, scope.pattern)
        inside = whole[-1] is None and len(edited) >= len(whole) and edited[: len(whole) - 1] == whole[:-1]
        if inside:
            return True
    return False
