import dataclasses

import numpy as np
import pytest
import torch

import hiface
from hiface.synthetic import generator, shots
from hiface.synthetic.cameras import sample_view
from hiface.synthetic.expressions import lips_apart, sample_expression
from hiface.synthetic.eyes import Lids, draw_lashes, lid_shade, lid_vertices
from hiface.synthetic.face_paint import paint_features
from hiface.synthetic.features import sample_features
from hiface.synthetic.lights import sample_surroundings
from hiface.synthetic.scene import Canvas

SIZE = 200
FOCAL = 800.0


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def lids_in_front(model, blink):
    """Lids of the mean head, 0.6 m in front of a camera that looks at the left eye, and its matrix."""
    expression = model.expression_vector({"eyeBlinkLeft": blink, "eyeBlinkRight": blink})
    verts = model.vertices(
        torch.zeros(model.data.n_identity), expression, torch.zeros(model.data.n_joints, 3)
    )
    names = model.data.joint_names
    eyes = model.data.joints_template[[names.index("eye_left"), names.index("eye_right")]]
    flip = torch.tensor([1.0, -1.0, -1.0])
    shift = torch.tensor([0.0, 0.0, 0.6]) - eyes[0] * flip
    up, own_left = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    lids = Lids((verts * flip + shift)[lid_vertices(model)], eyes * flip + shift, up, own_left)
    K = torch.tensor([[FOCAL, 0.0, SIZE / 2], [0.0, FOCAL, SIZE / 2], [0.0, 0.0, 1.0]])
    return lids, K


