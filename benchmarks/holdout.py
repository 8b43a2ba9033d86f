# SPDX-License-Identifier: Apache-2.0
"""The networks on people that they were not trained on: `python benchmarks/holdout.py [--count 600]`.

Makes pictures of people kept for measuring (or reads them, if `--folder` holds some), and reports

- landmark errors from crops that are nearly right and from the whole detector, on all faces and on subsets,
- errors of lid and lip gaps,
- recall of faces of 24 px and more at one false face in twenty pictures, in crowds of the same people, and in
  photos if `--photos` names a folder like that of `photos.py`.

Errors are in % of the outer eye distance in space (`hiface.evaluation.holdout.space_length`), "flat" ones in
% of that in the picture.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hiface.data.images import read_photo
from hiface.evaluation.crowds import (
    CROWDS,
    LEAST_SCORE,
    Crowd,
    finds_of_detector,
    finds_of_finder,
    held_crowds,
)
from hiface.evaluation.finding import BANDS_PX, join_finds, recall_at
from hiface.evaluation.holdout import SubsetLimits, join_faces, read_holdout, write_holdout
from hiface.evaluation.holdout_scores import detect_faces, read_crops, score_openings, score_points
from hiface.morphable import load_model
from hiface.networks.detect import DetectConfig, FaceDetector
from hiface.networks.looks import LandmarkReader
from hiface.networks.runtime import TorchRunner, load_runner
from hiface.networks.weights import load_landmarker
from hiface.synthetic.generator import GENERATOR_VERSION

FALSE_PER_PICTURE = 0.05
COLUMNS = ("inner51", "inner51_visible", "inner51_flat", "dense", "dense_visible")


def measure_points(folders: tuple[Path, ...], options: argparse.Namespace, progress: Progress) -> dict:
    """Errors of points and gaps, from crops and from the detector."""
    names = tuple(load_model("open").data.expression_names)
    runner = load_runner("landmarker", threads=options.threads)
    if options.weights is not None:
        runner = TorchRunner(load_landmarker(options.weights), options.device)
    reader = LandmarkReader(runner)
    detector = None if options.weights else FaceDetector(options.device, options.threads)
    predicted: dict[str, list[torch.Tensor]] = {"crops": [], "detector": []}
    parts, task = [], progress.add_task("landmarks", total=options.count)
    for folder in folders:
        for pictures, faces in read_holdout(folder, names):
            predicted["crops"].append(read_crops(reader, pictures, faces))
            if detector is not None:
                predicted["detector"].append(detect_faces(detector, pictures, faces))
            parts.append(faces)
            progress.advance(task, len(pictures))
    faces, out = join_faces(parts), {}
    for way, found in predicted.items():
        if found:
            points = torch.cat(found)
            out[way] = {"points": score_points(points, faces), "gaps": score_openings(points, faces)}
    return out


def photo_crowds(folder: Path) -> Iterator[Crowd]:
    """Photos with references as crowds: faces whose references are not trusted, or small, do not count."""
    for photo in json.loads((folder / "reference.json").read_text(encoding="utf-8")):
        boxes = [face["box"] for face in photo["faces"]]
        trusted = [face["reference_trusted"] for face in photo["faces"]]
        boxes += [face["box"] if isinstance(face, dict) else face for face in photo["other_faces"]]
        all_boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        counts = np.arange(len(boxes)) < len(trusted)
        counts[: len(trusted)] &= trusted
        counts &= (all_boxes[:, 2:] - all_boxes[:, :2]).max(axis=1, initial=0.0) >= BANDS_PX[0]
        yield Crowd(read_photo(folder / photo["file"]).image_srgb, all_boxes, counts)


def measure_finding(folder: Path, options: argparse.Namespace, progress: Progress) -> dict:
    """Recall of finder and detector in crowds, and of the detector in photos."""
    detector = FaceDetector(options.device, options.threads, DetectConfig(min_score=LEAST_SCORE))
    finder = load_runner("finder", options.device, options.threads)
    finds: dict[str, list] = {}
    for name, config in CROWDS.items():
        by_detector, by_finder = [], []
        crowds = held_crowds(folder, options.crowds, config=config)
        for crowd in progress.track(crowds, options.crowds, description=name):
            by_detector.append(finds_of_detector(detector, crowd))
            by_finder.append(finds_of_finder(finder, crowd))
        finds |= {f"detector, {name}": by_detector, f"finder alone, {name}": by_finder}
    if options.photos is not None:
        photos = list(photo_crowds(options.photos))
        seen = progress.track(photos, description="photos")
        finds["detector, photos"] = [finds_of_detector(detector, photo) for photo in seen]
    return {way: recall_at(join_finds(parts), FALSE_PER_PICTURE, LEAST_SCORE) for way, parts in finds.items()}


def show(results: dict, console: Console) -> None:
    """Tables of the results."""
    for way, scores in results["landmarks"].items():
        table = Table("subset", "faces", "found", *COLUMNS, title=f"error in %, mean (median), {way}")
        for name, row in scores["points"].items():
            cells = [f"{row[c]['mean']:.2f} ({row[c]['median']:.2f})" for c in COLUMNS]
            table.add_row(name, str(row["faces"]), f"{100 * row['found']:.1f} %", *cells)
        console.print(table)
        table = Table("gaps", "number", "error", "median", "bias", title=f"lid and lip gaps in %, {way}")
        for name, row in scores["gaps"].items():
            cells = [f"{row[c]:.2f}" for c in ("mean", "median", "bias")]
            table.add_row(name, str(row["count"]), *cells)
        console.print(table)
    if results["finding"]:
        bands = list(next(iter(results["finding"].values()))["bands"])
        title = f"recall at {FALSE_PER_PICTURE:g} false faces a picture"
        table = Table("", "pictures", "false", "threshold", "24 px and more", *bands, title=title)
        for way, row in results["finding"].items():
            cells = [f"{100 * b['recall']:.1f} % of {b['faces']}" for b in row["bands"].values()]
            whole = f"{100 * row['recall']:.1f} % of {row['faces']}"
            table.add_row(
                way, str(row["pictures"]), str(row["false"]), f"{row['threshold']:.3f}", whole, *cells
            )
        console.print(table)


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=600, help="pictures of single people")
    parser.add_argument("--crowds", type=int, default=120, help="pictures of crowds; 0 leaves them out")
    parser.add_argument("--folder", type=Path, help="keeps the pictures, or reads those that are there")
    parser.add_argument("--workers", type=int, default=1, help="processes, each for 500 pictures")
    parser.add_argument("--weights", type=Path, help="other landmark weights (.safetensors), on crops only")
    parser.add_argument("--photos", type=Path, help="folder of photos with reference.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "holdout.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    return parser.parse_args()


def run(options: argparse.Namespace, folder: Path, progress: Progress) -> dict:
    """Makes the pictures and measures on them."""
    task = progress.add_task("pictures", total=options.count)
    folders = write_holdout(
        folder, options.count, options.workers, lambda done, total: progress.update(task, completed=done)
    )
    return {
        "landmarks": measure_points(folders, options, progress),
        "finding": measure_finding(folders[0], options, progress) if options.crowds else {},
    }


def main() -> None:
    """Runs the benchmark."""
    options, console, start = parse(), Console(), time.perf_counter()
    torch.set_num_threads(options.threads)
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
        results = run(options, folder, progress)
    about = {
        "benchmark": "holdout",
        "pictures": options.count,
        "crowds": options.crowds,
        "generator_version": GENERATOR_VERSION,
        "weights": options.weights.name if options.weights else "packaged",
        "limits": vars(SubsetLimits()),
        "seconds": round(time.perf_counter() - start, 1),
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | results, indent=1) + "\n", encoding="utf-8")
    show(results, console)


if __name__ == "__main__":
    main()
