import dataclasses

import numpy as np
import pytest
import torch

import hiface
from hiface.colour import srgb_to_linear
from hiface.render.shade import sh_basis
from hiface.render.visibility import head_visibility
from hiface.synthetic import generator
from hiface.synthetic.backgrounds import sample_background
from hiface.synthetic.camera_effects import apply_effects, plain_srgb
from hiface.synthetic.cameras import frame_camera, head_rotation, sample_view
from hiface.synthetic.compose import skin_colour_of
from hiface.synthetic.effects import ALL_EFFECTS, PLAIN
from hiface.synthetic.expressions import (
    Gaze,
    add_gaze,
    limit_expression,
    pose_vector,
    sample_expression,
    sample_gaze,
)
from hiface.synthetic.head import person_texture
from hiface.synthetic.lights import plain_light, sample_surroundings
from hiface.synthetic.people import sample_person
from hiface.synthetic.shots import draw_shot, limit_act, make_picture, pose_person, sitter_of
from hiface.synthetic.studio import render_person, studio_params

SIZE = 64
SEEDS = list(range(0, 24))


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def samples(model):
    return generator.generate_batch(model, SEEDS, SIZE)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a == b


def test_same_seed_same_picture_in_any_batch(model, samples):
    again = generator.generate_batch(model, [SEEDS[7]], SIZE)[0]
    assert same(samples[7], again)
    assert not torch.equal(samples[7].image_srgb, samples[6].image_srgb)


def test_three_pictures_share_a_person(samples):
    assert torch.equal(samples[0].params.identity, samples[2].params.identity)
    assert not torch.equal(samples[2].params.identity, samples[3].params.identity)
    assert samples[2].person == 0 and samples[3].person == 1


def test_labels_follow_from_params(model, samples):
    for sample in samples:
        p = sample.params
        verts_cam = model.vertices_cam(p)
        for name, px in (
            ("ibug68", sample.landmarks68_px),
            ("dense", sample.dense_px),
            ("iris", sample.iris_px),
        ):
            again = p.camera.cam_to_px(model.landmarks_cam(name, verts_cam))
            torch.testing.assert_close(again, px, atol=0.02, rtol=0)
        box = torch.cat([sample.landmarks68_px.min(0).values, sample.landmarks68_px.max(0).values])
        torch.testing.assert_close(box, sample.box)


def test_head_pose_is_the_pose_of_the_head_joint(model, samples):
    for sample in samples[:12]:
        p = sample.params
        R_head = sample.T_cam_head[:3, :3]
        torch.testing.assert_close(R_head @ R_head.T, torch.eye(3), atol=1e-5, rtol=0)
        # Vertices bound to the head alone move rigidly with it.
        bound = (model.data.skin_weights[:, 1] == 1).nonzero().reshape(-1)[::50]
        rest = model.shape(p.identity, p.expression)[bound]
        expected = rest @ R_head.T + sample.T_cam_head[:3, 3]
        torch.testing.assert_close(model.vertices_cam(p)[bound], expected, atol=1e-4, rtol=0)


def test_box_has_the_wanted_size(samples):
    sides = torch.stack([(s.box[2:] - s.box[:2]).max() for s in samples]) / SIZE
    assert 0.2 < sides.min() and sides.max() < 0.85


def test_visible_points(samples):
    share = torch.stack([s.visible68.float().mean() for s in samples])
    assert 0.5 < share.mean() < 0.97
    for s in samples:
        outside = ((s.landmarks68_px < 0) | (s.landmarks68_px >= SIZE)).any(dim=1)
        assert not (s.visible68 & outside).any()
        # What is visible lies on the face or at its outline, never under hair or a thing.
        x, y = s.landmarks68_px[s.visible68].long().unbind(1)
        hidden = torch.isin(s.segmentation[y, x], torch.tensor([5], dtype=torch.uint8))
        assert not hidden.any()


def test_shut_lids_hide_the_irises(model):
    sitter, bare, seen = sitter_of(model, 4, PLAIN), generator.Style(128, PLAIN), []
    shots = (draw_shot(model, sitter, np.random.default_rng(seed), 128, PLAIN) for seed in range(50))
    shot = next(s for s in shots if s.view.R_cam_head[2, 2] < -0.98 and s.view.box_share < 0.6)
    for blink in (0.0, 1.0):
        values = {"eyeBlinkLeft": blink, "eyeBlinkRight": blink}
        act = limit_act(model, sitter.person, dataclasses.replace(shot.act, values=values))
        camera, lights = shot.picture.params.camera, shot.picture.lights
        posed = pose_person(model, sitter.person, act)
        picture = make_picture(model, sitter, act, posed, camera, shot.view.body_turn, lights)
        now = dataclasses.replace(shot, act=act, picture=picture)
        sample = generator.take_picture(model, now, np.random.default_rng(0), bare, 12).sample
        seen.append(float(sample.visible_iris.float().mean()))
    assert seen[0] > 0.6 and seen[1] == 0


def test_a_turned_head_hides_its_far_side(model):
    checked, bare = 0, generator.Style(144, ALL_EFFECTS - {"glasses", "occluders"})
    for sample in generator.generate_batch(model, range(300, 390, 3), bare):
        sideways = float(sample.T_cam_head[0, 2])
        if abs(sideways) > 0.87 and (sample.landmarks68_px >= 0).all():
            right, left = (sample.visible68[a].float().mean() for a in (slice(36, 42), slice(42, 48)))
            # The head's z axis points to the right of the picture: the person's left eye is the far one.
            near, far = (right, left) if sideways > 0 else (left, right)
            assert far <= near and far < 0.7
            checked += 1
    assert checked > 0