def painted(model, blink, **changes):
    """What lashes leave of a white wall behind them, [SIZE, SIZE], and the row of the upper lid's middle."""
    lids, K = lids_in_front(model, blink)
    style = sample_features(np.random.default_rng(0), True, True).lashes
    style = dataclasses.replace(style, **{"lower": 0.0, "wing_m": 0.0, "upper": 1.0, "curl": 0.5} | changes)
    canvas = Canvas(SIZE)
    canvas.colour += 1.0
    canvas.depth[:] = 0.7
    draw_lashes(canvas, lids, style, K, sample_surroundings(np.random.default_rng(0)))
    n = lids.edges_cam.shape[2]
    middle = lids.edges_cam[0, 0, n // 2]
    row = FOCAL * float(middle[1] / middle[2]) + SIZE / 2
    return canvas.colour.mean(dim=0).reshape(SIZE, SIZE), row


def test_lids_run_from_the_inner_corner_outwards(model):
    lids, _ = lids_in_front(model, 0.0)
    sideways = lids.edges_cam[..., 0] - lids.eyes_cam[:, None, None, 0]
    assert (sideways[0].diff(dim=-1) >= 0).all() and (sideways[1].diff(dim=-1) <= 0).all()
    assert (lids.edges_cam[:, 0, 3:-3, 1] < lids.edges_cam[:, 1, 3:-3, 1]).all()
    assert lids.openness().min() > 0.8
    assert lids_in_front(model, 1.0)[0].openness().max() < 0.2


def test_lashes_turn_up_on_open_eyes_and_down_on_closed_ones(model):
    for blink, above in ((0.0, True), (1.0, False)):
        wall, row = painted(model, blink, line=0.0)
        dark = (1 - wall)[:, SIZE // 2 - 30 : SIZE // 2 + 30].sum(dim=1)
        rows = torch.arange(SIZE) + 0.5
        assert float(dark.max()) > 5
        assert bool((dark * rows).sum() / dark.sum() < row) == above


def test_styles_of_lashes(model):
    none, _ = painted(model, 0.0, upper=0.0, line=0.0)
    assert torch.equal(none, torch.ones_like(none))
    dark = {k: float((1 - painted(model, 0.0, **v)[0]).sum()) for k, v in STYLES.items()}
    assert dark["plain"] > 1.1 * dark["thin"]
    assert dark["lower"] > dark["plain"] and dark["wing"] > dark["plain"]


STYLES = {
    "plain": {},
    "thin": {"upper": 0.3, "line": 0.3},
    "lower": {"lower": 0.5},
    "wing": {"wing_m": 0.008},
}


def test_eyeball_is_dark_below_the_upper_lid_and_in_the_corners(model):
    lids, _ = lids_in_front(model, 0.0)
    edges = lids.edges_cam[0]
    n = edges.shape[1]
    upper, lower = edges[0, n // 2], edges[1, n // 2]
    corner = edges[:, 0].mean(dim=0)
    points = torch.stack([upper, (upper + lower) / 2, corner]) - lids.eyes_cam[0]
    outward = torch.nn.functional.normalize(points, dim=1).T.numpy()
    top, middle, inner = lid_shade(lids, 0, outward, 0.8).tolist()
    assert top < 0.4 and middle > 0.85 and inner < 0.75
    assert lid_shade(lids, 0, outward, 0.0)[0] > 0.95


def at_points(model, texture, vertices):
    """Texels [N, 3] at vertices of the skin."""
    data = model.data
    uv = torch.zeros(data.n_vertices, 2)
    skin = data.triangle_parts == data.part_names.index("skin")
    uv[data.triangles[skin].reshape(-1)] = data.uv[data.uv_triangles[skin].reshape(-1)]
    x, y = (uv[vertices] * texture.shape[-1]).long().clamp(0, texture.shape[-1] - 1).unbind(1)
    return texture[:, y, x].T


def test_paint_changes_what_it_names(model):
    rng = np.random.default_rng(3)
    style = sample_features(rng, False, False)
    plain = dataclasses.replace(
        style.lids, crease=0.0, hood=0.0, shadow=0.0, bag=0.0, circle=0.0, rim=0.0, crease_m=0.006
    )
    still = dataclasses.replace(style, lids=plain, brow_fade=0.0, brow_ragged=0.0, lip_fade=0.0)
    base = model.data.albedo_mean.clone()

    def after(new):
        texture = base.clone()
        paint_features(model, texture, new, np.random.default_rng(0))
        return texture

    torch.testing.assert_close(after(still), base, atol=1e-6, rtol=0)
    lids = after(dataclasses.replace(still, lids=dataclasses.replace(plain, crease=1.0)))
    changed = ((lids - base).abs().sum(dim=0) > 1e-3).float()
    assert (lids <= base + 1e-6).all() and 20 < changed.sum() < 0.01 * changed.numel()
    lips = model.data.vertex_masks["lips"].nonzero().reshape(-1)
    faded = at_points(model, after(dataclasses.replace(still, lip_fade=1.0)), lips).mean(dim=0)
    assert faded[1] > 1.15 * at_points(model, base, lips).mean(dim=0)[1]
    brows = after(dataclasses.replace(still, brow_fade=0.9)) - base
    assert brows.max() > 0.05 and brows.min() > -0.05


def test_mouths(model):
    rng = np.random.default_rng(0)
    drawn = [sample_expression(model.data.expression_names, rng) for _ in range(400)]
    smiles = [v for v in drawn if min(v.get("mouthSmileLeft", 0), v.get("mouthSmileRight", 0)) > 0.4]
    assert 0.1 < len(smiles) / len(drawn) < 0.3
    assert np.mean([lips_apart(v) > 0.3 for v in smiles]) > 0.6
    lids = np.array([v["eyeBlinkLeft"] for v in drawn])
    assert 0.05 < np.median(lids) < 0.25 and (lids > 0.7).mean() > 0.015
    assert lips_apart({}) == 0.0 and lips_apart({"jawOpen": 0.3, "mouthClose": 0.3}) == 0.0
    assert lips_apart({"jawOpen": 1.0}) > 0.8


def test_heads_are_mostly_upright():
    rng = np.random.default_rng(0)
    R = torch.stack([sample_view(rng).R_cam_head for _ in range(1500)])
    roll = torch.rad2deg(torch.atan2(R[:, 0, 1], -R[:, 1, 1])).abs()
    assert (roll < 30).float().mean() > 0.96 and roll.max() < 75


def test_mouth_never_shows_through_the_skin(model, monkeypatch):
    """Cheeks and chins of wide smiles are thin in some identities."""
    shape = {"mouthSmile": 0.9, "mouthUpperUp": 0.4, "mouthLowerDown": 0.4, "eyeBlink": 0.0}
    smile = {f"{stem}{side}": v for stem, v in shape.items() for side in ("Left", "Right")}
    monkeypatch.setattr(shots, "sample_expression", lambda *_: smile | {"jawOpen": 0.1})
    for sample in generator.generate_batch(model, range(0, 60, 3), 128):
        lips = sample.landmarks68_px[48:60]
        margin = 0.04 * float((sample.box[2:] - sample.box[:2]).max()) + 1
        low, high = lips.min(dim=0).values - margin, lips.max(dim=0).values + margin
        y, x = (sample.segmentation == 3).nonzero().unbind(1)
        assert ((x >= low[0] - 1) & (x <= high[0]) & (y >= low[1] - 1) & (y <= high[1])).all()
