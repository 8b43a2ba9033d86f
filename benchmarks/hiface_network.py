# SPDX-License-Identifier: Apache-2.0
"""The HiFace network on people it never saw: `python benchmarks/hiface_network.py [--weights FILE]`.

Hold-out people, three pictures each with their own pose, expression, light and camera, all effects of the
generator; faces that the finder misses count as missed. Reported: region error of the neutral shape over that
of the mean face (`hiface.evaluation.regions`), the re-expression test and the consistency of identity and
static detail over a person's pictures; what the expression moves, before and after alignment to landmarks;
on photos with references, the error of the projected mesh before and after it; and the time of each stage.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from hiface.data.images import read_photo
from hiface.detail.sd_detail import detailed_normals
from hiface.evaluation.consistency import variance_ratio
from hiface.evaluation.landmarks import match_boxes, nme51, summarise
from hiface.evaluation.reexpression import detail_scores, reexpressed, wrinkled_texels
from hiface.evaluation.regions import PROTOCOLS, ratio_to_mean
from hiface.losses.shape_loss import ShapeMetric
from hiface.reconstructor import Reconstructor
from hiface.result import FaceResult
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE
from hiface.synthetic.generator import PICTURES_PER_PERSON, Style, SyntheticSample
from hiface.synthetic.pairs import generate_views
from hiface.synthetic.shots import sitter_of
from hiface.synthetic.wrinkles import picture_displacement

SIZE_PX, VIEWS, MAX_YAW_DEG, LEAST_FACE_PX = 384, 3, 50.0, 100.0
FIRST_PERSON = (HOLDOUT_SEED + 3) * (SEED_STRIDE // PICTURES_PER_PERSON)


@dataclass(frozen=True)
class Seen:
    """A hold-out person's pictures and what was made of them.

    Attributes:
        number: Of the person.
        samples: Pictures with their truth.
        faces: Reconstructions, one for each picture.
    """

    number: int
    samples: list[SyntheticSample]
    faces: list[FaceResult]


def usable(sample: SyntheticSample) -> bool:
    """Whether the face is large, inside the picture, hidden by less than two fifths and not in profile."""
    size = sample.image_srgb.shape[-1]
    forward = sample.T_cam_head[:3, 2]
    yaw = float(torch.rad2deg(torch.acos((-forward[2]).clamp(-1, 1))))
    inside = bool((sample.box[:2] > 0).all() and (sample.box[2:] < size).all())
    large = float((sample.box[2:] - sample.box[:2]).max()) > LEAST_FACE_PX
    return inside and large and yaw < MAX_YAW_DEG and float(sample.visible68.float().mean()) > 0.6


def reconstructed(reconstructor: Reconstructor, sample: SyntheticSample) -> FaceResult | None:
    """The reconstruction of a picture's person, or None if the face is not found."""
    image = sample.image_srgb.permute(1, 2, 0).contiguous().numpy()
    centre = sample.landmarks68_px.mean(0)
    for face in reconstructor.reconstruct(image):
        distance = (face.detection.landmarks68_px.mean(0) - centre).norm()
        if float(distance) < 0.3 * float((sample.box[2:] - sample.box[:2]).max()):
            return face
    return None


def look_at_people(reconstructor: Reconstructor, people: int) -> tuple[list[Seen], int]:
    """Hold-out people with two usable pictures at least, and how many faces were missed."""
    seen, missed, number = [], 0, FIRST_PERSON
    for _ in track(range(people), description="people"):
        while True:
            views = generate_views(reconstructor.model, number, Style(SIZE_PX), 2 * VIEWS)
            number += 1
            views = [v for v in views if usable(v)][:VIEWS]
            pairs = [(v, reconstructed(reconstructor, v)) for v in views]
            missed += sum(face is None for _, face in pairs)
            found = [(v, face) for v, face in pairs if face is not None]
            if len(found) >= 2:
                seen.append(Seen(number - 1, [v for v, _ in found], [f for _, f in found]))
                break
    return seen, missed


def coarse_scores(reconstructor: Reconstructor, seen: list[Seen]) -> dict:
    """Region error over that of the mean face, first picture of each person."""
    model = reconstructor.model
    none = torch.zeros(len(model.data.expression_names))
    fitted = torch.stack([model.shape(s.faces[0].params.identity, none) for s in seen])
    true = torch.stack([model.shape(s.samples[0].params.identity, none) for s in seen])
    return {p: ratio_to_mean(model.data, fitted, true, p) for p in PROTOCOLS}


def reexpression_scores(reconstructor: Reconstructor, seen: list[Seen]) -> dict:
    """Wrinkles of the second picture's expression, reconstructed from the first picture."""
    model, detail = reconstructor.model, seen[0].faces[0].detail
    if detail is None:
        return {}
    first = [s.faces[0].params for s in seen]
    identity, expression = (torch.stack([getattr(p, n) for p in first]) for n in ("identity", "expression"))
    static = torch.stack([p.static for p in first if p.static is not None])
    target = torch.stack([s.samples[1].params.expression for s in seen])
    truth = []
    for s, e in zip(seen, target, strict=True):
        sitter = sitter_of(model, s.number)
        assert sitter.detail is not None
        truth.append(picture_displacement(model, sitter.detail, model.shape(sitter.person.identity, e)))
    truths = detail.basis.gather(torch.stack(truth))
    with torch.no_grad():
        maps = reexpressed(model, detail, identity, static, expression, target)
    texels = wrinkled_texels(detail.basis)
    rows = {name: asdict(detail_scores(values, truths, texels)) for name, values in maps.items()}
    mean = detail.basis.static.mean.expand_as(truths)
    return rows | {"mean map": asdict(detail_scores(mean, truths, texels))}


