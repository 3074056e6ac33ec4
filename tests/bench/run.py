"""The benchmark: one table, remit against native and bubblewrap, in one run on one machine.

    python tests/bench/run.py [--rounds N] [--only TEXT,...] [--json]

Each round runs every workload once in every variant, in turning order, so that a noisy minute hits all of them;
a ratio is the median over the rounds of variant / native *of the same round*, and ± is half the distance between
the quartiles of these. The first round warms up and does not count. Needs an ordinary user: packaging/bench.sh
sets up and drops root's privileges.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import figures
import workloads
from variants import Unavailable, Variant, all_variants

COLUMNS = {"ask": "remit, asking reads", "fixed": "remit, fixed reads", "bwrap": "bubblewrap"}
START_UPS = 15
GEOMEAN_PROMISE = "<= 1.25 / <= 1.08"


def spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


def show_time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.2f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


class Table:
    """The rows so far, and notes on what could not be measured."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.notes: list[str] = []

    def ratios(
        self, name: str, times: dict[str, list[float]], promise: str, absolute: bool = False
    ) -> dict[str, float]:
        """Add a row of ratios to native; return them by variant."""
        native = times["native"]
        row: dict = {
            "name": name,
            "native": show_time(statistics.median(native)),
            "promise": promise,
            "cells": {},
        }
        ratios = {}
        for variant in COLUMNS:
            if variant not in times:
                continue
            pairs = [t / n for t, n in zip(times[variant], native, strict=True)]
            ratios[variant] = statistics.median(pairs)
            cell = f"{ratios[variant]:.2f} ± {spread(pairs):.2f}"
            row["cells"][variant] = (
                f"{show_time(statistics.median(times[variant]))} ({cell})" if absolute else cell
            )
        row["seconds"] = times
        row["noise"] = f"{100 * spread(native) / statistics.median(native):.0f} %"
        self.rows.append(row)
        return ratios

    def figure(self, name: str, value: str, promise: str = "") -> None:
        """Add a row that has one figure, remit's."""
        self.rows.append(
            {"name": name, "native": "", "promise": promise, "cells": {"ask": value}, "noise": ""}
        )

    def markdown(self) -> str:
        head = ["", "native", *COLUMNS.values(), "noise", "promised"]
        lines = [head, ["---"] * len(head)]
        for row in self.rows:
            cells = [row["cells"].get(v, "") for v in COLUMNS]
            lines.append([row["name"], row["native"], *cells, row["noise"], row["promise"]])
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = "\n".join(
            "| "
            + " | ".join(c.ljust(w, "-" if n == 1 else " ") for c, w in zip(line, widths, strict=True))
            + " |"
            for n, line in enumerate(lines)
        )
        return text + "".join(f"\n\nnot measured: {note}" for note in self.notes)


def measure(
    variants: list[Variant], work: workloads.Workload, rounds: int, env: dict[str, str]
) -> dict[str, list[float]]:
    """Return each variant's times, one a round. Raises Unavailable when the native run fails."""
    times: dict[str, list[float]] = {v.name: [] for v in variants}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        turned = variants[number % len(variants) :] + variants[: number % len(variants)]
        for variant in turned:
            if variant.name in failed:
                continue
            if work.before:
                work.before()
            done = variant.run(work.argv, env=env, capture=work.per_open)
            if done["status"]:
                failed[variant.name] = done["err"].strip()[-300:] or f"status {done['status']}"
            elif number:
                times[variant.name].append(float(done["out"]) * 1e-9 if work.per_open else done["seconds"])
    if "native" in failed:
        raise Unavailable(f"fails natively: {failed['native']}")
    for name, why in failed.items():
        del times[name]
        print(f"{work.name}: fails under {name}: {why}", file=sys.stderr)
    return times


def geometric_means(table: Table, by_variant: dict[str, list[float]]) -> None:
    cells = {v: f"{math.exp(statistics.fmean(map(math.log, r))):.2f}" for v, r in by_variant.items() if r}
    if cells:
        count = max(len(r) for r in by_variant.values())
        name = f"geometric mean of {count} workloads"
        table.rows.append(
            {"name": name, "native": "", "promise": GEOMEAN_PROMISE, "cells": cells, "noise": ""}
        )


def start_up(table: Table, variants: list[Variant], project: Path) -> None:
    """Time the start and end of a whole session that runs /bin/true."""
    times: dict[str, list[float]] = {v.name: [] for v in variants}
    for number in range(START_UPS + 1):
        for variant in variants:
            seconds = figures.seconds_of([*variant.wrap, "/bin/true"], project)
            if number:
                times[variant.name].append(seconds)
    table.ratios("start-up of /bin/true", times, "<= 25 ms over native", absolute=True)


