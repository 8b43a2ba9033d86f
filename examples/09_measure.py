# SPDX-License-Identifier: Apache-2.0
"""Measures a method of your own beside ours, on people who do not exist and whose shape is known exactly.

python examples/09_measure.py work
"""

import sys
from pathlib import Path

from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.runs import RunFolder, predict, score
from hiface.evaluation.synthetic_set import write_set
from hiface.methods.registry import make_method

work = Path(sys.argv[1])
write_set(work / "people", people=4, size_px=256)  # made once, by seed
benchmark = SyntheticBenchmark(work / "people")

for name in ("mean", "hiface"):  # any class with load() and reconstruct(photo) would do
    folder = RunFolder(work / name)
    predict(benchmark, make_method(name), folder, lambda item: None)
    rows = score(benchmark, folder, 1, lambda item: None)
    summary = benchmark.summarise([row for row in rows if row["status"] == "ok"])
    for label, *values in benchmark.table(summary)[:2]:
        print(f"{name:8}{label:30}", *(f"{value:>9}" for value in values))
