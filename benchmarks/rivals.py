# SPDX-License-Identifier: Apache-2.0
"""Methods side by side on people who do not exist: `python benchmarks/rivals.py WORK_DIR [--people 200]`.

Each method sees the same portraits; predictions and scores are kept in the folder, so that a run that was
stopped goes on. Portraits that one of the methods does not answer are left out of the comparison of all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.progress import Progress

from hiface.evaluation.comparison import markdown_table, plot
from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.runs import RunFolder, machine, predict, score, write_result
from hiface.evaluation.synthetic_set import write_set
from hiface.methods.registry import make_method, networks_digest

METHODS = "hiface,hiface-refine,hiface-fit,landmarks,eos,mean"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "rivals.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    write_set(options.work / "people", options.people, options.seed)
    benchmark, runs = SyntheticBenchmark(options.work / "people"), {}
    with Progress() as progress:
        for method in options.methods.split(","):
            about = {"method": method, "people": options.people, "seed": options.seed}
            folder = RunFolder(options.work / method, about=about | {"networks": networks_digest()})
            folder.check()
            task = progress.add_task(method, total=2 * options.people)
            predict(benchmark, make_method(method), folder, lambda name, t=task: progress.advance(t))
            runs[method] = score(benchmark, folder, options.workers, lambda name, t=task: progress.advance(t))
    answered = [
        {
            row["name"]
            for row in rows
            if row["status"] == "ok" and {"true", "bent"} <= set(row["scores"]["mm"])
        }
        for rows in runs.values()
    ]
    common = set.intersection(*answered)
    results = []
    for method, rows in runs.items():
        kept = [row for row in rows if row["name"] in common]
        command = f"python benchmarks/rivals.py WORK_DIR --people {options.people}"
        results.append(
            write_result(benchmark, method, kept, RunFolder(options.work / f"{method}-common"), command)
        )
    print(markdown_table(results))
    if options.plot:
        options.plot.write_bytes(plot(results))
    content = {result["method"]: result["summary"] for result in results}
    content |= {"people": options.people, "compared": len(common), "machine": machine()}
    if options.out is not None:
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
