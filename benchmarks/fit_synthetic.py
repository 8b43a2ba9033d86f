# SPDX-License-Identifier: Apache-2.0
"""Fits people who do not exist and compares the shape with the truth, region by region.

    python benchmarks/fit_synthetic.py --people 32 --out benchmarks/results/fit_synthetic.json

Rows: kind of landmarks (exact with 1 % and 2 % noise of the face size, the networks' own) x landmarks alone
or with the picture. Pictures have all effects of the generator (hair, glasses, make-up, shadows, hands,
camera); in the rows "plain" the same people in the same pose and light are drawn by the renderer alone on a
background, and the landmarks are the networks'. Columns: ratio of the region error to that of the mean face
(`hiface.evaluation.regions`, neutral shapes, rigid alignment on the face without scale), the same with scale,
correlation of true and fitted identity, mean absolute error of the expression, time.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.errors import HifaceError
from hiface.evaluation.regions import PROTOCOLS, ratio_to_mean, region_errors
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import fit_face
from hiface.fitting.observations import FaceObservation, ImageCrop
from hiface.fitting.observe import observation_from_detection
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import FaceDetector
from hiface.render.pipeline import render
from hiface.synthetic.backgrounds import sample_background
from hiface.synthetic.generator import PICTURES_PER_PERSON, SyntheticSample, generate_batch

SIZE_PX = 512
MAX_YAW_DEG = 50.0
CORRELATED = 20  # leading identity coefficients of the reported correlation


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    noise: float | None
    photometric: bool
    plain: bool = False


CASES = (
    Case("noise 1 %, landmarks", 0.01, False),
    Case("noise 1 %, + picture", 0.01, True),
    Case("noise 2 %, landmarks", 0.02, False),
    Case("noise 2 %, + picture", 0.02, True),
    Case("networks, landmarks", None, False),
    Case("networks, + picture", None, True),
    Case("plain, landmarks", None, False, plain=True),
    Case("plain, + picture", None, True, plain=True),
)


def face_size_px(sample: SyntheticSample) -> float:
    """Distance of the outer eye corners of a face of average size at this distance, pixels."""
    camera = sample.params.camera
    return 0.09 * float(camera.focal_px) / float(sample.T_cam_head[2, 3])


def yaw_deg(sample: SyntheticSample) -> float:
    """Angle between the head's forward axis and the camera, degrees."""
    forward = sample.T_cam_head[:3, 2]
    return float(torch.rad2deg(torch.acos((-forward[2]).clamp(-1, 1))))


def pictures(model: MorphableModel, count: int, first: int) -> list[SyntheticSample]:
    """One picture per person: the face inside it, turned at most MAX_YAW_DEG, 120 px or larger."""
    found: list[SyntheticSample] = []
    person = first
    while len(found) < count:
        (sample,) = generate_batch(model, [person * PICTURES_PER_PERSON], SIZE_PX)
        person += 1
        inside = bool((sample.box[:2] > 0).all() and (sample.box[2:] < SIZE_PX).all())
        large = float((sample.box[2:] - sample.box[:2]).max()) > 120
        if (
            inside
            and large
            and yaw_deg(sample) < MAX_YAW_DEG
            and float(sample.visible68.float().mean()) > 0.6
        ):
            found.append(sample)
    return found


def plain(model: MorphableModel, sample: SyntheticSample, seed: int) -> SyntheticSample:
    """The same person, pose, camera and light, drawn by the renderer alone on a procedural background."""
    params = sample.params
    mesh = model(params.identity, params.expression, params.pose)
    drawn = render(mesh, params.camera, model.albedo_map(params.albedo), params.light)
    behind = sample_background(np.random.default_rng(seed), SIZE_PX)
    image = drawn.image * drawn.alpha + behind * (1 - drawn.alpha)
    return replace(sample, image_srgb=(255 * linear_to_srgb(image.clamp(0, 1))).round().byte())


def noisy_observation(sample: SyntheticSample, noise: float, seed: int) -> FaceObservation:
    """Exact points with independent Gaussian noise (part of the face size) and honest uncertainties."""
    generator = torch.Generator().manual_seed(seed)
    sigma = noise * face_size_px(sample)

    def add(points: Tensor) -> Tensor:
        return points + sigma * torch.randn(points.shape, generator=generator)

    iris = sample.iris_px.reshape(2, -1, 2).mean(1)
    return FaceObservation(
        SIZE_PX,
        SIZE_PX,
        add(sample.landmarks68_px),
        torch.full((68,), sigma),
        add(sample.dense_px),
        torch.full((len(sample.dense_px),), sigma),
        add(iris),
        torch.full((2,), sigma),
        crop=ImageCrop(srgb_to_linear(sample.image_srgb.float() / 255)),
    )


