"""What names a file for as long as it exists, and nothing else afterwards: its *object name*.

An inode's number comes again when the file is deleted, so it is not one. A file system's handle is: it holds the
inode's number and a generation that changes when the number is given out anew (name_to_handle_at(2), <linux/exportfs.h>). It is the
same after a rename, a write or a remount, and another for a copy. The device's number goes before it, since a handle is
its file system's own.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .calls import AT_EMPTY_PATH, call

_HANDLE_FID = 0x200  # <linux/fcntl.h>, Linux 6.5: a handle to compare, from file systems that cannot open by it (overlayfs)
_HEAD = struct.Struct("Ii")  # struct file_handle: handle_bytes, handle_type
_BTIME, _BTIME_AT = (
    0x800,
    80,
)  # <linux/stat.h>: STATX_BTIME; stx_mask is first, stx_btime (s64 seconds, u32 nanoseconds) there
_MAX = 128  # <linux/exportfs.h> MAX_HANDLE_SZ

_nameless: set[int] = set()  # devices whose file systems have no such name


def object_of(fd: int) -> str:
    """Return the object name of what is behind ``fd`` (O_PATH will do): ``DEVICE.TYPE.HANDLE`` in hexadecimal.

    "" where the file system has none, or one without a generation (type 0x81, FILEID_INO64_GEN, is made of a
    generation that such file systems leave 0). Raises nothing.
    """
    try:
        device = os.fstat(fd).st_dev
    except OSError:
        return ""
    if device in _nameless:
        return ""
    handle, mount = ctypes.create_string_buffer(_HEAD.size + _MAX), ctypes.c_int()
    for flags in (AT_EMPTY_PATH, AT_EMPTY_PATH | _HANDLE_FID):
        _HEAD.pack_into(handle, 0, _MAX, 0)
        try:
            call("name_to_handle_at", fd, b"", ctypes.addressof(handle), ctypes.addressof(mount), flags)
        except OSError:
            continue
        size, kind = _HEAD.unpack_from(handle)
        if kind != 0x81:
            return f"{device:x}.{kind:x}.{handle.raw[_HEAD.size : _HEAD.size + size].hex()}"
    _nameless.add(device)
    return ""


def born_ns(fd: int) -> int:
    """Return when the file behind ``fd`` came to be, in nanoseconds since the epoch; 0 where that is not recorded.

    No program can set it (statx(2)): a copy is younger than what it was made from, whatever its other times say.
    """
    room = ctypes.create_string_buffer(256)
    try:
        call("statx", fd, b"", AT_EMPTY_PATH, _BTIME, ctypes.addressof(room))
    except OSError:
        return 0
    (mask,) = struct.unpack_from("I", room)
    seconds, nanoseconds = struct.unpack_from("qI", room, _BTIME_AT)
    return seconds * 10**9 + nanoseconds if mask & _BTIME else 0
