"""What a session did, summed up (the wire's Report), as lines: numbers in words first, plots beside them."""

from __future__ import annotations

from typing import Any

from remit_tui.frame import Line
from remit_tui.rows import pad
from remit_tui.text import clip, shown, span
from remit_tui.words import field

_STEPS = " ▁▂▃▄▅▆▇█"
_BAR = 12  # cells of the longest bar


def spark(values: list[int]) -> str:
    """Return one character for each of ``values``, a blank for none and the taller the more."""
    most = max(values, default=0)
    return "".join(_STEPS[-(-v * (len(_STEPS) - 1) // most)] if v > 0 else " " for v in values)


def bar(value: int, most: int) -> str:
    """Return a bar for ``value``, of which the longest is for ``most``."""
    return "█" * max(round(_BAR * value / most), 1) if value > 0 and most > 0 else ""


def _numbers(table: dict[str, Any]) -> str:
    return ", ".join(f"{shown(str(op))} {int(n)}" for op, n in table.items())


def lines(said: Any, width: int) -> list[Line]:
    """Return the Report ``said`` in lines of at most ``width`` cells.

    Raises TypeError, KeyError, ValueError or AttributeError when it is none.
    """
    out: list[Line] = [[("bold", clip("report" + (" (at least)" if said.get("at_least") else ""), width))]]
    out += field("acts", _numbers(said["acts"]) or "none", width)
    if said.get("counted"):
        out += field("in trees", _numbers(said["counted"]), width)
    if said.get("human"):
        out += field("yours", _numbers(said["human"]), width)
    asked, denied = said["asked"], said["denied"]
    out += field(
        "asked",
        f"{asked['number']}: allowed {asked['allowed']}, denied {asked['denied']}, missed {asked['missed']}",
        width,
    )
    out += field("denied", str(int(denied["number"])), width)
    for d in denied["what"]:
        out += field("", f"{int(d['number'])}x {shown(str(d['op']))} {shown(str(d['path']))}", width)
    for name in ("changed", "deleted"):
        some = said[name]
        out += field(name, str(int(some["number"])), width)
        for path in some["paths"][:10]:
            out += field("", shown(str(path)), width)
    line = said["timeline"]
    acts, refused = [int(n) for n in line["acts"]], [int(n) for n in line["denied"]]
    if acts:
        out += field(
            "in time",
            f"{spark(acts)}| a mark is {span(float(line['step']))}, the most acts {max(acts)}",
            width,
        )
    if any(refused):
        out += field("denied", f"{spark(refused)}| the most {max(refused)}", width)
    for label, key, name in (("places", "directories", "path"), ("hosts", "hosts", "host")):
        some = [(shown(str(x[name])), int(x["acts"])) for x in said[key]]
        most = max((n for _, n in some), default=0)
        for i, (text, n) in enumerate(some):
            out += field(label if i == 0 else "", f"{pad(bar(n, most), _BAR)} {n:>5} {text}", width)
    return out
