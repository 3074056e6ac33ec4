"""Files that are judged by what is in them: read, and put in place as a copy.

Programs rewrite such a file by renaming a new one onto it. What is put in place is a copy that we made and checked: the
program may still hold the new one open.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect
    from remit_daemon.supervisor.resolve import Place


def read(place: Place, limit: int) -> bytes | None:
    """Return what is in the file at ``place``; None when it cannot be read or holds more than ``limit`` bytes."""
    try:
        fd = os.open(
            place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.parent.fd
        )
    except OSError:
        return None
    try:
        text = os.read(fd, limit + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return text if len(text) <= limit else None


def copier(source: Place, goal: Place, text: bytes, mode: int) -> Callable[[], Effect]:
    """Return what puts ``text`` in the place of ``goal`` and removes ``source``."""

    def put() -> Effect:
        name = goal.name + b".remit-%d" % os.getpid()
        parent = goal.parent.fd
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            if os.write(fd, text) != len(text):
                raise OSError(errno.ENOSPC, "short write")
            os.fchmod(fd, mode)
            os.rename(name, goal.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(fd)
        os.unlink(source.name, dir_fd=source.parent.fd)
        return 0

    return put
