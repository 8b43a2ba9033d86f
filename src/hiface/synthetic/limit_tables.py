# SPDX-License-Identifier: Apache-2.0
"""The few points of lids, eyeballs and lips that limits look at, linear in the coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel

_RINGS = 8
_RIM = 2  # rings from here on are the outside of a lid; the two before touch the eyeball
_COLUMNS = 9
_LOOSE = {  # how easily a shape gives way, against the others
    "eyeBlink": 1.0,
    "eyeSquint": 1.0,
    "eyeWide": 1.0,
    "cheekSquint": 0.5,
    "browDown": 0.25,
    "noseSneer": 0.25,
    "jawOpen": 0.2,
    "mouthClose": 1.0,
    "mouthLowerDown": 0.5,
    "tongueOut": 0.05,
    "mouthShrug": 1.0,
    "mouthPress": 0.5,
    "mouthRoll": 0.5,
    "mouthPucker": 0.5,
    "mouthLeft": 0.5,
    "mouthRight": 0.5,
    "mouthFunnel": 0.5,
    "mouthSmile": 0.25,
    "mouth": 0.1,
    "cheekPuff": 0.25,
}
_MAY_RISE = ("eyeBlink", "eyeSquint", "jawOpen", "mouthShrugUpper", "mouthLowerDown")


@dataclass(frozen=True)
class Limited:
    """A person's points. Metres, object axes, float32; sides are left, right.

    Attributes:
        lids: [2, N, 3] lids of the neutral face.
        centres: [2, 3] eyeballs.
        radii: [2] of the eyeballs.
        gap: [2, C] heights of the openings of the neutral eyes.
        lips: [L] upper above lower lip of the neutral face.
        tongue: [M + 1, 3] underside of the tongue along its middle, and the middle of the lower lip's top.
        tables: Those of the model.
    """

    lids: np.ndarray
    centres: np.ndarray
    radii: np.ndarray
    gap: np.ndarray
    lips: np.ndarray
    tongue: np.ndarray
    tables: FaceTables

    def clearance(self, expression: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Distance of lids from eyeballs [*B, 2, N] in expressions [*B, E], and directions outward."""
        expression = _plain(expression)
        moved = expression @ self.tables.lids_expression
        offset = (self.lids - self.centres[:, None]) + moved.reshape(*expression.shape[:-1], *self.lids.shape)
        distance = np.sqrt(np.einsum("...c,...c->...", offset, offset))
        return distance - self.radii[:, None], offset / distance[..., None]

    def lid_gap(self, expression: np.ndarray | Tensor) -> np.ndarray:
        """[2, C] heights of the openings between the lids' edges in an expression [E]; negative: overlap."""
        return self.gap + self.tables.lid_gap_expression @ _plain(expression)

    def lips_over(self, expression: np.ndarray | Tensor) -> np.ndarray:
        """[L] heights of the upper above the lower lip in an expression [E], less those of the mean head."""
        return self.lips + self.tables.lips_expression @ _plain(expression) - self.tables.lips

    def tongue_height(self, expression: np.ndarray | Tensor) -> tuple[float, np.ndarray] | None:
        """Height of the tongue's underside over the lower lip, its derivative [E]; None if it is in."""
        basis = self.tables.tongue_expression
        points = self.tongue.astype(np.float64) + np.tensordot(_plain(expression), basis, 1)
        under, lip = points[:-1], points[-1]
        order = under[:, 2].argsort()
        z = under[order, 2]
        if z[-1] < lip[2]:
            return None
        weights = np.array([np.interp(lip[2], z, row) for row in np.eye(len(z))])
        rows = basis[..., 1].astype(np.float64)
        gradient = rows[:, :-1][:, order] @ weights - rows[:, -1]
        return float(weights @ under[order, 1] - lip[1]), gradient


