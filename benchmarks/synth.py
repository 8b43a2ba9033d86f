# SPDX-License-Identifier: Apache-2.0
"""Pictures a second, where the time goes and bytes a picture of synthetic data, on one core.

`python benchmarks/synth.py [--pictures N] [--repeats R] [--out FILE]`. Times are processor time of this
thread; of several runs of the same pictures the fastest counts, because other processes share the core.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import hiface
from hiface.morphable import MorphableModel
from hiface.synthetic import clips, compose, datasets, generator, pairs, rgbd, shots
from hiface.synthetic.datasets import DataSpec, make_samples, make_spec
from hiface.synthetic.records import encode_arrays, sample_arrays

SIZE_PX = 224
CASES = (
    ("images", "plain", ()),
    ("images", "all", ()),
    ("images", "plain", ("maps", "vertices")),
    ("images", "all", ("maps", "vertices")),
    ("pairs", "all", ()),
    ("clips", "all", ()),
    ("rgbd", "all", ()),
)
# Stage of each function; what a stage calls belongs to it unless it has a stage of its own.
STAGES = (
    *((module, "sitter_of", "person") for module in (datasets, pairs, clips, rgbd)),
    *((module, "draw_shot", "pose, camera, light") for module in (generator, pairs, clips, rgbd)),
    (shots, "wall", "background"),
    (generator, "compose", "other drawing"),
    (compose, "draw_head", "head"),
    (compose, "draw_body", "body"),
    (compose, "draw_hair", "hair, hats"),
    (compose, "draw_hat", "hair, hats"),
    (compose, "draw_lashes", "lashes, glasses"),
    (compose, "draw_glasses", "lashes, glasses"),
    (generator, "apply_effects", "camera effects"),
    (generator, "plain_srgb", "camera effects"),
    (generator, "label_points", "points"),
    (generator, "surface_maps", "maps"),
)


class Clock:
    """Processor time by stage; the time of a stage within another one is not counted twice."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._open = ["other"]
        self._since = time.thread_time()

    def switch(self) -> None:
        """Gives the time since the last switch to the stage that is open."""
        now = time.thread_time()
        self.spent[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The function, with its time given to a stage."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self._open.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self._open.pop()

        return run


def timed_run(model: MorphableModel, spec: DataSpec, numbers: range) -> tuple[dict[str, float], int, int]:
    """Seconds by stage, bytes and number of pictures of some samples."""
    clock, size, pictures = Clock(), 0, 0
    originals = [(module, name, getattr(module, name)) for module, name, _ in STAGES]
    try:
        for module, name, stage in STAGES:
            setattr(module, name, clock.timed(getattr(module, name), stage))
        encode = clock.timed(lambda picture: encode_arrays(sample_arrays(picture)), "encoding")
        for _, group in make_samples(model, spec, numbers):
            for picture in group:
                size += sum(len(content) for content in encode(picture).values())
                pictures += 1
        clock.switch()
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
    return clock.spent, size, pictures


def measure(model: MorphableModel, spec: DataSpec, pictures: int, repeats: int) -> dict[str, Any]:
    """Speed, time by stage and size of the first samples of a data set."""
    next(make_samples(model, spec, [0]))
    step = 3 if spec.length == 1 else 1  # pictures of one person
    samples = max(step, pictures // spec.length // step * step)
    total: dict[str, float] = defaultdict(float)
    size, done = 0, 0
    for first in range(0, samples, step):
        runs = [timed_run(model, spec, range(first, first + step)) for _ in range(repeats)]
        spent, run_size, run_pictures = min(runs, key=lambda run: sum(run[0].values()))
        for stage, seconds in spent.items():
            total[stage] += seconds
        size, done = size + run_size, done + run_pictures
    whole = sum(total.values())
    slowest = sorted(total.items(), key=lambda item: -item[1])
    return {
        "pictures_per_s": round(done / whole, 1),
        "pictures_per_s_unencoded": round(done / (whole - total["encoding"]), 1),
        "kB_per_picture": round(size / done / 1e3),
        "ms_per_picture": {stage: round(1e3 * spent / done, 1) for stage, spent in slowest},
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "synth.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = hiface.load_model("open"), []
    for kind, effects, labels in CASES:
        spec = make_spec(kind, SIZE_PX, 1, effects, labels)
        row = {"kind": kind, "effects": effects, "labels": ["basic", *labels]}
        rows.append(row | measure(model, spec, options.pictures, options.repeats))
        print(rows[-1])
    if options.out is not None:
        options.out.write_text(
            json.dumps({"benchmark": "synth", "size_px": SIZE_PX, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