def test_alpha_and_segmentation_agree(samples):
    for s in samples:
        person = s.segmentation > 0
        assert (s.alpha[person] > 0).float().mean() > 0.95
        assert (s.alpha[~person] < 255).float().mean() > 0.95
        assert s.segmentation.max() <= 6 and s.image_srgb.dtype == s.alpha.dtype == torch.uint8
    parts = torch.stack([torch.bincount(s.segmentation.flatten().long(), minlength=7) for s in samples]).sum(
        0
    )
    assert (parts > 0).all()


def test_skin_covers_the_human_range(model):
    rng = np.random.default_rng(0)
    levels = []
    for _ in range(40):
        person = sample_person(model, rng)
        colour = skin_colour_of(model, person_texture(model, person, rng))
        levels.append(float(colour.mean()))
        assert colour[0] >= colour[1] >= 0.7 * colour[2]
    assert min(levels) < 0.12 and max(levels) > 0.35


def test_expressions_are_possible(model):
    rng = np.random.default_rng(1)
    names = model.data.expression_names
    neutral = 0
    for _ in range(200):
        values = add_gaze(sample_expression(names, rng), sample_gaze(rng, 0.1, 0.0))
        assert set(values) <= set(names)
        assert all(0.0 <= v <= 1.0 for v in values.values())
        assert values.get("mouthClose", 0.0) <= values.get("jawOpen", 0.0)
        assert not (values["eyeLookUpLeft"] if "eyeLookUpLeft" in values else 0) * values.get(
            "eyeLookDownLeft", 0
        )
        neutral += max(v for n, v in values.items() if not n.startswith("eye")) < 0.3
    assert 50 < neutral < 150
    assert limit_expression({"mouthClose": 0.9, "jawOpen": 0.2})["mouthClose"] == pytest.approx(0.2)


def test_gaze_turns_the_eyes(model):
    from hiface.morphable.skinning import joint_transforms

    pose = pose_vector(model.data.joint_names, Gaze((0.2, 0.3), 0.1), np.zeros((2, 3)))
    R, _ = joint_transforms(model.data.joints_template, pose, model.data.joint_parents)
    direction = R[model.data.joint_names.index("eye_left")] @ torch.tensor([0.0, 0.0, 1.0])
    assert float(torch.atan2(direction[0], direction[2])) == pytest.approx(0.2, abs=1e-4)
    assert float(torch.asin(direction[1])) == pytest.approx(0.1, abs=1e-4)


def test_head_rotation_signs():
    left = torch.tensor(head_rotation(0.3, 0, 0)) @ torch.tensor([0, 0, 1.0], dtype=torch.float64)
    assert left[0] > 0 and left[2] < 0  # the own left is the right of the picture; facing the camera
    up = torch.tensor(head_rotation(0, 0.3, 0)) @ torch.tensor([0, 0, 1.0], dtype=torch.float64)
    assert up[1] < 0
    assert np.allclose(np.linalg.det(head_rotation(0.3, -0.2, 0.5)), 1)


def test_camera_frames_the_landmarks(model):
    rng = np.random.default_rng(5)
    points = model.landmarks("ibug68", model.data.template)
    for _ in range(20):
        view = sample_view(rng)
        camera = frame_camera(view, points, torch.eye(4), 200)
        px = camera.project(points)
        low, high = px.min(0).values, px.max(0).values
        assert float((high - low).max()) == pytest.approx(view.box_share * 200, rel=1e-3)
        assert ((low + high) / 400).tolist() == pytest.approx(view.box_centre, abs=1e-3)


def test_sh_light_is_the_light_without_shadows():
    lights = sample_surroundings(np.random.default_rng(3))
    normals = torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    exact = plain_light(normals, lights).T
    approx = sh_basis(normals) @ lights.sh_light()
    assert (exact - approx).abs().mean() < 0.08 * exact.abs().mean()


def test_visibility_table_darkens_what_is_hidden(model):
    table = head_visibility(model)
    data = model.data
    part = data.triangles[data.triangle_parts == data.part_names.index("mouth_interior")].unique()
    assert table.closed.shape == (data.n_vertices, 96)
    assert table.closed.min() >= 0 and table.closed.max() <= 1
    nose = data.template[:, 2].argmax()
    assert table.closed[nose].mean() > 2 * table.closed[part].mean() > 0
    assert torch.equal(table.blend(0.0), table.closed) and torch.allclose(table.blend(1.0), table.opened)


def test_effects_keep_size_and_are_seeded():
    background = sample_background(np.random.default_rng(0), 64)
    assert background.shape == (3, 64, 64) and torch.isfinite(background).all()
    for seed in range(12):
        one, two = (apply_effects(background, np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(one, two) and one.shape == (3, 64, 64) and one.dtype == torch.uint8


def test_studio_picture_is_albedo_times_shading(model):
    params = studio_params(model, 3, size=128, yaw=0.3, expression={"jawOpen": 0.3})
    image = render_person(model, params)
    from hiface.render.pipeline import render

    mesh = model(params.identity, params.expression, params.pose)
    out = render(mesh, params.camera, model.albedo_map(params.albedo), params.light, antialias=False)
    inner = out.mask[0] & (out.image.amax(0) < 1)
    inner = torch.nn.functional.max_pool2d((~inner).float()[None], 3, 1, 1)[0] == 0
    assert inner.sum() > 1000
    difference = (srgb_to_linear(image / 255.0) - out.image).abs()[:, inner]
    assert (
        difference.quantile(0.97) < 0.005
    )  # the rest are silhouettes inside the face, which are antialiased
    assert not torch.equal(image, render_person(model, params, effects=True))
    assert plain_srgb(torch.zeros(3, 2, 2)).max() == 0
