"""The HiFace network: sizes, AdaIN, conventions of its output, storage."""

import numpy as np
import pytest
import torch

import hiface
from hiface.data.crops import CropFrame
from hiface.detail.basis import load_detail_basis
from hiface.detail.displacement import relief_slopes
from hiface.detail.sd_detail import detail_space
from hiface.errors import AssetError, ShapeError
from hiface.geometry.normals import unit, vertex_normals
from hiface.networks.backbones import ResNet50, SmallTrunk
from hiface.networks.dynamic_codes import DynamicCodes
from hiface.networks.hiface import PRESETS, HifaceOutput, build_hiface, colours_at
from hiface.networks.hiface_params import head_anchor, output_to_params, translation_to_place
from hiface.networks.layers import count_parameters
from hiface.networks.point_features import PointFeatures
from hiface.networks.poses import rotation_from_6d
from hiface.networks.relief_reader import ReliefReader, relief_grid, turned_to_head
from hiface.networks.runtime import OnnxRunner, TorchRunner
from hiface.networks.weights import load_finder, load_hiface, load_landmarker, save_weights
from hiface.render.shade import rotate_light, sh_basis
from hiface.training.export_onnx import export_onnx

FRONTAL_6D = torch.tensor([[1.0, 0.0, 0.0, 0.0, -1.0, 0.0]])


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_hiface().eval()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_outputs_have_the_presets_sizes(preset):
    config = PRESETS[preset]
    network = build_hiface(config).eval()
    points = torch.rand(2, config.n_points, 3) if config.n_points else None
    out = HifaceOutput(*network(torch.rand(2, 3, config.crop_px, config.crop_px), points))
    dynamic = config.n_compressed + config.n_stretched
    widths = (config.n_identity, config.n_expression, 6, 3, config.n_albedo, 27, config.n_static, dynamic)
    assert tuple(part.shape for part in out[:8]) == tuple((2, width) for width in widths)
    assert out.landmarks.shape == (2, config.n_points, 2)
    assert ((out.expression > 0) & (out.expression < 1)).all()
    facing = rotation_from_6d(out.rotation6d)[:, 2, 2]
    assert (facing < -0.8).all()  # a fresh network says that heads face the camera


def test_the_papers_preset_is_the_papers():
    paper = PRESETS["paper"]
    assert paper.backbone == "resnet50" and paper.crop_px == 224 and paper.adain == "moments"
    assert (paper.n_static, paper.n_compressed, paper.n_stretched) == (300, 26, 26)


def test_resnet50_is_torchvisions():
    """Names, shapes and the number of parameters of torchvision 0.x `resnet50` without `fc`."""
    state = ResNet50().state_dict()
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer3.5.conv2.weight"].shape == (256, 256, 3, 3)
    assert state["layer4.2.bn3.running_var"].shape == (2048,)
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert count_parameters(ResNet50()) == 25_557_032 - (2048 * 1000 + 1000)


