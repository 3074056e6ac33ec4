"""A classic BPF machine for seccomp filters, written from seccomp(2) and <linux/bpf_common.h> alone.

It knows the instructions that our filters use, refuses any other, and any jump or load that the kernel's checker
would refuse, so that a filter which runs here is also one that loads.
"""

from __future__ import annotations

import struct


class BpfError(Exception):
    """The kernel would not load this program."""


class Machine:
    """One loaded filter. `run` answers a call with the 32-bit action."""

    def __init__(self, blob: bytes) -> None:
        if len(blob) % 8 or not 0 < len(blob) // 8 <= 4096:
            raise BpfError("length")
        self.code = list(struct.iter_unpack("=HBBI", blob))
        size = len(self.code)
        for place, (op, jt, jf, k) in enumerate(self.code):
            if op == 0x20:
                if k % 4 or k > 60:
                    raise BpfError(f"load at {place}")
            elif op == 0x05:
                if place + 1 + k >= size:
                    raise BpfError(f"jump at {place}")
            elif op in (0x15, 0x35, 0x45):
                if place + 1 + max(jt, jf) >= size:
                    raise BpfError(f"branch at {place}")
            elif op not in (0x54, 0x06):
                raise BpfError(f"operation {op:#x} at {place}")
        if self.code[-1][0] != 0x06:
            raise BpfError("the last instruction does not return")

    def run(self, arch: int, number: int, *arguments: int) -> int:
        """Return the action for call `number` made through `arch`; absent arguments are zero."""
        words = [argument & 0xFFFFFFFFFFFFFFFF for argument in arguments]
        data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(words + [0] * (6 - len(words))))
        accumulator, place, steps = 0, 0, 0
        while True:
            op, jt, jf, k = self.code[place]
            place += 1
            steps += 1
            if op == 0x06:
                self.steps = steps
                return int(k)
            if op == 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            elif op == 0x54:
                accumulator &= k
            elif op == 0x05:
                place += k
            elif op == 0x15:
                place += jt if accumulator == k else jf
            elif op == 0x35:
                place += jt if accumulator >= k else jf
            else:
                place += jt if accumulator & k else jf


def disassemble(blob: bytes) -> list[str]:
    """Return the program as text, one instruction a line, with absolute targets."""
    words = {0x15: "jeq", 0x35: "jge", 0x45: "jset"}
    lines = []
    for place, (op, jt, jf, k) in enumerate(struct.iter_unpack("=HBBI", blob)):
        if op == 0x20:
            text = f"ld [{k}]"
        elif op == 0x54:
            text = f"and {k:#x}"
        elif op == 0x05:
            text = f"ja {place + 1 + k}"
        elif op == 0x06:
            text = f"ret {k:#010x}"
        else:
            text = f"{words.get(op, hex(op))} {k:#x} {place + 1 + jt} {place + 1 + jf}"
        lines.append(f"{place:4} {text}")
    return lines
