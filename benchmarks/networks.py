# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime against torch at batch 1, and the detector: `python benchmarks/networks.py [--photo FILE]`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hiface.data import read_photo
from hiface.networks.detect import FaceDetector
from hiface.networks.runtime import Runner, TorchRunner, load_runner
from hiface.networks.weights import load_finder, load_landmarker


def milliseconds(runner: Runner, batch: np.ndarray, repeats: int) -> dict[str, float]:
    """Fastest and median time of one run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        runner(batch)
        times.append(1e3 * (time.perf_counter() - start))
    return {"fastest_ms": round(min(times), 2), "median_ms": round(float(np.median(times)), 2)}


def detector_row(name: str, picture: np.ndarray, threads: int, repeats: int) -> dict:
    """Wall and processor time of the whole detector on one picture."""
    detector, spans, work, found = FaceDetector(threads=threads), [], [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        found = detector.detect(picture)
        spans.append(1e3 * (time.perf_counter() - start))
        work.append(1e3 * (time.process_time() - busy))
    return {
        "picture": f"{name}, {picture.shape[1]} x {picture.shape[0]}",
        "faces": len(found),
        "fastest_ms": round(min(spans), 2),
        "median_ms": round(float(np.median(spans)), 2),
        "fastest_processor_ms": round(min(work), 2),
    }


def with_copies(picture: np.ndarray, detector: FaceDetector) -> list[np.ndarray]:
    """Pictures of one size that hold 1 to 8 copies of the largest face of a photo, all of one size."""
    face = max(detector.detect(picture), key=lambda d: float((d.box[2:] - d.box[:2]).max()))
    side = 1.1 * float((face.box[2:] - face.box[:2]).max())
    left, top = (0.5 * (face.box[:2] + face.box[2:]) - side).tolist()
    cut = Image.fromarray(picture).crop(
        (round(left), round(top), round(left + 2 * side), round(top + 2 * side))
    )
    tile = np.asarray(cut.resize((160, 160)))
    pictures, canvas = [], np.full((320, 640, 3), 128, np.uint8)
    for i in range(8):
        row, column = 160 * (i // 4), 160 * (i % 4)
        canvas[row : row + 160, column : column + 160] = tile
        pictures.append(canvas.copy())
    return pictures


def further_face_row(name: str, picture: np.ndarray, threads: int, repeats: int) -> dict:
    """What a further face adds to the time of the detector: slope over 2 to 8 faces in pictures of one size.

    The pictures take turns, so that a busy moment of the machine meets them all.
    """
    detector = FaceDetector(threads=threads)
    pictures = with_copies(picture, detector)[1:]
    found = [len(detector.detect(p)) for p in pictures]
    spans: list[list[float]] = [[] for _ in pictures]
    for _ in range(repeats):
        for i, p in enumerate(pictures):
            start = time.perf_counter()
            detector.detect(p)
            spans[i].append(1e3 * (time.perf_counter() - start))
    fastest, median = ([float(f(s)) for s in spans] for f in (np.min, np.median))
    return {
        "picture": f"copies of the face of {name}",
        "faces": found,
        "further_face_fastest_ms": round(float(np.polyfit(found, fastest, 1)[0]), 2),
        "further_face_median_ms": round(float(np.polyfit(found, median, 1)[0]), 2),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "networks.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--photo", type=Path, help="a photo on which the whole detector is timed too")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    side = load_landmarker().config.crop_px
    for name, shape in (("landmarker", (1, 3, side, side)), ("finder", (1, 3, 320, 320))):
        batch = rng.random(shape, dtype=np.float32)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            network = load_finder() if name == "finder" else load_landmarker()
            onnx = load_runner("finder" if name == "finder" else "landmarker", threads=threads)
            rival = TorchRunner(network)
            worst = max(float(np.abs(a - b).max()) for a, b in zip(onnx(batch), rival(batch), strict=True))
            for kind, runner in (("onnxruntime", onnx), ("torch", rival)):
                row = {
                    "network": name,
                    "input": shape,
                    "threads": threads,
                    "runtime": kind,
                    "difference": worst,
                }
                rows.append({**row, **milliseconds(runner, batch, options.repeats)})
                print(rows[-1])
    pictures = {"noise": (rng.random((512, 512, 3)) * 255).astype(np.uint8)}
    if options.photo:
        pictures[options.photo.name] = read_photo(options.photo).image_srgb
    for name, picture in pictures.items():
        for threads in (1, 2):
            rows.append(
                {
                    "network": "detector",
                    "threads": threads,
                    **detector_row(name, picture, threads, options.repeats),
                }
            )
            print(rows[-1])
    if options.photo:
        name = options.photo.name
        for threads in (1, 2):
            row = further_face_row(name, pictures[name], threads, options.repeats)
            rows.append({"network": "detector", "threads": threads, **row})
            print(rows[-1])
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