def test_resnet50_takes_foreign_weights_or_says_what_is_wrong():
    state = {name: torch.rand_like(value) if value.is_floating_point() else value
             for name, value in ResNet50().state_dict().items()}  # fmt: skip
    network = ResNet50()
    network.start_from_torchvision(
        {**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    )
    assert torch.equal(network.state_dict()["layer2.1.conv3.weight"], state["layer2.1.conv3.weight"])
    state.pop("layer2.1.conv3.weight")
    with pytest.raises(AssetError, match="resnet50"):
        network.start_from_torchvision(state)


def test_the_small_trunk_starts_as_the_landmark_network():
    landmarker, trunk = load_landmarker(), SmallTrunk(160).eval()
    copied = trunk.start_from_landmarker(landmarker.state_dict())
    assert copied > 50
    x = torch.rand(1, 3, 160, 160)
    early = trunk.stages[:2](trunk.stem(x)), landmarker.stages[:2](landmarker.stem(x))
    assert torch.allclose(*early)


def test_moments_are_the_papers_equation():
    torch.manual_seed(1)
    codes = DynamicCodes(n_static=7, n_expression=5, n_dynamic=4, hidden=6, reading="moments").double()
    static, expression = torch.randn(1, 7).double(), torch.rand(1, 5).double()
    style = codes.style(expression)[0].detach().numpy()
    phi = static[0].numpy()
    mixed = style.std() * (phi - phi.mean()) / phi.std() + style.mean()
    wanted = codes.map(torch.from_numpy(mixed)[None])
    assert torch.allclose(codes(static, expression), wanted, atol=2e-2)
    # Expression enters by two numbers only: styles with the same moments give the same codes.
    codes.style[2].weight.data.zero_()
    codes.style[2].bias.data.copy_(torch.arange(7.0))
    a = codes(static, expression)
    codes.style[2].bias.data.copy_(torch.arange(7.0).flip(0))
    assert torch.allclose(a, codes(static, expression))


def test_style_scales_and_shifts_each_coefficient():
    torch.manual_seed(1)
    codes = DynamicCodes(7, 5, 4, 6, "style").double()
    static, expression = torch.randn(2, 7).double(), torch.rand(2, 5).double()
    scale, shift = codes.style(expression).chunk(2, dim=1)
    white = (static - static.mean(1, keepdim=True)) / static.std(1, keepdim=True, correction=0)
    assert torch.allclose(codes(static, expression), codes.map(scale * white + shift), atol=1e-2)


def test_points_are_asked_for(small):
    crops = torch.rand(1, 3, 224, 224)
    with pytest.raises(ShapeError, match="points"):
        small(crops)
    with pytest.raises(ShapeError, match="398"):
        small(crops, torch.zeros(1, 5, 3))


def turn(seed):
    matrix = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return torch.from_numpy(matrix * np.sign(np.linalg.det(matrix))).float()


def test_light_is_seen_from_turned_axes():
    gen = torch.Generator().manual_seed(3)
    light, R = torch.randn(2, 9, 3, generator=gen), torch.stack([turn(1), turn(2)])
    normals = torch.nn.functional.normalize(torch.randn(2, 40, 3, generator=gen), dim=-1)
    turned = rotate_light(light, R)
    before, after = sh_basis(normals) @ light, sh_basis(normals @ R.transpose(1, 2)) @ turned
    assert torch.allclose(before, after, atol=1e-5)


def test_a_pose_goes_to_the_crop_and_back():
    """Labels made from a pose, given as output, are that pose again, in the photo's own camera."""
    model = hiface.load_model("open")
    gen = torch.Generator().manual_seed(0)
    T = torch.eye(4).repeat(2, 1, 1)
    T[:, :3, :3] = torch.stack([turn(5), turn(6)])
    T[:, :3, 3] = torch.tensor([[0.1, -0.05, 0.7], [-0.2, 0.1, 1.5]])
    K = torch.tensor([[900.0, 0, 320], [0, 900.0, 240], [0, 0, 1]]).repeat(2, 1, 1)
    frame = CropFrame(
        torch.tensor([[400.0, 200.0], [250.0, 300.0]]), torch.tensor([180.0, 90.0]), torch.tensor([0.3, -0.2])
    )
    from hiface.networks.poses import crop_rotation

    to_crop = crop_rotation(frame, K).transpose(1, 2)
    rotation = to_crop @ T[:, :3, :3]
    place = translation_to_place(T, head_anchor(model), frame, K)
    light = torch.randn(2, 9, 3, generator=gen)
    out = HifaceOutput(
        identity=torch.zeros(2, 150),
        expression=torch.zeros(2, 52),
        rotation6d=torch.cat([rotation[:, :, 0], rotation[:, :, 1]], dim=1),
        place=place,
        albedo=torch.zeros(2, 21),
        light=rotate_light(light, to_crop).flatten(1),
        static=torch.zeros(2, 300),
        dynamic=torch.zeros(2, 160),
        landmarks=torch.zeros(2, 0, 2),
    )
    params = output_to_params(model, out, frame, K, 640, 480)
    assert torch.allclose(params.camera.T_cam_object, T, atol=1e-4)
    assert torch.allclose(params.light, light, atol=1e-4)
    # Another focal length keeps the place and size in the picture.
    other = output_to_params(
        model,
        out,
        frame,
        K * torch.tensor([2.0, 2.0, 1.0])[:, None] * torch.eye(3) + K * (1 - torch.eye(3)),
        640,
        480,
    )
    anchor = head_anchor(model)[None, None]
    assert torch.allclose(other.camera.project(anchor), params.camera.project(anchor), atol=1e-2)


def test_weights_are_stored_and_run_as_onnx(small, tmp_path):
    pytest.importorskip("onnx")
    save_weights(small, tmp_path / "hiface.safetensors", {"recipe": "test"})
    again = load_hiface(tmp_path / "hiface.safetensors")
    export_onnx(small, tmp_path / "hiface.onnx")
    crops, points = torch.rand(2, 3, 224, 224).numpy(), torch.rand(2, 398, 3).numpy()
    answers = TorchRunner(again)(crops, points)
    for a, b in zip(OnnxRunner(tmp_path / "hiface.onnx", 1)(crops, points), answers, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 0.02
    with pytest.raises(AssetError, match="hiface"):
        load_finder(tmp_path / "hiface.safetensors")


def test_a_network_that_knows_the_truth_gives_the_truth_in_the_photo():
    """The reader's crops, cameras and points: an oracle in place of the network, a rendered head as photo."""
    import json
    from dataclasses import asdict

    from hiface.networks.detect import Detection
    from hiface.networks.poses import crop_rotation
    from hiface.networks.read_hiface import HifaceReader
    from hiface.types import FaceParams
    from hiface.types.camera import Camera

    model = hiface.load_model("open")
    R = torch.tensor([[0.96, 0.0, -0.28], [0.0, -1.0, 0.0], [-0.28, 0.0, -0.96]])
    camera = Camera.from_pose(R, torch.tensor([0.05, 0.02, 0.9]), 700.0, 640, 480)
    gen = torch.Generator().manual_seed(2)
    truth = FaceParams(
        identity=torch.randn(150, generator=gen),
        expression=0.3 * torch.rand(52, generator=gen),
        pose=torch.zeros(5, 3),
        albedo=torch.randn(21, generator=gen),
        light=torch.randn(9, 3, generator=gen),
        camera=camera,
        static=torch.randn(300, generator=gen),
    )
    shape = model.shape(truth.identity, truth.expression)
    points = {name: camera.project(model.landmarks(name, shape)) for name in ("ibug68", "dense", "iris")}
    ones = {name: torch.full((len(p),), 1.5) for name, p in points.items()}
    face = Detection(
        torch.zeros(4), 1.0,
        points["ibug68"], ones["ibug68"], ones["ibug68"],
        points["dense"], ones["dense"], ones["dense"],
        points["iris"], ones["iris"], R,
    )  # fmt: skip
    seen = {}

    class Oracle:
        def __init__(self):
            self.metadata = {"config": json.dumps(asdict(PRESETS["small"]))}

        def __call__(self, crops, landmarks):
            seen.update(crops=crops, landmarks=landmarks)
            rows = torch.from_numpy(reader.frames(points["ibug68"][None].numpy()))
            frame = CropFrame(rows[:, :2], rows[:, 2], rows[:, 3])
            to_crop = crop_rotation(frame, camera.K[None]).transpose(1, 2)
            rotation = (to_crop @ R)[0]
            place = translation_to_place(camera.T_cam_object[None], head_anchor(model), frame, camera.K[None])
            light = rotate_light(truth.light[None], to_crop).flatten(1)
            out = (
                truth.identity[None], truth.expression[None],
                torch.cat([rotation[:, 0], rotation[:, 1]])[None], place,
                truth.albedo[None], light, truth.static[None], torch.zeros(1, 160),
                torch.zeros(1, 398, 2),
            )  # fmt: skip
            return tuple(part.numpy() for part in out)

    reader = HifaceReader(Oracle(), model)
    photo = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    params = reader.read(photo, [face], 700.0)[0]
    assert torch.allclose(params.camera.T_cam_object, camera.T_cam_object, atol=1e-4)
    assert torch.allclose(params.camera.K, camera.K)
    assert torch.allclose(params.light, truth.light, atol=1e-4)
    assert torch.equal(params.static, truth.static) and torch.equal(params.identity, truth.identity)
    assert seen["crops"].shape == (1, 3, 224, 224) and seen["landmarks"].shape == (1, 398, 3)
    assert np.abs(seen["landmarks"][..., :2]).max() < 1.3  # the face fills the crop


def test_detail_follows_the_expression_and_needs_codes_of_its_own_network(small):
    from hiface.networks.sd_detail import SdDetail

    model = hiface.load_model("open")
    detail = SdDetail.of(small)
    none, smile = torch.zeros(52), model.expression_vector({"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0})
    identity, static = torch.zeros(150), torch.randn(300, generator=torch.Generator().manual_seed(0))
    rest = detail.maps(model, identity, none, static)
    smiling = detail.maps(model, identity, smile, static)
    assert float(rest.dynamic.detach().abs().max()) == 0 < float(smiling.dynamic.detach().abs().max())
    assert torch.equal(rest.static, smiling.static)
    both = detail.maps(
        model, identity.expand(2, -1), torch.stack([none, smile]), static.expand(2, -1)
    ).displacement
    assert torch.allclose(both[1], smiling.displacement, atol=1e-7)
    with pytest.raises(ShapeError, match="static codes"):
        detail.maps(model, identity, none, static[:100])


def test_dynamic_codes_start_at_the_best_linear_map():
    gen = torch.Generator().manual_seed(4)
    static, mix = torch.randn(4000, 7, generator=gen), torch.randn(7, 4, generator=gen)
    dynamic = static @ mix + 0.5
    codes = DynamicCodes(7, 5, 4, 6, "style", dropout=0.5, linear=True).eval()
    codes.start_linear(static, dynamic)
    with torch.no_grad():
        found = codes(static, torch.rand(4000, 5, generator=gen))
    assert (found - dynamic).abs().max() < 0.1 * dynamic.std()
    assert not any(p.requires_grad for p in codes.linear.parameters())
    DynamicCodes(7, 5, 4, 6, "style").start_linear(static, dynamic)  # without a linear map: nothing to do


def test_identity_starts_at_what_landmarks_tell(small):
    """After `start_shape`, points alone give the identity that they were made from."""
    gen = torch.Generator().manual_seed(5)
    network = build_hiface(small.config)
    identity = torch.randn(600, 150, generator=gen)
    moved = 0.05 * identity[:, :20] @ torch.randn(20, 2 * 398, generator=gen) / 20**0.5
    points = torch.cat([moved.unflatten(1, (398, 2)), torch.full((600, 398, 1), -3.0)], dim=2)
    expression = torch.sigmoid(identity[:, :52])
    network.start_points(points[..., :2])
    network.start_shape(points, identity, expression)
    network.local.own.data.zero_()
    with torch.no_grad():
        out = HifaceOutput(*network.eval()(torch.zeros(2, 3, 224, 224), points[:2]))
    wrong = (out.identity - identity[:2])[:, :20].square().mean()
    assert wrong < 0.3 * identity[:2, :20].square().mean()
    assert float((out.expression - expression[:2])[:, :20].abs().mean()) < 0.1


def test_colours_are_those_around_the_points():
    crops = torch.rand(1, 3, 160, 160)
    at = torch.tensor([[[-1 + 2 * 44 / 160, -1 + 2 * 20 / 160]]])  # the middle of a block of 8 x 8 pixels
    assert torch.allclose(colours_at(crops, at)[0], crops[0, :, 16:24, 40:48].mean(dim=(1, 2)), atol=1e-5)


def test_points_are_read_where_they_lie():
    """A map whose values are its places, read at points, gives the points."""
    local = PointFeatures((2,), n_points=3, channels=2, n_own=1).eval()
    local.laterals[0] = torch.nn.Identity()
    with torch.no_grad():
        local.own.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]]))
    ticks = (torch.arange(40) + 0.5) / 20 - 1
    places = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"))[None]
    points = torch.tensor([[[0.3, -0.5], [-0.2, 0.7], [5.0, 0.0]]])
    moved, own = local([places], points)
    assert torch.allclose(moved[0, :2], points[0, :2], atol=1e-5)
    assert moved[0, 2, 0] == places.max()  # outside, the edge's
    assert torch.allclose(own, torch.tensor([[0.0, 0.7, 0.0]]), atol=1e-5)


