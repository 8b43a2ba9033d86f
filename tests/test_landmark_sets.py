# SPDX-License-Identifier: Apache-2.0
"""The landmark files that ship with the open model, against its mesh."""

import pytest
import torch

from hiface.assets import load_json_asset
from hiface.morphable import load_model
from hiface.morphable.contour import gather_contour, select_contour

POINT_SETS = ("ibug68", "now7", "dense", "iris")  # exactly symmetric
FLIP = torch.tensor([-1.0, 1.0, 1.0])
RIGHT_UPPER_LID, RIGHT_LOWER_LID = (37, 38), (41, 40)


@pytest.fixture(scope="module")
def data():
    return load_model("open").data


@pytest.fixture(scope="module")
def ibug(data):
    return data.landmark_sets["ibug68"].positions(data.template, data.triangles)


def _expressed(data, **weights):
    values = torch.zeros(len(data.expression_names))
    for name, weight in weights.items():
        values[data.expression_names.index(name)] = weight
    return data.template + torch.einsum("e,evc->vc", values, data.expression_basis)


@pytest.mark.parametrize("name", POINT_SETS)
def test_barycentric_weights_are_inside_their_triangle(data, name):
    points = data.landmark_sets[name]
    assert points.barycentric.min() >= 0.0
    torch.testing.assert_close(points.barycentric.sum(-1), torch.ones(len(points)), atol=1e-6, rtol=0)
    assert 0 <= points.triangle_ids.min() and points.triangle_ids.max() < len(data.triangles)


@pytest.mark.parametrize("name", POINT_SETS)
def test_sets_are_mirror_symmetric(data, name):
    points = data.landmark_sets[name]
    p = points.positions(data.template, data.triangles)
    assert points.mirror is not None
    assert torch.equal(points.mirror[points.mirror], torch.arange(len(points)))
    assert (p[points.mirror] * FLIP - p).abs().max() < 1e-6


@pytest.mark.parametrize("name", ("ibug68", "now7", "dense", "realy85"))
def test_points_lie_on_skin(data, name):
    parts = data.triangle_parts[data.landmark_sets[name].triangle_ids]
    assert set(parts.tolist()) == {data.part_names.index("skin")}


def test_iris_points_lie_on_their_eyeball(data):
    parts = data.triangle_parts[data.landmark_sets["iris"].triangle_ids].tolist()
    right, left = data.part_names.index("eye_right"), data.part_names.index("eye_left")
    assert parts == [right] * 5 + [left] * 5
    p = data.landmark_sets["iris"].positions(data.template, data.triangles)
    width = (p[1] - p[3]).norm()
    assert 0.0110 < width < 0.0126
    assert p[0, 0] < 0 < p[5, 0]
    assert p[1, 0] < p[0, 0] < p[3, 0] and p[2, 1] > p[0, 1] > p[4, 1]


def test_subject_right_comes_first(ibug):
    assert ibug[36, 0] < ibug[39, 0] < 0 < ibug[42, 0] < ibug[45, 0]
    assert ibug[48, 0] < 0 < ibug[54, 0] and ibug[0, 0] < 0 < ibug[16, 0] and ibug[17, 0] < 0 < ibug[26, 0]
    middle = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert ibug[middle, 0].abs().max() < 1e-6


def test_brows_eyes_and_nose_are_in_order(ibug):
    x, y, z = ibug.unbind(-1)
    for row in (range(17, 27), range(31, 36), range(48, 55), range(60, 65), range(36, 40)):
        assert (x[list(row)].diff() > 0).all()
    assert (y[17:22] > y[36:42].max() + 0.005).all() and (y[17:22] < y[36:42].max() + 0.030).all()
    assert (y[27:31].diff() < 0).all() and (z[27:31].diff() > 0).all()
    assert z.argmax() == 30
    assert y[33] < y[31:36].max() and y[33] < y[30] and y[33] > y[51]
    assert x[31] > x[36] and abs(x[31]) < abs(x[48]) < abs(x[36]) + 0.005


def test_brow_points_lie_on_the_upper_middle_of_the_painted_hair(data):
    brows = [*range(17, 27)]
    points = data.landmark_sets["ibug68"]
    corners = data.uv[data.uv_triangles[points.triangle_ids[brows]]]
    uv = (points.barycentric[brows, :, None] * corners).sum(dim=1)
    cover = data.albedo_basis[data.albedo_names.index("brow_density")].abs().amax(dim=0)
    size = cover.shape[-1]
    column, row = (uv * size).long().unbind(-1)
    assert (cover[row, column] > 0.5 * cover.max()).all()
    column_of = [cover[:, c] > 0.5 * cover.max() for c in column.tolist()]
    middle = torch.stack([c.nonzero().float().mean() for c in column_of])
    assert (row <= middle + 1.0).all()


