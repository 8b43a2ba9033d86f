# SPDX-License-Identifier: Apache-2.0
"""Pictures a second and bytes a picture of synthetic data: `python benchmarks/synth.py [--out FILE]`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import hiface
from hiface.morphable import MorphableModel
from hiface.synthetic.datasets import DataSpec, make_samples, make_spec
from hiface.synthetic.records import encode_arrays, sample_arrays

SIZE_PX = 224
CASES = (
    ("images", "plain", ()),
    ("images", "all", ()),
    ("images", "all", ("maps", "vertices")),
    ("pairs", "all", ()),
    ("clips", "all", ()),
    ("rgbd", "all", ()),
)


def measure(model: MorphableModel, spec: DataSpec, pictures: int) -> dict[str, float]:
    """Speed and size of the first samples of a data set, in processor time of this thread."""
    next(make_samples(model, spec, [0]))
    samples = max(1, pictures // spec.length)
    encoding, size, done = 0.0, 0, 0
    start = time.process_time()
    for _, group in make_samples(model, spec, range(samples)):
        for picture in group:
            before = time.process_time()
            size += sum(len(content) for content in encode_arrays(sample_arrays(picture)).values())
            encoding += time.process_time() - before
            done += 1
    whole = time.process_time() - start
    return {
        "pictures_per_s": round(done / whole, 1),
        "encoding_ms": round(1e3 * encoding / done, 1),
        "kB_per_picture": round(size / done / 1e3),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "synth.json")
    parser.add_argument("--pictures", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = hiface.load_model("open"), []
    for kind, effects, labels in CASES:
        spec = make_spec(kind, SIZE_PX, 1, effects, labels)
        row = {"kind": kind, "effects": effects, "labels": ["basic", *labels]}
        rows.append(row | measure(model, spec, options.pictures))
        print(rows[-1])
    options.out.write_text(
        json.dumps({"benchmark": "synth", "size_px": SIZE_PX, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
