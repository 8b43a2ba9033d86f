"""Effects, label maps and the kinds of data sets: pairs, clips with flow, RGB-D."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

import hiface
from hiface.errors import OptionError
from hiface.geometry.normals import vertex_normals
from hiface.synthetic.clips import generate_clip, smooth_track
from hiface.synthetic.datasets import make_spec
from hiface.synthetic.effects import ALL_EFFECTS, EFFECTS, PLAIN, parse_effects
from hiface.synthetic.generator import PICTURES_PER_PERSON, Style, generate_batch, generate_picture
from hiface.synthetic.pairs import generate_views
from hiface.synthetic.rgbd import SENSORS, depth_edges, generate_rgbd, sensor_depth, surface_slope
from hiface.synthetic.sheet import contact_sheet, tile
from hiface.synthetic.shots import draw_shot, sitter_of

SIZE = 96
MAPS = Style(SIZE, ALL_EFFECTS, frozenset({"basic", "maps", "vertices"}))


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def clip(model):
    return generate_clip(model, 6, Style(SIZE), 5)


@pytest.fixture(scope="module")
def mapped(model):
    """Three people who fill a good part of the picture."""
    found = []
    for seed in range(0, 90, 4):
        view = shot_of(model, seed).view
        if view.box_share > 0.5 and all(0.35 < c < 0.65 for c in view.box_centre):
            found.append(generate_picture(model, seed, MAPS))
        if len(found) == 3:
            break
    return found


def shot_of(model, seed):
    """What a picture is made of."""
    sitter = sitter_of(model, seed // PICTURES_PER_PERSON)
    return draw_shot(model, sitter, np.random.default_rng([seed, 11]), SIZE)


def test_effects_by_name():
    assert parse_effects("all") == ALL_EFFECTS and parse_effects("plain") == PLAIN
    assert parse_effects("hair, camera") == {"hair", "camera"}
    assert parse_effects("all,-hair") == parse_effects("-hair") == ALL_EFFECTS - {"hair"}
    with pytest.raises(OptionError, match=r"'beard'.*hair, glasses"):
        parse_effects("hair,beard")


def test_an_effect_changes_the_picture_and_not_the_person(model):
    shots = {seed: shot_of(model, seed) for seed in range(0, 90, 3)}
    wanted = {
        "hats": lambda s: s.wardrobe.hat is not None,
        "glasses": lambda s: s.wardrobe.glasses is not None and s.wardrobe.hat is None,
        "occluders": lambda s: s.wardrobe.occluder,
        "hair": lambda s: s.sitter.person.hair.kind != "bald" and s.wardrobe.hat is None,
    }
    whole = [k for k, s in shots.items() if all(0.3 < c < 0.7 for c in s.view.box_centre)]
    seeds = sorted({next(k for k in whole if test(shots[k])) for test in wanted.values()})
    everything = generate_batch(model, seeds, 48)
    for name in EFFECTS:
        without = generate_batch(model, seeds, Style(48, ALL_EFFECTS - {name}))
        changed = 0
        for a, b in zip(everything, without, strict=True):
            assert torch.equal(a.dense_px, b.dense_px) and torch.equal(a.params.identity, b.params.identity)
            changed += not torch.equal(a.image_srgb, b.image_srgb)
        assert changed > 0, name


def test_plain_pictures_show_the_head_alone(model):
    for sample in generate_batch(model, [0, 4, 7], Style(64, PLAIN)):
        assert not ((sample.segmentation == 4) | (sample.segmentation == 5)).any()
        wall = sample.image_srgb[:, (sample.alpha == 0)]
        assert (wall == wall[0, 0]).all()
        light = sample.params.light[1:].abs().max() / sample.params.light[0].abs().max()
        assert light < 0.05


def inner(points_px, flags):
    """Pixels of visible points."""
    x, y = points_px[flags].long().unbind(1)
    return y, x


def test_maps_agree_with_the_points(model, mapped):
    for sample in mapped:
        verts = model.vertices_cam(sample.params)
        torch.testing.assert_close(sample.maps["vertices"], verts, atol=1e-4, rtol=0)
        points = model.landmarks_cam("dense", verts)
        y, x = inner(sample.dense_px, sample.visible_dense)
        there = torch.isin(sample.segmentation[y, x], torch.tensor([1, 2, 3], dtype=torch.uint8))
        assert there.sum() > 50
        y, x, z = y[there], x[there], points[sample.visible_dense][there, 2]
        assert (sample.maps["depth"][y, x] - z).abs().median() < 0.0015
        dense = model.data.landmark_sets["dense"]
        corners = model.data.uv[model.data.uv_triangles[dense.triangle_ids]]
        uv = (corners * dense.barycentric[:, :, None]).sum(1)[sample.visible_dense][there]
        assert (sample.maps["uv"][:, y, x].T - uv).norm(dim=1).median() < 0.01


def test_maps_are_of_the_face_only(mapped):
    for sample in mapped:
        head = (sample.segmentation >= 1) & (sample.segmentation <= 3)
        length = sample.maps["normals"].norm(dim=0)
        assert (length[~head] == 0).all() and (length[head] > 0.99).float().mean() > 0.6  # the rest is neck
        face = length > 0.99
        points = face[inner(sample.dense_px, sample.visible_dense)]
        assert points.float().mean() > 0.8
        assert (sample.maps["normals"][2][length > 0] < 0.35).float().mean() > 0.97  # they face the camera
        assert (sample.maps["depth"][sample.segmentation == 0] == 0).all()
        assert (sample.maps["depth"][face] > 0.2).float().mean() > 0.99
        for name in ("albedo", "shading", "uv"):
            assert (sample.maps[name] >= 0).all() and (sample.maps[name][:, ~face] == 0).all()


def test_albedo_times_shading_is_the_picture_but_for_highlights(model):
    """Without camera effects, dry skin is albedo times shading."""
    style = dataclasses.replace(MAPS, effects=ALL_EFFECTS - {"camera", "occluders", "glasses"})
    sample = generate_picture(model, 4, style)
    skin = (sample.segmentation == 1) & (sample.maps["normals"][2] < -0.5)
    skin[:2] = skin[-2:] = False
    diffuse = (sample.maps["albedo"] * sample.maps["shading"])[:, skin]
    from hiface.colour import srgb_to_linear

    seen = srgb_to_linear(sample.image_srgb / 255.0)[:, skin]
    dark = diffuse.amax(0) < 0.9
    ratio = (seen / diffuse.clamp_min(1e-3))[:, dark]
    assert 0.9 < ratio.median() < 1.25 and ratio.quantile(0.1) > 0.75


def test_views_show_one_person_in_many_ways(model):
    views = generate_views(model, 5, Style(48), 3)
    assert len({v.person for v in views}) == 1
    for a, b in ((0, 1), (1, 2)):
        assert torch.equal(views[a].params.identity, views[b].params.identity)
        assert torch.equal(views[a].params.albedo, views[b].params.albedo)
        for name in ("expression", "light"):
            assert not torch.equal(getattr(views[a].params, name), getattr(views[b].params, name))
        assert not torch.equal(views[a].T_cam_head, views[b].T_cam_head)
    again = generate_views(model, 5, Style(48), 2)
    assert torch.equal(again[1].image_srgb, views[1].image_srgb)


def test_clips_move_smoothly_before_one_camera(clip):
    first = clip[0]
    steps = []
    for a, b in pairwise(clip):
        assert torch.equal(a.params.camera.K, first.params.camera.K)
        assert torch.equal(a.params.light, first.params.light) and a.person == first.person
        steps.append((b.landmarks68_px - a.landmarks68_px).norm(dim=1).mean())
        assert not torch.equal(a.image_srgb, b.image_srgb)
        assert (b.params.expression - a.params.expression).abs().max() < 0.7
    assert 0 < max(steps) < 0.05 * SIZE
    assert "flow" in clip[-2].maps and "flow" not in clip[-1].maps


def test_flow_is_how_the_surface_moves(model, clip):
    """Vertices that both frames show move as the flow of their pixel says."""
    for a, b in pairwise(clip):
        px = [s.params.camera.cam_to_px(model.vertices_cam(s.params)) for s in (a, b)]
        z = model.vertices_cam(a.params)[:, 2]
        inside = ((px[0] > 1) & (px[0] < SIZE - 1)).all(dim=1)
        x, y = px[0].long().clamp(0, SIZE - 1).unbind(1)
        face = (a.segmentation[y, x] >= 1) & (a.segmentation[y, x] <= 3)
        normal_z = vertex_normals(model.vertices_cam(a.params), model.data.triangles)[:, 2]
        front = z < a.T_cam_head[2, 3] - 0.03  # in front of the ears
        chosen = inside & face & front & (normal_z < -0.5) & a.maps["flow_valid"][y, x]
        assert chosen.sum() > 50
        moved = (px[1] - px[0])[chosen]
        flow = a.maps["flow"][:, y[chosen], x[chosen]].T
        assert (flow - moved).norm(dim=1).median() < 0.01
        assert (flow - moved).norm(dim=1).quantile(0.9) < 0.05


def test_flow_explains_the_next_frame(model):
    style = Style(SIZE, parse_effects("skin,lamps"))
    line = torch.arange(SIZE) + 0.5
    for number in (3, 12):
        a, b = generate_clip(model, number, style, 6)[:6:5]
        assert "flow" in a.maps and b.person == a.person
    before, after = 0.0, 0.0
    for number in range(1, 7):
        frames = generate_clip(model, number, style, 2)
        flow, valid = frames[0].maps["flow"], frames[0].maps["flow_valid"]
        grid = torch.stack([line[None, :] + flow[0], line[:, None] + flow[1]], dim=-1) / SIZE * 2 - 1
        one, two = (s.image_srgb / 255.0 for s in frames)
        warped = torch.nn.functional.grid_sample(two[None], grid[None], align_corners=False)[0]
        face = valid & (frames[0].segmentation > 0)
        before += float((one - two).abs()[:, face].mean())
        after += float((one - warped).abs()[:, face].mean())
        assert (flow[:, valid & ~face] == 0).all()
    assert after < 0.6 * before


def test_tracks_start_at_rest_and_are_smooth():
    track = smooth_track(np.random.default_rng(0), 100, (1.0, 0.1))
    assert np.allclose(track[0], 0) and track.shape == (100, 2)
    assert np.abs(np.diff(track, axis=0)).max() < 0.8 and track[:, 0].std() > 3 * track[:, 1].std() > 0


@pytest.mark.parametrize("sensor", SENSORS)
def test_sensors_measure_nearly_right_and_worse_far_away(sensor):
    rng = np.random.default_rng(0)
    error = {}
    for distance in (0.6, 2.5):
        ramp = distance + torch.linspace(0, 0.05, 64).expand(64, 64)
        out = sensor_depth(ramp, 600.0, sensor, rng)
        seen = out > 0
        assert seen.float().mean() > 0.7
        error[distance] = float((out - ramp)[seen].abs().mean())
    assert 1e-4 < error[0.6] < 0.006 and error[2.5] > 2 * error[0.6]
    assert (sensor_depth(torch.zeros(8, 8), 600.0, sensor, rng) == 0).all()
    assert (sensor_depth(torch.full((8, 8), 9.0), 600.0, sensor, rng) == 0).all()


def test_sensors_lose_edges_and_grazing_surfaces():
    step = torch.ones(64, 64)
    step[:, 32:] = 1.5
    edges = depth_edges(step)
    assert edges[:, 31:33].all() and edges.sum() == 2 * 64
    out = sensor_depth(step, 600.0, "structured_light", np.random.default_rng(1))
    assert (out == 0)[edges].float().mean() > 5 * (out == 0)[~edges].float().mean()
    slope = surface_slope(1 + torch.arange(64).float().expand(64, 64) * 0.05, 600.0)
    assert slope[:, 5:-5].max() < 0.15 and surface_slope(torch.ones(8, 8), 600.0).min() > 0.99
    with pytest.raises(OptionError, match="structured_light or time_of_flight"):
        sensor_depth(step, 600.0, "lidar", np.random.default_rng(1))


def test_rgbd_pictures_have_clean_and_measured_depth(model):
    for seed, sensor in ((3, "structured_light"), (10, "time_of_flight")):
        sample = generate_rgbd(model, seed, Style(64), sensor)
        assert set(sample.maps) == {"depth", "sensor_depth"}
        clean, measured = sample.maps["depth"], sample.maps["sensor_depth"]
        both = (clean > 0) & (measured > 0)
        assert (clean[sample.segmentation > 0] > 0).float().mean() > 0.99
        assert both.sum() > 0.6 * (clean > 0).sum()
        assert 0 < (clean - measured)[both].abs().median() < 0.02


def test_rgbd_depth_does_not_depend_on_camera_effects(model):
    style = Style(48, labels=frozenset({"basic", "displacement"}))
    for seed in (0, 3):
        a = generate_rgbd(model, seed, style)
        b = generate_rgbd(model, seed, dataclasses.replace(style, effects=ALL_EFFECTS - {"camera"}))
        background = (a.segmentation == 0) & (b.segmentation == 0)
        torch.testing.assert_close(a.maps["depth"][background], b.maps["depth"][background])
    states = {f"displacement{state}" for state in ("", "_static", "_compressed", "_stretched")}
    assert set(a.maps) == {"depth", "sensor_depth", *states}


def test_contact_sheets(model):
    sheet = contact_sheet(model, make_spec(size=32), 5)
    assert sheet.shape == (3, 3 * 34 + 2, 2 * 34 + 2) and sheet.dtype == torch.uint8
    assert contact_sheet(model, make_spec("rgbd", size=32), 2).shape[-1] == 2 * 34 + 2
    assert contact_sheet(model, make_spec("clips", size=32, length=3), 2).shape[-1] == 3 * 34 + 2
    white = tile([torch.zeros(3, 4, 4, dtype=torch.uint8)], 1)
    assert white[:, 0].min() == 255 and white[:, 2:6, 2:6].max() == 0
    with pytest.raises(OptionError, match="1 to"):
        contact_sheet(model, make_spec(size=32), 0)


def test_sitters_keep_their_face_without_their_details(model):
    full, bare = sitter_of(model, 9), sitter_of(model, 9, PLAIN)
    assert torch.equal(full.person.identity, bare.person.identity) and bare.person.hair.kind == "bald"
    assert not torch.equal(full.texture, bare.texture)