def consistency_scores(reconstructor: Reconstructor, seen: list[Seen]) -> dict:
    """Variance within over variance between persons, two pictures each."""
    codes = {
        name: torch.stack([torch.stack([getattr(f.params, name) for f in s.faces[:2]]) for s in seen])
        for name in ("identity", "static")
        if getattr(seen[0].faces[0].params, name) is not None
    }
    out = {"identity": variance_ratio(codes["identity"], ShapeMetric(reconstructor.model).aligned_form)}
    detail = seen[0].faces[0].detail
    if detail is not None and "static" in codes:
        out["static"] = variance_ratio(codes["static"], detail.basis.static.variances)
    return out


def motion_score(reconstructor: Reconstructor, seen: list[Seen]) -> float:
    """Error of what the expression moves over that of a face at rest, first picture of each person."""
    metric = ShapeMetric(reconstructor.model)
    found = torch.stack([s.faces[0].params.expression for s in seen])
    truth = torch.stack([s.samples[0].params.expression for s in seen])
    error, most = (metric.motion(e, truth).mean() for e in (found, torch.zeros_like(found)))
    return round(float((error / most).sqrt()), 4)


def photo_scores(reconstructor: Reconstructor, photos: Path) -> dict:
    """Error of the projected mesh on trusted faces of photos."""
    errors = []
    for photo in json.loads((photos / "reference.json").read_text(encoding="utf-8")):
        faces = reconstructor.reconstruct(read_photo(photos / photo["file"]))
        trusted = [f for f in photo["faces"] if f["reference_trusted"]]
        if not faces or not trusted:
            continue
        boxes = np.stack([f.box.numpy() for f in faces])
        for truth, i in zip(
            trusted, match_boxes(boxes, np.asarray([t["box"] for t in trusted])), strict=True
        ):
            if i >= 0:
                points = torch.tensor(truth["landmarks68"], dtype=torch.float32)[:, :2]
                errors.append(float(nme51(faces[i].landmarks(), points)))
    return {"faces": len(errors), **summarise(errors)}


def median_ms(run: Callable[[], object], count: int = 40) -> float:
    """Median time of a call, milliseconds."""
    for _ in range(3):
        run()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 2)


def stage_times(reconstructor: Reconstructor, face: FaceResult) -> dict[str, float]:
    """Milliseconds of each stage after the face was found, batch of one, networks loaded."""
    model, photo, detection, network = reconstructor.model, face.photo, face.detection, reconstructor.network
    assert network is not None and face.detail is not None and face.params.static is not None
    focal, p, detail, static = float(face.camera.focal_px), face.params, face.detail, face.params.static

    def maps() -> Tensor:
        return detail.maps(model, p.identity, p.expression, static).displacement

    with torch.inference_mode():
        displacement, vertices = maps(), face.mesh.vertices
        out = {
            "crop, network and coefficients": median_ms(
                lambda: network.read(photo.image_srgb, [detection], focal)
            ),
            "displacement": median_ms(maps),
            "normals": median_ms(lambda: detailed_normals(model, vertices, displacement)),
        }
    return out | {"sum": round(sum(out.values()), 2)}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--photos", type=Path, default=None)
    parser.add_argument("--refine", action="store_true", help="measure the answers after optimisation")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    parser.add_argument("--record", action="store_true", help="write the file that the documents quote")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kind = {"device": "cpu", "weights": options.weights, "refine": options.refine}
    reconstructor, aligning = (Reconstructor("hiface", **kind, align=align) for align in (False, True))
    seen, missed = look_at_people(reconstructor, options.people)
    results = {
        "people": len(seen),
        "refined": options.refine,
        "missed faces": missed,
        "coarse": coarse_scores(reconstructor, seen),
        "re-expression": reexpression_scores(reconstructor, seen),
        "consistency": consistency_scores(reconstructor, seen),
        "expression": motion_score(reconstructor, seen),
        "milliseconds": stage_times(reconstructor, seen[0].faces[0]),
        "threads": options.threads,
        "machine": platform.processor() or platform.machine(),
    }
    if options.photos is not None:
        results["photos"] = photo_scores(reconstructor, options.photos)
    if not options.refine:
        moved = [replace(s, faces=[reconstructor.aligned(face) for face in s.faces[:1]]) for s in seen]
        results["aligned"] = {"expression": motion_score(reconstructor, moved)}
        results["aligned"]["milliseconds"] = median_ms(lambda: reconstructor.aligned(seen[0].faces[0]), 10)
        if options.photos is not None:
            results["aligned"]["photos"] = photo_scores(aligning, options.photos)
    print(json.dumps(results, indent=1))
    name = "hiface_network_refined.json" if options.refine else "hiface_network.json"
    out = Path(__file__).parent / "results" / name if options.record else options.out
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
