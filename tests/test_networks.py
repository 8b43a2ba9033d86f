# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hiface.assets import asset_path, load_json_asset
from hiface.data.crops import CropFrame, crop_photo, frame_of_box, frame_of_points
from hiface.errors import AssetError, ShapeError
from hiface.losses.box_losses import iou_and_giou, quality_focal
from hiface.losses.landmark_points import gaussian_nll, rotation_distance
from hiface.networks.boxes import contained_matrix, decode_maps, iou_matrix, suppress
from hiface.networks.finder import FinderConfig, build_finder, decode
from hiface.networks.landmarker import LandmarkerConfig, LandmarkOutput, build_landmarker, standardise
from hiface.networks.layers import count_parameters
from hiface.networks.pose_arrays import mirrored_rotations, rotations_from_6d, turned_to_camera
from hiface.networks.poses import mirror_rotation, ray_rotation, roll_rotation, rotation_from_6d
from hiface.networks.runtime import OnnxRunner, TorchRunner, load_runner, spinning
from hiface.networks.weights import load_finder, load_landmarker, save_weights, weights_notes

torch.set_num_threads(1)


def random_rotations(count: int) -> torch.Tensor:
    return rotation_from_6d(torch.randn(count, 6, generator=torch.Generator().manual_seed(3)))


def test_finder_maps_have_the_expected_sizes_and_size() -> None:
    network = build_finder()
    assert 300_000 < count_parameters(network) < 600_000
    maps = network.eval()(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 5, 8, 12), (2, 5, 4, 6), (2, 5, 2, 3)]


def test_torch_and_numpy_decode_alike() -> None:
    maps = tuple(torch.randn(1, 5, n, n + 1, generator=torch.Generator().manual_seed(n)) for n in (8, 4, 2))
    strides = FinderConfig().strides
    logits, boxes = decode(maps, strides)
    best, scores = decode_maps(tuple(m.numpy() for m in maps), strides, 0.3)
    order = torch.argsort(-logits[0], stable=True)
    order = order[torch.sigmoid(logits[0][order]) > 0.3]
    assert len(order) == len(scores) > 5
    assert np.allclose(best, boxes[0][order].numpy(), atol=1e-3)


def test_landmarker_output() -> None:
    network = build_landmarker()
    assert 1_500_000 < count_parameters(network) < 3_000_000
    out = LandmarkOutput(*network.eval()(torch.rand(2, 3, 112, 112)))
    n = LandmarkerConfig().n_points
    assert [tuple(x.shape) for x in out] == [(2, n, 2), (2, n), (2, 6), (2,), (2, n)]


def test_landmarker_layout_must_fit() -> None:
    network = build_landmarker(LandmarkerConfig(n_dense=2, n_iris=2))
    with pytest.raises(ShapeError, match="mean_points"):
        network.set_layout(torch.zeros(3, 2), torch.arange(72))
    with pytest.raises(ShapeError, match="inverse"):
        network.set_layout(torch.zeros(72, 2), torch.roll(torch.arange(72), 1))


def test_landmarker_does_not_see_brightness_and_contrast() -> None:
    crop = torch.rand(1, 3, 112, 112)
    assert torch.allclose(standardise(crop * 0.5 + 0.2), standardise(crop), atol=0.1)
    assert standardise(torch.full((1, 3, 8, 8), 0.7)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["finder", "landmarker"])
def test_weights_survive_the_file_in_half_precision(kind: str, tmp_path: Path) -> None:
    network = build_finder() if kind == "finder" else build_landmarker(LandmarkerConfig(n_dense=4))
    path = tmp_path / "w.safetensors"
    save_weights(network, path, {"recipe": "test"})
    again = load_finder(path) if kind == "finder" else load_landmarker(path)
    for name, value in network.state_dict().items():
        assert torch.allclose(again.state_dict()[name].float(), value.float(), atol=1e-3, rtol=1e-3)
    assert again.config == network.config and not again.training
    notes = weights_notes(path)
    assert notes["kind"] == kind and notes["recipe"] == "test" and json.loads(notes["config"])
    assert list(tmp_path.iterdir()) == [path]