def test_lids_and_lips_are_above_and_below(ibug):
    y = ibug[:, 1]
    for upper, lower in zip(RIGHT_UPPER_LID, RIGHT_LOWER_LID, strict=True):
        assert y[upper] - y[lower] > 0.004
    assert y[51] > y[62] - 1e-3 > y[57] and y[62] > y[57] and y[50] > y[61] and y[67] > y[58]
    assert (ibug[[61, 62, 63], 1] - ibug[[67, 66, 65], 1]).abs().max() < 0.003
    assert (ibug[[61, 62, 63], 0] - ibug[[67, 66, 65], 0]).abs().max() < 0.001
    corners = ibug[[48, 60, 64, 54]]
    assert (corners[:, 0].diff() > 0).all() and (corners[0] - corners[1]).norm() < 0.005


def test_jaw_goes_from_ear_to_chin(ibug):
    jaw = ibug[:17]
    assert (jaw[:9, 1].diff() < 0).all() and (jaw[:, 0].diff() > -1e-3).all()
    assert jaw[8, 1] == ibug[:, 1].min()
    assert (jaw[0, 1] - ibug[36:42, 1].mean()).abs() < 0.01
    step = jaw[:, :2].diff(dim=0).norm(dim=-1)
    assert step.max() / step.min() < 3.0
    across = (ibug[45] - ibug[36]).norm()
    assert step.argmax() in (2, 13) and 0.11 < jaw[9, 0] / across < 0.17 and 0.31 < jaw[10, 0] / across < 0.40


def test_now7_is_part_of_ibug68(data, ibug):
    p = data.landmark_sets["now7"].positions(data.template, data.triangles)
    torch.testing.assert_close(p, ibug[[36, 39, 42, 45, 33, 48, 54]])


def test_realy85_is_ibug68_and_points_of_cheeks_temples_and_chin(data, ibug):
    points = data.landmark_sets["realy85"]
    p = points.positions(data.template, data.triangles)
    torch.testing.assert_close(p[:68], ibug)
    assert len(points) == 85 and points.barycentric.min() >= 0
    off = (p[points.mirror] * FLIP - p).norm(dim=-1)
    assert off[[i for i in range(85) if i not in (68, 69)]].max() < 1e-6 and 0 < off[68] < 4e-3
    beside_nose, cheekbone = p[70], p[76]
    assert p[35 - 4, 1] < beside_nose[1] < p[28, 1] and p[36, 0] < beside_nose[0] < p[31, 0]
    assert cheekbone[0] < p[36, 0] and p[48, 1] < cheekbone[1] < p[36, 1]
    cheek = data.vertex_masks["cheek"][data.triangles[points.triangle_ids]].any(dim=1)
    assert cheek[[68, 69, 72, 73, 76, 77]].all() and abs(float(p[79, 0])) < 1e-4


def test_dense_set_covers_the_face(data, ibug):
    points = data.landmark_sets["dense"]
    p = points.positions(data.template, data.triangles)
    assert len(points) == 320
    torch.testing.assert_close(p[:68], ibug)
    gap = torch.cdist(p, p).fill_diagonal_(1.0).min(dim=-1).values
    assert gap[68:].min() > 5e-4
    face = data.template[data.vertex_masks["face"]]
    face = face[face[:, 1] < ibug[19, 1] + 0.03]
    assert torch.cdist(face, p).min(dim=-1).values.max() < 0.014
    near_eyes = (torch.cdist(p, ibug[36:48]).min(dim=-1).values < 0.012).sum()
    assert near_eyes > 50


def test_contour_lines_are_symmetric_and_run_to_the_jaw_line(data, ibug):
    lines = data.contour.positions(data.template, data.triangles)
    assert lines.shape[0] == 17 and data.contour.valid.all()
    assert (lines.flip(0) * FLIP - lines).abs().max() < 1e-6
    assert (data.triangle_parts[data.contour.points.triangle_ids] == data.part_names.index("skin")).all()
    step = lines.diff(dim=1).norm(dim=-1)
    assert step.max() < 0.006 and step.min() > 2e-4
    assert (lines[:8, :, 0].diff(dim=1) < 6e-4).all() and (lines[:7, :, 2].diff(dim=1) < 1e-3).all()
    assert (lines[8, :, 1].diff() < 0).all()
    assert (lines[:8, -1, 1].diff() < 0).all() and (lines[:7, 0, 1].diff() < 0).all()


def _turned(lines, yaw_degrees):
    yaw = torch.deg2rad(torch.tensor(float(yaw_degrees)))
    turn = torch.tensor([[yaw.cos(), 0, yaw.sin()], [0, 1, 0], [-yaw.sin(), 0, yaw.cos()]])
    return (lines @ turn.T) * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, 0.0, 1.0])


def test_frontal_contour_is_the_fixed_jaw(data, ibug):
    lines = data.contour.positions(data.template, data.triangles)
    chosen = gather_contour(lines, select_contour(_turned(lines, 0), data.contour.valid))
    one_candidate = lines.diff(dim=1).norm(dim=-1).max()
    assert (chosen - ibug[:17]).norm(dim=-1).max() < one_candidate


