"""The speed of a decision at 10 to 10,000 rules: paths seen for the first time, and paths seen before.

``rows()`` gives (what, figure, promise) triples for the table; run as a program it prints them.
"""

from __future__ import annotations

import gc
import statistics
import time

from remit_policy.engine import Engine
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule, Snapshot

_PATHS = 8000  # distinct paths of one round: below the number of decisions that an engine remembers
_ROUNDS = 5


def _rules(count: int) -> tuple[Rule, ...]:
    """Return ``count`` rules as people write them: trees, holes, globs, floating names."""
    out = []
    for n in range(count):
        place = f"/home/u/work{n % 89}/team{n % 31}/app{n}"
        pattern, verdict = (
            (f"{place}/**", ALLOW),
            (f"{place}/src/*.key", DENY),
            (f"{place}/{{build,dist}}/**", ASK),
            (f"**/secret{n}", DENY),
            (f"{place}/file?.txt", ALLOW),
        )[n % 5]
        out.append(Rule(USER, verdict, ("read", "write")[n % 2], pattern))
    return tuple(out)


def _paths(rules: int, turn: int) -> list[str]:
    """Return paths that nobody asked about before, below the places that the rules name."""
    out = []
    for k in range(_PATHS):
        n = k * 7 % rules
        leaf = (f"src/m{turn}_{k}.py", f"src/k{turn}_{k}.key", f"build/o{turn}_{k}.o")[k % 3]
        out.append(f"/home/u/work{n % 89}/team{n % 31}/app{n}/{leaf}")
    return out


def _per_decision(engine: Engine, paths: list[str]) -> float:
    decide = engine.decide
    start = time.perf_counter()
    for path in paths:
        decide("read", path)
    return (time.perf_counter() - start) / len(paths) * 1e6


def measure(rules: int) -> tuple[float, float, float]:
    """Return the milliseconds of building the engine, and the microseconds of a first and of a repeated decision."""
    snapshot = Snapshot("bench", _rules(rules))
    start = time.perf_counter()
    engine = Engine(snapshot)
    built = (time.perf_counter() - start) * 1e3
    _per_decision(engine, _paths(rules, 0))
    gc.collect()
    first, again = [], []
    for turn in range(1, _ROUNDS + 1):
        paths = _paths(rules, turn)
        first.append(_per_decision(engine, paths))
        known = paths[-1000:]
        again.append(_per_decision(engine, known * 8))
    return built, statistics.median(first), statistics.median(again)


def rows() -> list[tuple[str, str, str]]:
    """Measure at 10, 100, 1,000 and 10,000 rules and return the table's rows."""
    out = []
    for rules in (10, 100, 1000, 10_000):
        built, first, again = measure(rules)
        out.append(
            (
                f"decision at {rules:,} rules: a new path; a known one",
                f"{first:.2f} us; {again:.2f} us (built in {built:.1f} ms)",
                "<= 2 us; <= 0.3 us",
            )
        )
    return out


if __name__ == "__main__":
    for what, figure, promised in rows():
        print(f"{what:56} {figure:40} {promised}")