@dataclass(frozen=True)
class FaceTables:
    """Linear pieces of a model. Metres, float32; sides are left, right; K identity, E expression numbers.

    They are arrays: small operations cost numpy less than torch.

    Attributes:
        lids: [2, N, 3] outside of the lids on the mean head.
        lids_identity: [K, 2 N 3].
        lids_expression: [E, 2 N 3].
        eyes: [2, 4] centres and radii of the eyeballs.
        eyes_identity: [K, 2, 4].
        lid_gap: [2, C] opening between the lids' edges in C columns.
        lid_gap_identity: [2, C, K].
        lid_gap_expression: [2, C, E].
        lips: [L] height of the inner upper lip above the inner lower lip.
        lips_identity: [L, K].
        lips_expression: [L, E].
        tongue: [M + 1, 3] underside of the tongue along its middle; last, the middle of the lower lip's top.
        tongue_identity: [K, M + 1, 3].
        tongue_expression: [E, M + 1, 3].
        blink: Indices of eyeBlinkLeft and eyeBlinkRight.
        tongue_out: Index of tongueOut.
        loose: [E] how easily shapes give way.
        may_rise: [E] bool, shapes that may grow too.
    """

    lids: np.ndarray
    lids_identity: np.ndarray
    lids_expression: np.ndarray
    eyes: np.ndarray
    eyes_identity: np.ndarray
    lid_gap: np.ndarray
    lid_gap_identity: np.ndarray
    lid_gap_expression: np.ndarray
    lips: np.ndarray
    lips_identity: np.ndarray
    lips_expression: np.ndarray
    tongue: np.ndarray
    tongue_identity: np.ndarray
    tongue_expression: np.ndarray
    blink: tuple[int, int]
    tongue_out: int
    loose: np.ndarray
    may_rise: np.ndarray

    def person(self, identity: np.ndarray | Tensor) -> Limited:
        """The points of a person [k], k <= K."""
        identity, k = _plain(identity), len(identity)
        eyes = self.eyes + np.tensordot(identity, self.eyes_identity[:k], 1)
        return Limited(
            self.lids + (identity @ self.lids_identity[:k]).reshape(self.lids.shape),
            eyes[:, :3],
            eyes[:, 3],
            self.lid_gap + self.lid_gap_identity[..., :k] @ identity,
            self.lips + self.lips_identity[:, :k] @ identity,
            self.tongue + np.tensordot(identity, self.tongue_identity[:k], 1),
            self,
        )

    def clearance_by_expression(self, points: np.ndarray, outward: np.ndarray) -> np.ndarray:
        """[m, E] derivative of the clearance of lid points (indices [m] into [2 N])."""
        basis = self.lids_expression.reshape(len(self.lids_expression), -1, 3)
        return np.einsum("emc,mc->me", basis[:, points], outward.reshape(-1, 3)[points])

    def clearance_by_identity(self, points: np.ndarray, outward: np.ndarray) -> np.ndarray:
        """[m, K] the same by identity, indices [m] into any number of [2 N]; eyeballs move and grow too."""
        n = self.lids.shape[1]
        basis = self.lids_identity.reshape(len(self.lids_identity), -1, 3)[:, points % (2 * n)]
        eye = self.eyes_identity[:, points % (2 * n) // n]
        moved = np.einsum("kmc,mc->mk", basis - eye[..., :3], outward.reshape(-1, 3)[points])
        return moved - eye[..., 3].T


def _plain(values: np.ndarray | Tensor) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def face_tables(model: MorphableModel) -> FaceTables | None:
    """Tables of a model, made once; None if it has no lids, eyes or lips."""
    return _tables(model.data.template, model)


@cached_per_tensor
def _tables(template: Tensor, model: MorphableModel) -> FaceTables | None:
    data = model.data
    parts = ("skin", "socket_left", "eye_left", "eye_right", "tongue")
    pairs = data.pairs.get("eyelid_pairs"), data.pairs.get("lip_pairs")
    if not set(parts) <= set(data.part_names) or any(p is None or len(p) == 0 for p in pairs):
        return None
    assert pairs[0] is not None and pairs[1] is not None
    mirror = data.mirror_vertices
    rings = _rings(model)
    left = torch.cat(rings[_RIM:])
    lids = torch.stack([left, mirror[left]])
    upper, lower = (torch.stack([w, _mirrored(w, mirror)]) for w in _edges(template, rings[_RIM], pairs[0]))

    def height(basis: Tensor) -> Tensor:
        return torch.einsum("scv,...v->sc...", upper - lower, basis[..., 1])

    eyes, eyes_identity = _eyeballs(model)
    across = pairs[1]
    tongue = torch.cat([_underside(model), across[len(across) // 2, 1:]])
    names = data.expression_names
    stems = [next((s for s in _LOOSE if n.startswith(s)), "") for n in names]
    return FaceTables(
        lids=_kept(template[lids]),
        lids_identity=_kept(data.identity_basis[:, lids].flatten(1)),
        lids_expression=_kept(data.expression_basis[:, lids].flatten(1)),
        eyes=_kept(eyes),
        eyes_identity=_kept(eyes_identity),
        lid_gap=_kept(height(template)),
        lid_gap_identity=_kept(height(data.identity_basis)),
        lid_gap_expression=_kept(height(data.expression_basis)),
        lips=_kept(_drop(template, across)),
        lips_identity=_kept(_drop(data.identity_basis, across).T),
        lips_expression=_kept(_drop(data.expression_basis, across).T),
        tongue=_kept(template[tongue]),
        tongue_identity=_kept(data.identity_basis[:, tongue]),
        tongue_expression=_kept(data.expression_basis[:, tongue]),
        blink=(names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")),
        tongue_out=names.index("tongueOut"),
        loose=np.array([_LOOSE.get(stem, 0.0) for stem in stems]),
        may_rise=np.array([name.startswith(_MAY_RISE) for name in names]),
    )


def _kept(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().numpy(), dtype=np.float32)


def _drop(points: Tensor, pairs: Tensor) -> Tensor:
    """[..., P] height of the first of each pair above the second."""
    return points[..., pairs[:, 0], 1] - points[..., pairs[:, 1], 1]


def _mirrored(weights: Tensor, mirror: Tensor) -> Tensor:
    """Weights [C, V] of the points on the other side."""
    out = torch.zeros_like(weights)
    out[:, mirror] = weights
    return out


def _part(model: MorphableModel, name: str) -> Tensor:
    data = model.data
    return data.triangles[data.triangle_parts == data.part_names.index(name)].unique()


def _underside(model: MorphableModel) -> Tensor:
    """Vertices along the middle of the tongue's underside and its tip."""
    data = model.data
    ids = _part(model, "tongue")
    normals = vertex_normals(data.template, data.triangles)[ids]
    middle = (data.template[ids, 0].abs() < 0.0005) & (normals[:, 1] < 0.3)
    return ids[middle]


def _rings(model: MorphableModel) -> list[Tensor]:
    """Rings of skin around the left eye's opening, from the seam with the socket outwards."""
    data = model.data
    skin = torch.zeros(len(data.template), dtype=torch.bool)
    skin[_part(model, "skin")] = True
    reached = torch.zeros_like(skin)
    reached[_part(model, "socket_left")] = True
    reached &= skin
    rings = [reached.nonzero().reshape(-1)]
    triangles = data.triangles[skin[data.triangles].all(dim=1)]
    for _ in range(_RINGS - 1):
        near = torch.zeros_like(skin)
        near[triangles[reached[triangles].any(dim=1)]] = True
        rings.append((near & ~reached).nonzero().reshape(-1))
        reached = reached | near
    return rings


def _edges(template: Tensor, ring: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """[C, V] weights of points on the left upper and lower lid's edge, in even steps between the corners."""
    own = pairs[template[pairs[:, 0], 0] > 0]
    middle = template[own].mean(dim=1).numpy()
    middle = middle[middle[:, 0].argsort()]
    edge = template[ring].numpy()
    above = edge[:, 1] > np.interp(edge[:, 0], middle[:, 0], middle[:, 1])
    corners = np.zeros(len(edge), dtype=bool)
    corners[[edge[:, 0].argmin(), edge[:, 0].argmax()]] = True
    x = np.linspace(edge[:, 0].min(), edge[:, 0].max(), _COLUMNS + 2)[1:-1]
    rows = []
    for lid in (above | corners, ~above | corners):
        ids = ring.numpy()[lid][edge[lid, 0].argsort()]
        along = np.sort(edge[lid, 0])
        weights = np.zeros((_COLUMNS, len(template)), dtype=np.float32)
        for i in range(len(ids)):
            weights[:, ids[i]] += np.interp(x, along, np.eye(len(ids))[i])
        rows.append(torch.from_numpy(weights))
    return rows[0], rows[1]


def _eyeballs(model: MorphableModel) -> tuple[Tensor, Tensor]:
    """Centres and mean radii of both eyeballs, [2, 4], and how identity changes them, [K, 2, 4]."""
    data = model.data
    mean, rows = [], []
    for side in ("left", "right"):
        ids = _part(model, f"eye_{side}")
        joint = data.joint_names.index(f"eye_{side}")
        centre = data.joints_template[joint]
        offset = data.template[ids] - centre
        outward = offset / offset.norm(dim=1, keepdim=True)
        moved = data.identity_basis[:, ids] - data.joints_identity_basis[:, joint, None]
        radius = torch.einsum("kvc,vc->kv", moved, outward).mean(dim=1)
        mean.append(torch.cat([centre, offset.norm(dim=1).mean()[None]]))
        rows.append(torch.cat([data.joints_identity_basis[:, joint], radius[:, None]], dim=1))
    return torch.stack(mean), torch.stack(rows, dim=1)
