"""What Linux refuses this account whatever remit says: there is nothing to ask a person about it.

An agent's probes (a package manager that tries the system's directories first, a cache next to a program of root's) are
refused as they would be without remit, at once. Looked at on the pinned object, and only to refuse: what the answer is
about is never done here, so nothing is won by changing a mode in between.
"""

from __future__ import annotations

import os

from remit_daemon.supervisor.resolve import Pin, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_daemon.supervisor.act import Act

_NAMES = ("create", "delete")  # they change the directory
_WANTS = {"read": os.R_OK, "list": os.R_OK, "write": os.W_OK}


def refuses(act: Act) -> bool:
    """Say whether one of the act's accesses to files is refused to this account by modes and owners (access(2)).

    False where nothing pinned tells it: connections, programs, and links that are acted on themselves.
    """
    return any(
        _refuses(op, thing) for op, path in act.accesses for thing in act.held if _is_of(thing, path)
    )


def _is_of(thing: object, path: str) -> bool:
    return isinstance(thing, (Pin, Place)) and thing.path == path


def _refuses(op: str, thing: object) -> bool:
    if isinstance(thing, Place):
        return op in _NAMES and not _may(thing.parent, os.W_OK | os.X_OK)
    assert isinstance(thing, Pin)
    if op == "metadata":  # chmod(2), utimensat(2): the owner's, or in part of who may write
        return thing.st.st_uid != os.geteuid() and not _may(thing, os.W_OK)
    return op in _WANTS and not _may(thing, _WANTS[op])


def _may(pin: Pin, mode: int) -> bool:
    return os.access(f"/proc/self/fd/{pin.fd}", mode, effective_ids=True)