def test_bad_weights_are_named_errors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(build_finder(), path, {})
    with pytest.raises(AssetError, match="not of 'landmarker'"):
        load_landmarker(path)
    with pytest.raises(AssetError, match="missing"):
        load_finder(tmp_path / "none.safetensors") if (tmp_path / "none.safetensors").exists() else _missing(
            path
        )
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(AssetError, match="damaged"):
        load_finder(tmp_path / "cut.safetensors")
    with pytest.raises(AssetError, match="config"):
        save_file({"a": torch.zeros(1)}, str(path), metadata={"kind": "finder"})
        load_finder(path)
    network = build_finder()
    network.out.bias.data[0] = float("nan")
    with pytest.raises(AssetError, match="non-finite"):
        save_weights(network, path, {})


def _missing(path: Path) -> None:
    from hiface.assets.loader import read_safetensors

    tensors, notes = read_safetensors(path)
    tensors.pop("out.bias")
    save_file(tensors, str(path), metadata=notes)
    load_finder(path)


@pytest.mark.parametrize("kind", ["finder", "landmarker"])
def test_packaged_onnx_and_safetensors_give_the_same_numbers(kind: str) -> None:
    shape = (1, 3, 96, 160) if kind == "finder" else (3, 3, 112, 112)
    batch = np.random.default_rng(0).random(shape, dtype=np.float32)
    onnx = load_runner(kind, threads=1)
    rival = TorchRunner(load_finder() if kind == "finder" else load_landmarker())
    for a, b in zip(onnx(batch), rival(batch), strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 0.02
    for name in ("config", "mirror"):
        assert onnx.metadata.get(name) == rival.metadata.get(name)
    assert asset_path(f"weights/{kind}.onnx").stat().st_size < 8e6


def test_packaged_landmarks_are_those_of_the_open_model() -> None:
    mirror = json.loads(load_runner("landmarker", threads=1).metadata["mirror"])
    start = 0
    for name in ("ibug68", "dense", "iris"):
        wanted = load_json_asset(f"open/landmarks/{name}.json")["mirror"]
        assert [i - start for i in mirror[start : start + len(wanted)]] == wanted
        start += len(wanted)
    assert start == len(mirror)


def test_missing_and_damaged_onnx_are_named_errors(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="missing"):
        OnnxRunner(tmp_path / "none.onnx", 1)
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(AssetError, match="cannot be loaded"):
        OnnxRunner(tmp_path / "bad.onnx", 1)


def test_threads_look_out_for_work_only_for_a_bounded_time() -> None:
    assert spinning("1.31.1", 2) == {"allow_spinning": "1", "spin_duration_us": "50"}
    for version, threads in (("1.31.1", 1), ("1.18.0", 4), ("1.26.2", 2), ("nightly", 2)):
        assert spinning(version, threads) == {"allow_spinning": "0"}


def test_numpy_rotations_are_those_of_the_tensors() -> None:
    gen = torch.Generator().manual_seed(4)
    raw, offset, roll = torch.randn(6, 6, generator=gen), torch.randn(6, 2, generator=gen), torch.randn(6)
    R = rotation_from_6d(raw)
    assert np.allclose(rotations_from_6d(raw.numpy()), R.numpy(), atol=1e-5)
    assert np.allclose(mirrored_rotations(R.numpy()), mirror_rotation(R).numpy(), atol=1e-6)
    turned = turned_to_camera(R.numpy(), offset.numpy(), roll.numpy())
    assert np.allclose(turned, (ray_rotation(offset) @ roll_rotation(roll) @ R).numpy(), atol=1e-5)
    assert np.allclose(turned_to_camera(R.numpy(), np.zeros((6, 2)), np.zeros(6)), R.numpy(), atol=1e-6)


def test_rotations() -> None:
    R = random_rotations(5)
    assert torch.allclose(R @ R.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(R), torch.ones(5), atol=1e-5)
    assert torch.allclose(mirror_rotation(mirror_rotation(R)), R)
    assert torch.allclose(torch.linalg.det(mirror_rotation(R)), torch.ones(5), atol=1e-5)
    ray = ray_rotation(torch.tensor([[0.3, -0.2]]))
    forward = ray @ torch.tensor([0.0, 0.0, 1.0])
    assert torch.allclose(forward[0] / forward[0, 2], torch.tensor([0.3, -0.2, 1.0]), atol=1e-6)
    assert torch.allclose(ray[0] @ ray[0].T, torch.eye(3), atol=1e-6)
    assert float(rotation_distance(R, R).abs().max()) == 0
    half_turn = roll_rotation(torch.tensor([torch.pi]))
    assert torch.allclose(rotation_distance(half_turn, torch.eye(3)[None]), torch.tensor([8.0]), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(5, 500), st.floats(-50, 50))
def test_crop_coordinates_are_inverted(roll: float, side: float, x: float) -> None:
    frame = CropFrame(torch.tensor([[x, 7.0]]), torch.tensor([side]), torch.tensor([roll]))
    points = torch.randn(1, 9, 2)
    assert torch.allclose(frame.to_crop(frame.to_picture(points)), points, atol=1e-4)


def test_crop_reads_the_pixels_it_says() -> None:
    photo = torch.zeros(400, 600, 3, dtype=torch.uint8)
    photo[100:200, 300:400] = 255
    frame = frame_of_box(torch.tensor([[300.0, 100.0, 400.0, 200.0]]), 2.0)
    crop = crop_photo(photo, frame, 20)[0]
    assert crop[:, 6:14, 6:14].min() == 1 and crop[:, :4].max() == 0 and abs(float(crop.mean()) - 0.25) < 0.01


def test_rolled_crop_turns_the_points_upright() -> None:
    flat = torch.tensor([[[-1.0, -1], [1, -1], [1, 1], [-1, 1]]]) * torch.tensor([10.0, 6.0])
    roll = torch.tensor([0.5])
    turned = CropFrame(torch.tensor([[50.0, 40.0]]), torch.tensor([2.0]), roll).to_picture(flat)
    frame = frame_of_points(turned, 1.5, roll)
    assert torch.allclose(frame.side_px, torch.tensor([30.0]), atol=1e-3)
    assert torch.allclose(frame.to_crop(turned), flat / 15, atol=1e-4)


def test_iou_and_suppression() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [22, 2, 26, 6]], np.float32)
    scores = np.array([0.5, 0.9, 0.3, 0.8])
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert suppress(boxes, scores, 0.5, 0.7).tolist() == [1, 3]
    assert np.isclose(iou_matrix(boxes, boxes)[0, 1], 90 / 110)
    a, b = torch.tensor(boxes[:2])
    iou, giou = iou_and_giou(a, b)
    assert abs(float(iou) - 90 / 110) < 1e-6 and abs(float(giou) - 90 / 110) < 1e-6
    apart = iou_and_giou(a, torch.tensor([20.0, 0, 30, 10]))
    assert float(apart[0]) == 0 and abs(float(apart[1]) + 1 / 3) < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from([0.3, 0.5]), st.sampled_from([0.6, 2.0]))