def network_observation(detector: FaceDetector, sample: SyntheticSample) -> FaceObservation | None:
    """What the networks see, or None if they do not find the face."""
    image = sample.image_srgb.permute(1, 2, 0).numpy()
    centre = sample.landmarks68_px.mean(0)
    for detection in detector.detect(image):
        distance = (detection.landmarks68_px.mean(0) - centre).norm()
        if float(distance) < 0.3 * float((sample.box[2:] - sample.box[:2]).max()):
            return observation_from_detection(detection, image)
    return None


def seen(T_cam_head: Tensor) -> Tensor:
    """[3, 3] rotation of the head relative to the ray to it: what shows whatever the focal length."""
    ray = torch.nn.functional.normalize(T_cam_head[:3, 3], dim=0)
    ahead = torch.tensor([0.0, 0.0, 1.0])
    axis = torch.nn.functional.normalize(torch.linalg.cross(ray, ahead), dim=0)
    return roma.rotvec_to_rotmat(axis * torch.acos(ray[2].clamp(-1, 1))) @ T_cam_head[:3, :3]


def run_case(
    model: MorphableModel,
    samples: list[SyntheticSample],
    case: Case,
    detector: FaceDetector | None,
    config: FitConfig,
) -> dict:
    """Fits every sample and averages."""
    fitted, true, expression, coefficients, angles = [], [], [], [], []
    seconds, cpu_seconds = [], []
    none = torch.zeros(len(model.data.expression_names))
    missed = 0
    for index, picture in enumerate(samples):
        sample = plain(model, picture, index) if case.plain else picture
        if case.noise is not None:
            observation = noisy_observation(sample, case.noise, index)
        else:
            assert detector is not None
            observation = network_observation(detector, sample)
        if observation is None:
            missed += 1
            continue
        if not case.photometric:
            observation = replace(observation, crop=None)
        start, cpu_start = time.perf_counter(), time.process_time()
        result = fit_face(model, observation, config)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        fitted.append(model.shape(result.params.identity, none))
        true.append(model.shape(sample.params.identity, none))
        expression.append(float((result.params.expression - sample.params.expression).abs().mean()))
        coefficients.append(
            torch.stack([result.params.identity[:CORRELATED], sample.params.identity[:CORRELATED]])
        )
        T_fitted = result.params.camera.T_cam_object
        angles.append(
            float(torch.rad2deg(roma.rotmat_geodesic_distance(seen(T_fitted), seen(sample.T_cam_head))))
        )
    shapes, truths = torch.stack(fitted), torch.stack(true)
    pairs = torch.stack(coefficients)
    correlation = torch.nn.functional.cosine_similarity(pairs[:, 0].flatten(), pairs[:, 1].flatten(), dim=0)
    return {
        "case": case.name,
        "faces": len(fitted),
        "missed": missed,
        "ratio": {p: ratio_to_mean(model.data, shapes, truths, p) for p in PROTOCOLS},
        "error_mm": float(region_errors(model.data, shapes, truths).mean("global").mean()),
        "identity_correlation": float(correlation),
        "expression_error": sum(expression) / len(expression),
        "rotation_error_deg": sorted(angles)[len(angles) // 2],
        "seconds_median": sorted(seconds)[len(seconds) // 2],
        "cpu_seconds_median": sorted(cpu_seconds)[len(cpu_seconds) // 2],
    }


def print_row(row: dict) -> None:
    """One line of the table."""
    ratio = row["ratio"]["global"]
    wall, cpu = 1e3 * row["seconds_median"], 1e3 * row["cpu_seconds_median"]
    regions = " ".join(f"{name} {ratio[name]:.2f}" for name in ("nose", "mouth", "forehead", "cheek"))
    print(
        f"{row['case']:22s} n {row['faces']:3d}  ratio {ratio['mean']:.3f} ({regions})  "
        f"scaled {row['ratio']['scaled']['mean']:.3f}  {row['error_mm']:.2f} mm  "
        f"corr {row['identity_correlation']:.2f}  expr {row['expression_error']:.3f}  "
        f"rot {row['rotation_error_deg']:.2f} deg  {wall:.0f} ms (CPU {cpu:.0f})",
        flush=True,
    )


def main() -> None:
    """Runs all cases and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=32)
    parser.add_argument(
        "--first", type=int, default=900_000, help="number of the first person (training uses low ones)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model("open")
    samples = pictures(model, arguments.people, arguments.first)
    try:
        detector = FaceDetector()
    except HifaceError as error:
        print(f"without the networks' rows: {error}")
        detector = None
    rows = []
    for case in CASES:
        if case.noise is None and detector is None:
            continue
        rows.append(run_case(model, samples, case, detector, FitConfig()))
        print_row(rows[-1])
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "benchmark": "fit_synthetic",
            "people": arguments.people,
            "first": arguments.first,
            "size_px": SIZE_PX,
            "threads": arguments.threads,
            "model_version": model.data.version,
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
