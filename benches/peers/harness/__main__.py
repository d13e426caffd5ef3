"""The command line: ``bash benches/peers/run --help``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from .cases import all_cases
from .driver import Driver, Plan
from .install import build_adamant, install
from .libraries import SOURCES
from .report import Header, Row, cores, detect, tables, to_json

REPOSITORY = Path(__file__).resolve().parents[3]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bash benches/peers/run",
        description="Measures adamant beside the optimizers that people use on CPUs today.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds: about two minutes")
    parser.add_argument(
        "--case", metavar="NAME", default="", help="only cases of this name, or that go on with a hyphen"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write header and rows into this JSON file")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        action="append",
        help="a number of threads; may be repeated (default: 1 and all)",
    )
    parser.add_argument(
        "--library",
        metavar="NAME",
        action="append",
        choices=[source.module for source in SOURCES],
        help="only this library; may be repeated: " + ", ".join(source.module for source in SOURCES),
    )
    parser.add_argument(
        "--environments",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "peers",
        help="where the Python environments are or will be (default: target/peers)",
    )
    parser.add_argument("--no-install", action="store_true", help="take the environments as they are, adamant included")
    parser.add_argument("--tables", metavar="FILE", type=Path, help="measure nothing: print the tables of a JSON file")
    return parser.parse_args(arguments)


def busy_cores() -> float:
    """How many cores other programs keep busy for half a second in which this one sleeps."""

    def ticks() -> int:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        # user, nice, system; not idle and waiting; interrupts (two fields), stolen.
        return sum(int(fields[place]) for place in (0, 1, 2, 5, 6, 7))

    before, seconds = ticks(), 0.5
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def _modules(options: argparse.Namespace) -> list[str]:
    return options.library or [source.module for source in SOURCES]


def _measure(options: argparse.Namespace, header: Header) -> list[Row]:
    cases = all_cases(options.quick, options.case)
    if not cases:
        sys.exit(f"there is no case by the name {options.case}")
    threads = options.threads or sorted({1, header.cores})
    modules = _modules(options)
    rows: list[Row] = []
    log = options.environments / "workers.log"
    with open(log, "wb") as output:
        for count in threads:
            driver = Driver(options.environments, count, modules, Plan.of(options.quick), output)
            try:
                for case in cases:
                    started = time.monotonic()
                    rows += driver.measure(case)
                    took = time.monotonic() - started
                    print(f"{count} threads, {case.name}, {case.elements} elements: {took:.1f} s", file=sys.stderr)
            finally:
                driver.stop()
            header.versions |= driver.versions
            header.left_out |= driver.left_out
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Installs, measures, reports."""
    options = _options(arguments)
    if options.tables:
        found = json.loads(options.tables.read_text())
        print(tables([Row.from_json(row) for row in found["rows"]]))
        return
    options.environments = options.environments.resolve()
    options.environments.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    if not options.no_install:
        failed = install(options.environments, _modules(options))
        problem = build_adamant(options.environments, REPOSITORY)
        if problem:
            sys.exit(f"adamant's wheel cannot be built: {problem}")
    busy = busy_cores()
    if busy > 0.1:
        print(
            f"warning: other programs keep {busy:.1f} of {cores()} cores busy; the numbers will be off", file=sys.stderr
        )
    header = detect(options.quick)
    header.left_out |= failed
    rows = _measure(options, header)
    print(f"CPU      {header.cpu}, {header.cores} cores, {header.system}")
    print(f"caches   {', '.join(header.caches)}")
    for name, version in header.versions.items():
        print(f"version  {name} {version}")
    for name, reason in header.left_out.items():
        print(f"left out {name}: {reason}")
    print(f"\nMedians of all rounds; * is the fastest.\n\n{tables(rows)}")
    if options.json:
        options.json.write_text(json.dumps(to_json(header, rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
