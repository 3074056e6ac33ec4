"""Which mounted file systems may keep a caller waiting for somebody else: the network, a FUSE program, a tape."""

from __future__ import annotations

import os

_SLOW = (
    "fuse", "nfs", "cifs", "smb", "9p", "afs", "ceph", "gfs2", "lustre", "ncpfs", "autofs", "virtiofs", "davfs", "sshfs",
)  # fmt: skip


def slow_mounts() -> tuple[str, ...]:
    """Return the mount points of slow file systems, each with a slash at its end (proc_pid_mountinfo(5))."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    text = b""
    try:
        while chunk := os.read(fd, 1 << 16):
            text += chunk
    finally:
        os.close(fd)
    found = []
    for line in text.split(b"\n"):
        head, _, tail = line.partition(b" - ")
        cells = head.split(b" ")
        if len(cells) > 4 and tail.decode("ascii", "replace").startswith(_SLOW):
            point = cells[4].replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n")
            found.append(os.fsdecode(point.replace(b"\\134", b"\\")).rstrip("/") + "/")
    return tuple(found)