def guarded(table: Table, name: str, step: Callable[[], None]) -> None:
    """Run ``step``; what stops it becomes a note, and the other rows are still measured."""
    try:
        step()
    except (Unavailable, OSError, ImportError, subprocess.SubprocessError, KeyError, ValueError) as e:
        table.notes.append(f"{name}: {e}")


def extra_rows(table: Table, module: str) -> None:
    for row in importlib.import_module(module).rows():
        table.figure(*row)


def main() -> int:
    parser = argparse.ArgumentParser(description="remit against native and bubblewrap: one table of ratios")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    parser.add_argument(
        "--only", default="", help="rows whose name contains one of these, separated by commas"
    )
    parser.add_argument("--json", action="store_true", help="print all times as JSON instead of the table")
    options = parser.parse_args()
    if os.geteuid() == 0:
        print("remit: measure as an ordinary user (packaging/bench.sh does)", file=sys.stderr)
        return 2
    wanted = [w.strip().lower() for w in options.only.split(",") if w.strip()]

    def chosen(name: str) -> bool:
        return not wanted or any(w in name.lower() for w in wanted)

    beside = Path(sys.executable).with_name("remit")
    remit = str(beside) if beside.exists() else None
    python = os.path.realpath(sys.executable)
    table = Table()
    # Below the home: a session has a /tmp of its own, and bubblewrap an empty one.
    with tempfile.TemporaryDirectory(prefix="remit-bench.", dir=Path.home()) as scratch:
        project = Path(scratch) / "project"
        home = project / "home"
        home.mkdir(parents=True)
        # The same home for all, inside the project: what is compared is the cost, not the policy.
        env = {"HOME": str(home), "npm_config_cache": str(home / ".npm"), "npm_config_update_notifier": "false",
               "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_PAGER": "cat", "XDG_CONFIG_HOME": str(home / ".config"),
               "XDG_CACHE_HOME": str(home / ".cache")}  # fmt: skip
        table.notes += workloads.lay_out(project, python, os.environ | env)
        variants, absent = all_variants(remit, python, project)
        table.notes += [f"{COLUMNS.get(name, name)}: {why}" for name, why in absent.items()]
        if not variants or variants[0].name != "native":
            print(f"remit: the native runner did not start: {absent}", file=sys.stderr)
            return 1
        try:
            measure_all(table, variants, project, python, remit, env, options.rounds, chosen)
        finally:
            for variant in variants:
                variant.stop()
    for name, module in (
        ("decision speed", "bench_policy"),
        ("ledger", "bench_ledger"),
        ("lanes", "bench_lanes"),
        ("tui", "bench_tui"),
        ("D-Bus", "bench_dbus"),
        ("gateway", "bench_gateway"),
        ("tokens", "bench_tokens"),
        ("api", "bench_api"),
    ):
        if chosen(name):
            guarded(table, name, lambda module=module: extra_rows(table, module))  # type: ignore[misc]
    about = {
        "kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count(),
        "rounds": options.rounds,
    }  # fmt: skip
    if options.json:
        print(json.dumps({"about": about, "rows": table.rows, "notes": table.notes}, indent=1))
    else:
        print(
            "Linux {kernel}, Python {python}, {cpus} CPUs, {rounds} rounds; ratios to native.\n".format(
                **about
            )
        )
        print(table.markdown())
    return 0


def measure_all(
    table: Table, variants: list[Variant], project: Path, python: str, remit: str | None,
    env: dict[str, str], rounds: int, chosen: Callable[[str], bool],
) -> None:  # fmt: skip
    """Measure every chosen row that needs the variants."""
    by_variant: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for work in workloads.all_workloads(project, python):
        if not chosen(work.name):
            continue
        if lacking := [n for n in work.needs if not workloads.available(n)]:
            table.notes.append(f"{work.name}: {', '.join(lacking)} is not installed")
            continue
        print(f"measuring {work.name}", file=sys.stderr)

        def step(work: workloads.Workload = work) -> None:
            times = measure(variants, work, rounds, env)
            ratios = table.ratios(work.name, times, work.promise, absolute=work.per_open)
            for variant, ratio in ratios.items():
                if not work.per_open:
                    by_variant[variant].append(ratio)

        guarded(table, work.name, step)
    geometric_means(table, by_variant)
    asking = next((v for v in variants if v.name == "ask"), None)
    if chosen("start-up"):
        guarded(table, "start-up", lambda: start_up(table, variants, project))
    if chosen("memory"):
        guarded(
            table, "memory", lambda: [table.figure(*row) for row in figures.memory_rows(asking)] and None
        )
    if remit and asking and chosen("answer"):
        guarded(
            table,
            "answer to resumed call",
            lambda: [table.figure(*row) for row in figures.latency_rows(remit, python, project)] and None,
        )


if __name__ == "__main__":
    sys.exit(main())
