# SPDX-License-Identifier: Apache-2.0
"""Whether the shipped method has become worse: `python benchmarks/guard.py [--record]`.

A small set of people who do not exist, always the same: portraits (shape by several estimators, landmarks,
wrinkles of another expression) and clips (landmarks, jitter, how steady the shape is). The figures are
compared with the last entry of the history in benchmarks/results/guard.json; `--record` appends them. The
exit code is 1 if a figure is worse by more than its tolerance.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hiface import __version__
from hiface.evaluation.protocols.base import Benchmark
from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.protocols.tracking import TrackingBenchmark
from hiface.evaluation.runs import RunFolder, commit, machine, predict, score, write_result
from hiface.evaluation.synthetic_clips import write_clips
from hiface.evaluation.synthetic_set import write_set
from hiface.methods.registry import make_method

HISTORY = Path(__file__).parent / "results" / "guard.json"
PEOPLE, CLIPS, SEED = 40, 4, 77
SMALL = 8  # people of the set that the tests look at
TOLERANCE = 0.03  # of the figure before
METHODS = ("hiface", "hiface-refine")


def figures(folder: Path, method: str, people: int, clips: int) -> dict[str, float]:
    """What the method reaches; smaller is better in all of them."""
    write_set(folder / "people", people, SEED)
    portraits = _run(SyntheticBenchmark(folder / "people"), method, folder / f"{method}-people")
    summary = portraits["summary"]
    found = {
        "faces lost": float(people - portraits["statuses"].get("ok", 0)),
        "shape, true mm": summary["true"]["all"],
        "shape over the mean face's": summary["over_mean_face"],
        "shape, REALY mm": summary["bent"]["all"],
        "shape, NoW mm": summary["now"]["all"],
        "landmarks, %": summary["nme51_percent"],
        "wrinkles of another expression, um": summary["detail_um"]["other"],
    }
    if clips:
        write_clips(folder / "clips", clips, SEED)
        tracked = _run(TrackingBenchmark(folder / "clips"), method, folder / f"{method}-clips")["summary"]
        found["clips: landmarks, %"] = tracked["nme51_percent"]
        found["clips: jitter, %"] = tracked["jitter_percent"]
        found["clips: spread of the shape, mm"] = tracked["shape_spread_mm"]
    return {name: round(value, 4) for name, value in found.items()}


def _run(benchmark: Benchmark, method: str, root: Path) -> dict:
    folder = RunFolder(root)
    predict(benchmark, make_method(method), folder, lambda name: None)
    rows = score(benchmark, folder, 1, lambda name: None)
    return write_result(benchmark, method, rows, folder, "python benchmarks/guard.py")


def worse(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """Names of figures that have become worse by more than the tolerance, are no numbers or are gone."""
    limits = {name: (1 + TOLERANCE) * value + 1e-9 for name, value in before.items()}
    return [name for name, limit in limits.items() if not now.get(name, math.nan) <= limit]


def read_history() -> list[dict]:
    """Entries from the oldest to the last."""
    return json.loads(HISTORY.read_text(encoding="utf-8"))["entries"] if HISTORY.is_file() else []


def main() -> None:
    """Runs the guard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    entries = read_history()
    with tempfile.TemporaryDirectory() as folder:
        now = {method: figures(Path(folder), method, PEOPLE, CLIPS) for method in METHODS}
        small = figures(Path(folder) / "small", "hiface", SMALL, 0)
    bad: list[str] = []
    for method in METHODS:
        before = entries[-1]["figures"].get(method, {}) if entries else {}
        table = Table("figure", "before", "now", "change", title=method)
        for name, value in now[method].items():
            old = before.get(name)
            change = "" if not old else f"{100 * (value / old - 1):+.1f} %"
            table.add_row(name, "" if old is None else f"{old:.3f}", f"{value:.3f}", change)
        Console().print(table)
        bad += [f"{method}: {name}" for name in worse(now[method], before)]
    if options.record and bad and not options.note:
        print("figures are worse; say why with --note to record them all the same")
    elif options.record:
        entry = {
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "commit": commit(),
            "hiface": __version__,
            "machine": machine(),
            "note": options.note,
            "figures": now,
            "small": small,
        }
        content = {"people": PEOPLE, "clips": CLIPS, "seed": SEED, "entries": [*entries, entry]}
        HISTORY.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if bad:
        print(f"worse by more than {100 * TOLERANCE:.0f} %: {'; '.join(bad)}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
