"""What a script's first line names, as the kernel reads it (fs/binfmt_script.c)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit_daemon.kernel import calls
from remit_daemon.peers import mark
from remit_daemon.supervisor.hashes import Hashes
from remit_daemon.supervisor.programs import Programs
from remit_daemon.supervisor.resolve import Resolver
from remit_daemon.supervisor.target import Targets


@pytest.mark.parametrize(
    ("head", "interpreter"),
    [
        (b"#!/bin/sh\n", b"/bin/sh"),
        (b"#! \t/usr/bin/env\tpython3 -s\n", b"/usr/bin/env"),
        (b"#!/bin/sh\0-x\n", b"/bin/sh"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r"),
        (b"#!\0\n", b""),
        (b"#!", b""),
        (b"\x7fELF", b""),
        (b"", b""),
    ],
)
def test_the_interpreter_is_what_the_kernel_would_run(
    tmp_path: Path, head: bytes, interpreter: bytes
) -> None:
    (tmp_path / "script").write_bytes(head)
    targets = Targets(mark.new_tag())
    resolver = Resolver(targets)
    programs = Programs(resolver, targets, Hashes(str(tmp_path / "hashes")))
    pin = resolver.pin(os.getpid(), calls.AT_FDCWD, os.fsencode(tmp_path / "script"))
    try:
        assert programs._interpreter(pin) == interpreter
    finally:
        pin.close()