def test_turned_contour_is_jaw_line_on_near_side_and_cheek_on_far_side(data):
    lines = data.contour.positions(data.template, data.triangles)
    last = lines.shape[1] - 1
    to_left = select_contour(_turned(lines, 40), data.contour.valid)
    to_right = select_contour(_turned(lines, -40), data.contour.valid)
    assert (to_left[:8] == last).all() and (to_left[11:] < last // 2).all()
    assert torch.equal(to_left.flip(0), to_right)


@pytest.mark.parametrize("name", ("eyelid_pairs", "lip_pairs"))
def test_pairs_are_symmetric_and_upper_first(data, name):
    pairs = data.pairs[name]
    mirrored = {tuple(row) for row in data.mirror_vertices[pairs].tolist()}
    assert mirrored == {tuple(row) for row in pairs.tolist()}
    upper, lower = data.template[pairs[:, 0]], data.template[pairs[:, 1]]
    assert (upper[:, 0] - lower[:, 0]).abs().max() < 0.0035
    if name == "eyelid_pairs":
        assert (upper[:, 1] >= lower[:, 1] - 1e-3).all() and (upper[:, 1] - lower[:, 1]).max() > 0.005
        sides = load_json_asset("open/landmarks/eyelid_pairs.json")["eyes"]
        assert [s == "left" for s in sides] == (upper[:, 0] > 0).tolist()


def test_blink_brings_the_lids_together_and_jaw_open_parts_the_lips(data):
    def gap(vertices, name):
        p = vertices[data.pairs[name]]
        return p[:, 0, 1] - p[:, 1, 1]

    closed = _expressed(data, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    assert gap(data.template, "eyelid_pairs").max() > 0.007
    assert gap(closed, "eyelid_pairs").max() < 0.003 and gap(closed, "eyelid_pairs").min() > -0.004
    wide = _expressed(data, jawOpen=0.7)
    assert gap(wide, "lip_pairs").max() > 0.015 and gap(data.template, "lip_pairs").abs().max() < 0.003


def test_lid_points_follow_a_blink_and_corners_a_smile(data, ibug):
    landmarks = data.landmark_sets["ibug68"]
    closed = landmarks.positions(_expressed(data, eyeBlinkLeft=1.0, eyeBlinkRight=1.0), data.triangles)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert closed[upper, 1] - closed[lower, 1] < 0.0005
    smile = landmarks.positions(_expressed(data, mouthSmileLeft=1.0, mouthSmileRight=1.0), data.triangles)
    assert smile[48, 0] < ibug[48, 0] and smile[48, 1] > ibug[48, 1] + 0.003


REGIONS = ("nose", "mouth", "forehead", "cheek")


def test_masks_are_there_and_symmetric(data):
    expected = {*REGIONS, "face", "skin", "lips", "eyelids", "ears", "neck", "scalp", "brows"}
    assert expected | {"left_eye_region", "right_eye_region"} <= set(data.vertex_masks)
    for name in expected:
        mask = data.vertex_masks[name]
        assert mask.dtype == torch.bool and mask.any() and torch.equal(mask, mask[data.mirror_vertices])
    left, right = (data.vertex_masks[f"{side}_eye_region"] for side in ("left", "right"))
    assert torch.equal(left, right[data.mirror_vertices]) and not (left & right).any()


def test_regions_are_disjoint_and_inside_the_face(data):
    masks = data.vertex_masks
    total = torch.stack([masks[name].int() for name in REGIONS]).sum(dim=0)
    assert total.max() == 1
    assert not ((total > 0) & ~masks["face"]).any()
    assert not (masks["face"] & (masks["ears"] | masks["scalp"])).any()
    assert not (masks["skin"] & masks["scalp"]).any()


def test_masks_hold_their_landmarks(data):
    landmarks = data.landmark_sets["ibug68"]
    corner = landmarks.barycentric.argmax(-1)
    vertex = data.triangles[landmarks.triangle_ids].gather(1, corner[:, None])[:, 0]
    masks = data.vertex_masks
    assert masks["nose"][vertex[27:31]].all() and masks["mouth"][vertex[48:60]].all()
    assert masks["lips"][vertex[48:68]].float().mean() > 0.8
    assert masks["eyelids"][vertex[36:48]].all()
    assert masks["right_eye_region"][vertex[36:42]].all() and masks["left_eye_region"][vertex[42:48]].all()
    assert masks["forehead"][vertex[18:26]].all() and masks["face"][vertex[17:68]].float().mean() > 0.95


def test_skin_mask_leaves_out_eyes_teeth_and_sockets(data):
    for name in ("eye_left", "teeth_upper", "tongue", "socket_right", "mouth_interior"):
        part = data.triangles[data.triangle_parts == data.part_names.index(name)]
        inside = data.vertex_masks["skin"][part].float().mean()
        assert inside < 0.05, name