def test_suppression_keeps_what_clashes_with_nothing_better(
    count: int, seed: int, max_iou: float, max_contained: float
) -> None:
    rng = np.random.default_rng(seed)
    low = rng.random((count, 2)) * 10
    boxes = np.concatenate([low, low + 1 + rng.random((count, 2)) * 9], axis=1).astype(np.float32)
    scores = rng.random(count)
    clash = (iou_matrix(boxes, boxes) > max_iou) | (contained_matrix(boxes, boxes) > max_contained)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if not clash[i, kept].any():
            kept.append(int(i))
    assert suppress(boxes, scores, max_iou, max_contained).tolist() == kept


def test_quality_focal_is_least_at_the_target() -> None:
    logits = torch.linspace(-4, 4, 81)
    loss = quality_focal(logits, torch.full((81,), 0.7))
    assert abs(float(torch.sigmoid(logits[loss.argmin()])) - 0.7) < 0.03


def test_nll_is_least_at_the_true_spread() -> None:
    gen = torch.Generator().manual_seed(0)
    truth = 0.05 * torch.randn(1, 20000, 2, generator=gen)
    log_sigma = torch.linspace(-4, -2, 41)
    values = [
        float(gaussian_nll(torch.zeros(1, 20000, 2), s.expand(1, 20000), truth).mean()) for s in log_sigma
    ]
    assert abs(float(log_sigma[int(np.argmin(values))].exp()) - 0.05) < 0.003
