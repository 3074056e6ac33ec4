"""Whose a file is: what lies at a path now, held against what sessions are known to have left.

In order of certainty, each with its ``basis``:

    object    the very file that a session wrote (``kernel.objects``), whatever its name. With the content that was left: the session's.
              With another content: nobody is named, since who changed it is not known, a person or a program outside remit.
    content   another file with the content that a session left, younger than that: copied, restored, or made from the same source
    path      the name alone: what was done under it, with nothing to say that this is still the file. Where it is known
              that another file has the name now, nobody is named.

An inode's number that came again is another object, so it names nobody. Content tells a file only from some length on.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from remit_daemon.kernel.objects import born_ns, object_of
from remit_daemon.ledger.files import Trace, Unsettled
from remit_daemon.runtime.contents import digest
from remit_daemon.runtime.gitobjects import MADE

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

MIN_CONTENT = 16  # bytes: shorter files are alike by chance
MIN_ID = 7  # hexadecimal digits of a commit's id; what git itself shows at least


class Here(NamedTuple):
    """A regular file as it is now. ``fd`` is an O_PATH descriptor of it."""

    fd: int
    object: str
    st: os.stat_result


async def file(daemon: Daemon, path: str) -> dict[str, Any]:
    """Return whose ``path`` (absolute) is: ``{actor, agent, session, entries, basis, text}``, as ``wire.rpc`` says.

    ``entries`` are the acts known of it, the latest first, also where nobody is named. Raises LedgerError.
    """
    daemon.catch_up()
    here = _look(path)
    if here is None:
        return _by_name(daemon, path, None)
    try:
        return await _known(daemon, path, here)
    finally:
        os.close(here.fd)


def _look(path: str) -> Here | None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode):
        os.close(fd)
        return None
    return Here(fd, object_of(fd), st)


async def _known(daemon: Daemon, path: str, here: Here) -> dict[str, Any]:
    ledger = daemon.ledger
    writing = ledger.being_written(here.object) if here.object else None
    if writing is not None:
        return _named(
            daemon,
            writing,
            path,
            "object",
            "this very file, written a moment ago; its content was not looked at yet",
        )
    left = ledger.left_in(here.object) if here.object else None
    if left is not None and not left.sha256:
        return _named(
            daemon,
            left,
            path,
            "object",
            "this very file; whether its content has changed since is not known",
        )
    if left is not None and left.ctime_ns == here.st.st_ctime_ns:
        return _named(daemon, left, path, "object", _UNCHANGED)
    sum = await _digest(here) if left is None or left.size == here.st.st_size else ""
    if left is not None and left.sha256 == sum:
        return _named(daemon, left, path, "object", _UNCHANGED)
    if left is not None:
        return _nobody(_acts(daemon, left), "object", _CHANGED)
    copied = ledger.left_with(sum, path) if sum and here.st.st_size >= MIN_CONTENT else None
    if copied is not None:
        acts = _acts(daemon, copied)
        if acts and born_ns(here.fd) > acts[0]["time"] * 1e9:
            return _named(daemon, copied, path, "content", _COPY)
    return _by_name(daemon, path, here)


_UNCHANGED = "this very file, with the content that was left in it"
_CHANGED = (
    "this very file, but its content has changed since: by a person, by a program outside remit, or through a descriptor"
    " that was held open"
)
_COPY = "another file with the content that was left: copied, restored, or made from the same source"
_OTHER = "another file has this name now, from a person or a program outside remit"


async def _digest(here: Here) -> str:
    try:
        return (await asyncio.to_thread(digest, here.fd))[0]
    except (OSError, ValueError):
        return ""  # unreadable, too big, or changing: not to be known by its content


def _by_name(daemon: Daemon, path: str, here: Here | None) -> dict[str, Any]:
    found = daemon.ledger.who(path)
    acts = found["entries"]
    if not acts:
        return found | {"basis": ""}
    last = acts[0]
    if here is not None:
        gone = last["op"] in ("delete", "rename") and last["path"] == path != last["path2"]
        names = {path, *(act["path"] for act in acts)}
        if gone or (here.object and any(daemon.ledger.known_at(name, acts[-1]["seq"]) for name in names)):
            return _nobody(acts, "path", _OTHER)
    return found | {"basis": "path", "text": "by its name alone"}


def _acts(daemon: Daemon, of: Trace | Unsettled) -> list[dict[str, Any]]:
    """Return what was done to the file while it was the session's, the latest first."""
    found: list[dict[str, Any]] = daemon.ledger.who(of.path, of.row if isinstance(of, Trace) else None)[
        "entries"
    ]
    return found


def _named(daemon: Daemon, of: Trace | Unsettled, path: str, basis: str, text: str) -> dict[str, Any]:
    if of.path != path:
        text += f"; it was left as {of.path}"
    acts = _acts(daemon, of)
    return {
        "actor": "agent",
        "agent": of.agent,
        "session": of.session,
        "entries": acts,
        "basis": basis,
        "text": text,
    }


def _nobody(acts: list[dict[str, Any]], basis: str, text: str) -> dict[str, Any]:
    return {"actor": "", "agent": "", "session": "", "entries": acts, "basis": basis, "text": text}


def commit(daemon: Daemon, id: str) -> dict[str, Any]:
    """Return whose the commit is whose id (hexadecimal, MIN_ID digits or more) this is, as ``file`` does.

    It is whose session first wrote its object, unless that may have been a fetch. Raises ValueError when it is no id, or means several commits.
    """
    id = id.lower()
    if len(id) < MIN_ID or len(id) > 64 or set(id) - set("0123456789abcdef"):
        raise ValueError(f"a commit is {MIN_ID} to 64 hexadecimal digits")
    daemon.catch_up()
    acts = daemon.ledger.commits(id)
    if len({act["note"].partition(" ")[0] for act in acts}) > 1:
        raise ValueError(f"{id} means several commits; give more of it")
    if not acts:
        return _nobody([], "", NO_COMMIT)
    made = [act for act in acts if act["note"].partition(" ")[2].startswith(MADE)]
    text = (made or acts)[0]["note"].partition(" ")[2]
    if not made:
        return _nobody(acts, "object", text)
    first = {name: made[0][name] for name in ("actor", "agent", "session")}
    return first | {"entries": acts, "basis": "object", "text": text}


NO_COMMIT = "no session wrote this commit as an object of its own; one that came in a pack (a fetch, a clone) is not known here"
