# SPDX-License-Identifier: Apache-2.0
"""Time, memory and honesty of the evaluation: `python benchmarks/evaluation.py [--meshes 100]`.

"speed": so many meshes of 4,823 vertices against scans of 100,000 vertices, by REALY and by NoW, with two
processes. "offsets": what REALY's last step says of a nose, mouth and forehead moved rigidly by a known
amount; 1 is right. "ranking": how the order of people by each estimator agrees with the order by true
correspondence (Spearman), over pairs of people of the open model, and over faces that lie nearer and nearer
to the truth.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import igl
import numpy as np
import torch
from rich.progress import track
from scipy.stats import spearmanr
from torch import Tensor

from hiface.evaluation.metrics.now import NowPrediction, now_distances
from hiface.evaluation.metrics.open_scans import UNIT_M, region_masks, scan_of, subject_of
from hiface.evaluation.metrics.realy import (
    ESTIMATORS,
    REGIONS,
    PredictedMesh,
    bent_error,
    keypoint_groups,
    merged,
    realy_errors,
)
from hiface.evaluation.protocols.now import NowBenchmark
from hiface.evaluation.protocols.realy import RealyBenchmark, keypoint_text
from hiface.evaluation.regions import region_errors
from hiface.evaluation.runs import RunFolder, machine, score
from hiface.geometry.closest import SurfaceTree
from hiface.geometry.mesh_files import PlainMesh, obj_text
from hiface.geometry.subdivide import subdivide
from hiface.morphable import MorphableModel, load_model

SCAN_VERTICES, PEOPLE = 100_000, 10


def person(model: MorphableModel, seed: int, spread: float = 1.0) -> Tensor:
    """[V, 3] metres, at rest."""
    gen = torch.Generator().manual_seed(seed)
    identity = spread * torch.randn(model.data.n_identity, generator=gen)
    return model.shape(identity, torch.zeros(len(model.data.expression_names)))


def scan_mesh(model: MorphableModel, vertices: Tensor) -> tuple[PlainMesh, Tensor]:
    """The skin of a head as 100,000 vertices of another mesh, and the model's triangle of each triangle."""
    places, triangles = vertices.double().numpy(), model.triangles.numpy()
    for _ in range(3):
        finer = subdivide(triangles, len(places))
        places, triangles = finer.middles(places), finer.triangles
    owner = torch.arange(len(model.triangles)).repeat_interleave(64)
    skin = model.data.vertex_masks["skin"][model.triangles].all(dim=1)[owner].numpy()
    used, corners = np.unique(triangles[skin], return_inverse=True)
    found, fewer, birth, _ = igl.decimate(
        places[used], corners.reshape(-1, 3).astype(np.int64), 2 * SCAN_VERTICES
    )
    mesh = PlainMesh(torch.from_numpy(np.array(found)), torch.from_numpy(np.array(fewer, dtype=np.int64)))
    return mesh, owner[torch.from_numpy(skin)][torch.from_numpy(np.array(birth, dtype=np.int64))]


