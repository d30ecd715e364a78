"""`python -m bench [name ...]`: what the service costs beside the work it does, all sides of a ratio taken in one run.

Prints the figures and writes them to bench/results/. Other work on the machine disturbs p99 figures most and ratios least.
"""

from __future__ import annotations

import sys

from bench import detector_cost, enrol_cost, hostile, http_cost, print_cost, searchable, sizing, start
from bench.figures import save

BENCHMARKS = {
    "http": http_cost,
    "enrol": enrol_cost,
    "print": print_cost,
    "detector": detector_cost,
    "searchable": searchable,
    "start": start,
    "sizing": sizing,
    "hostile": hostile,
}


def main(names: list[str]) -> None:
    if unknown := set(names) - BENCHMARKS.keys():
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        question = (benchmark.__doc__ or "").partition("\n")[0]
        print(f"\n{name}: {question}")
        figures = benchmark.measure()
        print(*figures, sep="\n")
        save(name, question, figures)


if __name__ == "__main__":
    main(sys.argv[1:])
