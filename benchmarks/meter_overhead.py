"""Measure what metering costs and print it as JSON.

    python benchmarks/meter_overhead.py [--seconds 20] [--children 0 25 100]

For each number of idle child processes: the CPU share of the sampler at its default interval, the
median time to open and to close a window, and the CPU time (immune to other load) of one of both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from lichen.meter import open_meter
from lichen.meter.overhead import measure_overhead


def measure(children: int, seconds: float, windows: int) -> dict[str, float | int]:
    """Return the figures for one number of child processes."""
    with ExitStack() as stack:
        for _ in range(children):
            child = subprocess.Popen(["sleep", "600"])
            stack.callback(child.wait)
            stack.callback(child.kill)
        meter = stack.enter_context(open_meter())
        found = measure_overhead(meter, seconds, windows=windows)
        cpu: list[float] = []
        for _ in range(windows):
            time.sleep(0.001)
            began = time.thread_time()
            window = meter.window("cpu")
            spent = time.thread_time() - began
            time.sleep(0.001)
            began = time.thread_time()
            window.close()
            cpu.append(spent + time.thread_time() - began)
    return {
        "children": children,
        "sampler_percent_of_core": round(100 * found.sampler_core_share, 3),
        "open_ms": round(1000 * found.open_s, 3),
        "close_ms": round(1000 * found.close_s, 3),
        "open_and_close_cpu_ms": round(1000 * statistics.median(cpu), 3),
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--children", type=int, nargs="*", default=[0, 25, 100])
    given = parser.parse_args()
    document = {
        "load_average": os.getloadavg()[0],
        "results": [measure(n, given.seconds, given.windows) for n in given.children],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