def write_file(path: Path, text: str) -> None:
    """A text file in a folder that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_data(model: MorphableModel, root: Path, meshes: int) -> None:
    """Scans and predictions in the layouts of both benchmarks."""
    picked = "<PickedPoints>\n{}\n</PickedPoints>\n"
    lines, points = [], model.data.landmark_sets["realy85"]
    write_file(root / "pr" / "template.obj", obj_text(model.template, model.triangles))
    write_file(root / "pr" / "template.txt", keypoint_text(points))
    for number in track(range(1, PEOPLE + 1), "making scans"):
        vertices = person(model, number)
        mesh, owner = scan_mesh(model, vertices)
        write_file(root / f"now/scans/P{number}/a.obj", obj_text(1e3 * mesh.vertices, mesh.triangles))
        marks = (1e3 * model.landmarks("now7", vertices)).tolist()
        rows = "\n".join(f'<point x="{x}" y="{y}" z="{z}"/>' for x, y, z in marks)
        write_file(root / f"now/scans_lmks_onlypp/P{number}/a.pp", picked.format(rows))
        keypoints = model.landmarks("realy85", vertices) / UNIT_M
        write_file(root / f"realy/REALY_HIFI3D_keypoints/{number}.obj", obj_text(keypoints))
        for region, mask in region_masks(model).items():
            chosen = mesh.triangles[mask[model.triangles].all(dim=1)[owner]]
            used, corners = torch.unique(chosen, return_inverse=True)
            text = obj_text(mesh.vertices[used] / UNIT_M, corners.reshape(-1, 3))
            write_file(root / f"realy/REALY_scan_region/{number}/{region}.obj", text)
        for view in range(meshes // PEOPLE):
            guess = 0.5 * vertices + 0.5 * person(model, 1000 * number + view)
            text = obj_text(guess, model.triangles)
            write_file(root / "pr" / f"{number}_{view}.obj", text)
            write_file(root / "pn" / f"P{number}/selfie/{view}.obj", text)
            np.save(root / "pn" / f"P{number}/selfie/{view}.npy", model.landmarks("now7", guess).numpy())
            lines.append(f"x/P{number}/selfie/{view}.jpg\n")
    write_file(root / "now/imagepathsvalidation.txt", "".join(lines))
    write_file(root / "realy/metrical_scale.txt", f"{1e3 * UNIT_M}\n" * PEOPLE)


def speed(model: MorphableModel, meshes: int, workers: int) -> dict:
    """Minutes and memory of scoring."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(model, root, meshes)
        benchmarks = {
            "now": (NowBenchmark(root / "now"), root / "pn"),
            "realy": (RealyBenchmark(root / "realy", predicted=root / "pr"), root / "pr"),
        }
        for name, (benchmark, predictions) in benchmarks.items():
            start = time.perf_counter()
            done = score(benchmark, RunFolder(root / name / "run", predictions), workers, lambda item: None)
            minutes = (time.perf_counter() - start) / 60
            statuses = {row["status"] for row in done}
            largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            rows[name] = {
                "meshes": len(done),
                "statuses": sorted(statuses),
                "minutes": round(minutes, 2),
                "gib_largest_process": round(largest, 2),
                "gib_all_at_most": round(own + workers * largest, 2),
                "summary": benchmark.summarise(done)["bent" if name == "realy" else "all"],
            }
            rows[name]["summary"].pop("below_tenths_of_mm", None)
            print(name, rows[name])
    return rows


def offsets(model: MorphableModel) -> dict:
    """Error of a rigid offset over its length."""
    vertices, rows = person(model, 3), {}
    truth = subject_of(model, vertices, steps=2)
    places = truth.keypoints.clone()
    for region in ("nose", "mouth", "forehead"):
        scan, chosen = merged(truth.regions[region]).vertices, keypoint_groups()["bent_by"][region]
        places[chosen] = scan[torch.cdist(places[chosen], scan).argmin(1)]
    truth = replace(truth, keypoints=places)
    for name, direction in {"forwards": (0, 0, 1.0), "aside": (0.6, 0, 0.8), "up": (0, 1.0, 0)}.items():
        offset = 0.25 * torch.tensor(direction, dtype=torch.float64)
        tree = SurfaceTree(vertices.double() / UNIT_M + offset, model.triangles)
        for region in ("nose", "mouth", "forehead"):
            bent = bent_error(tree, places + offset, truth, region).mean()
            closest = tree.closest(truth.regions[region].vertices).distances.mean()
            rows[f"{region}, {name}"] = {
                "bent": round(float(bent) / 0.25, 3),
                "closest point": round(float(closest) / 0.25, 3),
            }
    return rows


def ranking(model: MorphableModel, pairs: int) -> dict:
    """Spearman correlation of each estimator with true correspondence over faces."""
    found: dict[str, list[float]] = {name: [] for name in ("true", *ESTIMATORS, "now")}
    for number in track(range(pairs), "ranking"):
        true = person(model, 20_000 + number)
        share = float(np.random.default_rng(number).uniform(0.0, 0.9))
        guess = share * true + (1 - share) * person(model, 30_000 + number)
        exact = region_errors(model.data, guess, true).mean("regional")
        predicted = PredictedMesh(guess, model.triangles, model.landmarks("realy85", guess))
        errors = realy_errors(predicted, subject_of(model, true, steps=1))
        scan = scan_of(model, true, steps=1)
        own = NowPrediction(PlainMesh(guess.double(), model.triangles), model.landmarks("now7", guess))
        found["true"].append(float(exact))
        for name in ESTIMATORS:
            found[name].append(float(np.mean([errors[region][name] for region in REGIONS])))
        found["now"].append(float(now_distances(own, scan).mean()))
    return {
        name: {
            "spearman": round(float(spearmanr(found["true"], values)[0]), 3),
            "mean_mm": round(float(np.mean(values)), 3),
        }
        for name, values in found.items()
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meshes", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "evaluation.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model()
    result = {
        "machine": machine(),
        "offsets": offsets(model),
        "ranking": ranking(model, options.pairs),
        "speed": speed(model, options.meshes, options.workers),
    }
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