@pytest.fixture(scope="module")
def relief():
    model, basis = hiface.load_model("open"), load_detail_basis()
    return relief_grid(model, basis, 128)


def test_relief_is_read_where_the_face_lies(relief):
    """Landmarks of a posed face, seen without perspective, put the reader's texels on its surface."""
    model, basis = hiface.load_model("open"), load_detail_basis()
    gen = torch.Generator().manual_seed(1)
    shape = model.shape(0.7 * torch.randn(150, generator=gen), 0.2 * torch.rand(52, generator=gen))
    points = torch.cat([model.landmarks(name, shape) for name in ("ibug68", "dense", "iris")])
    controls = (relief.place @ points).T.unflatten(1, (relief.size[0] // 4, relief.size[1] // 4))
    found = torch.nn.functional.interpolate(controls[None], size=relief.size, mode="bilinear")[0]
    space = detail_space(model, basis.size)
    maps = torch.cat([space.lift(shape), space.mask[None].float()])
    top, left = (int(v.min()) // 8 * 8 for v in (basis.texels // 256, basis.texels % 256))
    window = maps[:, top : top + 2 * relief.size[0], left : left + 2 * relief.size[1]]
    true = torch.nn.functional.avg_pool2d(window, 2).flatten(1)
    texels = relief.texels[true[3, relief.texels] > 0.99]
    wrong = (found.flatten(1) - true[:3])[:, texels].norm(dim=0)
    assert float(wrong.mean()) < 2e-3 and len(texels) > 3000


def test_relief_encoder_knows_the_rows_of_the_basis(relief):
    """A relief that is a row of the basis, halved in resolution, gives that row's code."""
    basis = load_detail_basis()
    maps = basis.scatter(basis.static.rows[:8])
    top, left = (int(v.min()) // 8 * 8 for v in (basis.texels // 256, basis.texels % 256))
    window = maps[:, :, top : top + 2 * relief.size[0], left : left + 2 * relief.size[1]]
    small = torch.nn.functional.avg_pool2d(window, 2).flatten(1)[:, relief.texels]
    codes = (small / 1e-4) @ relief.codes.T
    assert torch.allclose(codes[:, :8], torch.eye(8), atol=0.25)
    assert float((codes[:, :8].diagonal() - 1).abs().max()) < 0.2


def test_relief_slopes_are_the_change_of_shading(relief):
    """A difference of 50 um along u or v bends the normal; the light then changes as the reader expects."""
    model, basis = hiface.load_model("open"), load_detail_basis()
    space = detail_space(model, basis.size)
    maps = space.lift(torch.cat([model.template, vertex_normals(model.template, model.triangles)], dim=1))
    slopes = relief_slopes(maps[:3], unit(maps[3:], 0))
    top, left = (int(v.min()) // 8 * 8 for v in (basis.texels // 256, basis.texels % 256))
    light = torch.randn(9, generator=torch.Generator().manual_seed(0))
    for texel in relief.texels[[900, 1900, 2900]].tolist():
        y, x = top + 2 * (texel // relief.size[1]), left + 2 * (texel % relief.size[1])
        normal = relief.facing[texel]
        before = sh_basis(normal) @ light
        assert torch.allclose(relief.shading[0, :, texel] @ light, before, atol=1e-5)
        for axis, per in enumerate(slopes, start=1):
            bent = unit(normal - 5e-5 * per[:, y : y + 2, x : x + 2].mean(dim=(1, 2)), 0)
            wanted = (sh_basis(bent) @ light - before) / 0.05
            found = relief.shading[axis, :, texel] @ light
            assert abs(float(found - wanted)) < 0.05 * float(relief.shading[axis, :, texel].norm())


def test_relief_reader_sees_fine_lines_and_no_gradual_light(relief):
    reader = ReliefReader(relief.size, 398, len(relief.texels), 128, 4)
    reader.start(relief)
    light, R = torch.eye(9)[:1], torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None]
    model = hiface.load_model("open")
    points = torch.cat([model.landmarks(name, model.template) for name in ("ibug68", "dense", "iris")])
    points = (points[:, :2] - points[:, :2].mean(dim=0)) * torch.tensor([10.0, -10.0])
    across = torch.linspace(0.2, 0.6, 224).expand(3, 224, 224)
    lined = across * (1 + 0.2 * torch.sin(torch.arange(224) * 0.8))[:, None]
    gradual, fine = (reader.guidance(c[None], points[None], R, light)[0, 0] for c in (across, lined))
    assert float(fine.square().mean()) > 20 * float(gradual.square().mean())
    silent = reader(lined[None], points[None], FRONTAL_6D, torch.ones(1, 27)).detach()
    assert float(silent.abs().max()) == 0
    wrong = ReliefReader((80, 88), 398, len(relief.texels), 128, 4)
    with pytest.raises(AssetError, match="preset"):
        wrong.start(relief)


def test_light_of_the_head_is_the_light_of_the_crop():
    gen = torch.Generator().manual_seed(3)
    light, R = torch.randn(1, 27, generator=gen), turn(4)[None]
    normals = torch.nn.functional.normalize(torch.randn(9, 3, generator=gen), dim=-1)  # of the head
    in_head = sh_basis(normals) @ turned_to_head(light, R)[0]
    in_crop = sh_basis(normals @ R[0].T) @ light.unflatten(1, (9, 3))[0]
    assert torch.allclose(in_head, in_crop @ torch.tensor([0.2126, 0.7152, 0.0722]), atol=1e-4)


def test_relief_is_read_in_full_precision(relief):
    """Under bfloat16 the places of texels would be off by tenths of a pixel."""
    reader = ReliefReader(relief.size, 398, len(relief.texels), 128, 4)
    reader.start(relief)
    seen = []
    reader.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
    gen = torch.Generator().manual_seed(3)
    crops, light = torch.rand(1, 3, 224, 224, generator=gen), torch.rand(1, 27, generator=gen)
    points = (0.8 * torch.rand(1, 398, 2, generator=gen) - 0.4).bfloat16()
    reader(crops, points.float(), FRONTAL_6D, light)
    with torch.autocast("cpu", torch.bfloat16):
        reader(crops, points, FRONTAL_6D, light)
    assert torch.allclose(*seen, atol=1e-4)
