# SPDX-License-Identifier: Apache-2.0
"""Joints and skin weights: neck, head, jaw and the two eyes, collapsed from the default rig of the source."""

from __future__ import annotations

import numpy as np
from scipy.sparse import block_diag, csr_matrix, identity

from .mesh import HeadMesh, neck_relaxation
from .mpfb2 import BodyMesh, SourceData, read_bone_parents, read_weights

JOINT_NAMES = ("neck", "head", "jaw", "eye_left", "eye_right")
JOINT_PARENTS = (-1, 0, 1, 1, 1)
JOINT_MIRROR = (0, 1, 2, 4, 3)
_BONES = {"neck01": 0, "head": 1, "jaw": 2, "eye.L": 3, "eye.R": 4}
_CUBES = ("joint-neck", "joint-head", "joint-mouth")
_RIGID_PARTS = {"eye_left": 3, "eye_right": 4, "teeth_upper": 1, "teeth_lower": 2, "tongue": 2}


def point_operator(body: BodyMesh, head: HeadMesh) -> csr_matrix:
    """Operator from body vertices to head points: the head's vertices, then the five joints.

    The neck's lowest rings are smoothed on the way. Neck, head and jaw pivots are the centres of the
    source's marker cubes; an eye's joint is the mean of its eyeball's vertices (within 0.05 mm of the centre
    of the best sphere).

    Returns:
        ``[V + 5, N]`` sparse.
    """
    groups = [np.array([i]) for i in head.source_ids]
    groups += [body.group_vertices(name) for name in _CUBES]
    groups += [head.source_ids[head.part_vertices(name)] for name in ("eye_left", "eye_right")]
    rows = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    values = np.concatenate([np.full(len(g), 1.0 / len(g)) for g in groups])
    select = csr_matrix((values, (rows, np.concatenate(groups))), shape=(len(groups), len(body.vertices)))
    relax = block_diag([neck_relaxation(head), identity(len(JOINT_NAMES))])
    return csr_matrix(relax @ select)


def skin_weights(source: SourceData, body: BodyMesh, head: HeadMesh) -> np.ndarray:
    """Collapses the source's weights by bone ancestry onto the five joints.

    Eyeballs, teeth and tongue are rigid. Rows sum to 1 and are exactly mirror-symmetric.

    Returns:
        ``[V, 5]`` float64.
    """
    parents = read_bone_parents(source.rig_path())
    out = np.zeros((len(head.source_ids), len(JOINT_NAMES)))
    for bone, weight in read_weights(source.weights_path(), len(body.vertices)).items():
        out[:, _nearest_joint(bone, parents)] += weight[head.source_ids]
    out[:, 1] += out[:, 3:].sum(axis=1)
    out[:, 3:] = 0.0
    for name, joint in _RIGID_PARTS.items():
        rigid = head.part_vertices(name)
        out[rigid] = np.eye(len(JOINT_NAMES))[joint]
    out = 0.5 * (out + out[head.mirror_vertices][:, JOINT_MIRROR])
    return out / out.sum(axis=1, keepdims=True)


def _nearest_joint(bone: str, parents: dict[str, str]) -> int:
    while bone:
        if bone in _BONES:
            return _BONES[bone]
        bone = parents.get(bone, "")
    return 0
