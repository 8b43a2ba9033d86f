# SPDX-License-Identifier: Apache-2.0
"""Faces and landmarks on real photos with references: `python benchmarks/photos.py PHOTOS_DIR [--out FILE]`.

The folder holds `reference.json`: a list with, for each photo, `file`, `faces` (each with `box`,
`landmarks68` in iBUG order and `reference_trusted`) and `other_faces` (boxes). Photos are only measured on.
Where the references come from another detector whose points are defined otherwise, 2.5 to 3 % of the error
are a matter of definition.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hiface.data.images import read_photo
from hiface.evaluation.landmarks import eye_distance, match_boxes, nme51, offset_free_error, summarise
from hiface.networks.detect import Detection, FaceDetector
from hiface.reconstructor import Reconstructor


def other_boxes(photo: dict) -> np.ndarray:
    """Boxes where a detection is neither right nor false."""
    boxes = [f["box"] for f in photo["faces"] if not f["reference_trusted"]]
    boxes += [f["box"] if isinstance(f, dict) else f for f in photo["other_faces"]]
    return np.asarray(boxes, np.float32).reshape(-1, 4)


def score_photo(photo: dict, found: list[Detection], fitted: Callable[[Detection], torch.Tensor]) -> dict:
    """What was found, missed and invented in one photo, and the errors of its trusted faces.

    `fitted` gives the [68, 2] landmarks of the face model fitted to a detection.
    """
    trusted = [f for f in photo["faces"] if f["reference_trusted"]]
    boxes = np.stack([d.box.numpy() for d in found]) if found else np.zeros((0, 4), np.float32)
    pairs = match_boxes(boxes, np.asarray([f["box"] for f in trusted], np.float32).reshape(-1, 4))
    spare = [i for i in range(len(found)) if i not in set(pairs.tolist())]
    other = set(match_boxes(boxes[spare], other_boxes(photo)).tolist()) - {-1}
    errors, fit_errors, offsets = [], [], []
    for face, i in zip(trusted, pairs, strict=True):
        if i >= 0:
            truth = torch.tensor(face["landmarks68"], dtype=torch.float32)[:, :2]
            errors.append(float(nme51(found[i].landmarks68_px, truth)))
            fit_errors.append(float(nme51(fitted(found[i]), truth)))
            offsets.append(((found[i].landmarks68_px - truth) / eye_distance(truth)).tolist())
    return {
        "file": photo["file"],
        "trusted": len(trusted),
        "found": int((pairs >= 0).sum()),
        "false": len(spare) - len(other),
        "false_scores": [round(found[i].score, 3) for k, i in enumerate(spare) if k not in other],
        "scores": [round(found[i].score, 3) for i in pairs if i >= 0],
        "nme51_percent": [round(100 * e, 2) for e in errors],
        "fit_nme51_percent": [round(100 * e, 2) for e in fit_errors],
        "_errors": errors,
        "_fit_errors": fit_errors,
        "_offsets": offsets,
    }


def unbiased(offsets: list) -> float:
    """Mean error of the inner points, in %, once each point's mean offset over all faces is removed."""
    if not offsets:
        return float("nan")
    return round(100 * offset_free_error(torch.tensor(offsets)), 3)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "photos.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    reconstructor = Reconstructor("fit", device="cpu")
    detector = FaceDetector(threads=options.threads)
    rows = []
    for photo in json.loads((options.photos / "reference.json").read_text(encoding="utf-8")):
        picture = read_photo(options.photos / photo["file"])
        image = picture.image_srgb
        found, times = detector.detect(image), []
        for _ in range(3):
            start = time.perf_counter()
            found = detector.detect(image)
            times.append(1e3 * (time.perf_counter() - start))
        score = score_photo(photo, found, lambda d, p=picture: reconstructor.fit(p, d).landmarks("ibug68"))
        row = {**score, "size": photo["size"], "milliseconds": round(min(times), 1)}
        rows.append(row)
        print({k: v for k, v in row.items() if not k.startswith("_")})
    errors = [e for row in rows for e in row["_errors"]]
    single = [row["_errors"][0] for row in rows if row["trusted"] == 1 and row["_errors"]]
    total = {
        "nme51": summarise(errors),
        "fit_nme51": summarise([e for row in rows for e in row["_fit_errors"]]),
        "nme51_without_constant_offsets_percent": unbiased([o for row in rows for o in row["_offsets"]]),
        "nme51_single_portraits": summarise(single),
        "trusted": sum(row["trusted"] for row in rows),
        "found": sum(row["found"] for row in rows),
        "false": sum(row["false"] for row in rows),
        "threads": options.threads,
    }
    print(json.dumps(total, indent=1))
    clean = [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"total": total, "photos": clean}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
