"""Readers of other projects' face models: the vertices of the papers' formulas, evaluated on their own."""

import numpy as np
import pytest
import torch

import model_files as make
from hiface.errors import MissingExtraError, ModelFormatError
from hiface.morphable import MorphableModel, load_model, read_model, write_model
from hiface.morphable.readers import ict
from hiface.morphable.readers.bake import decode_srgb
from hiface.morphable.readers.surface import winds_inwards

RNG = np.random.default_rng(7)


def rodrigues(v):
    angle = np.linalg.norm(v)
    if angle == 0:
        return np.eye(3)
    x, y, z = v / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def flame_vertices(content, identity, expression, pose):
    """Equation 1 of the FLAME paper: joints of the shaped face, pose correctives, chain, blending."""
    shaped = content["v_template"] + content["shapedirs"] @ np.concatenate([identity, expression])
    joints = content["J_regressor"] @ shaped
    turns = [rodrigues(p) for p in pose]
    feature = np.concatenate([(R - np.eye(3)).ravel() for R in turns[1:]])
    posed = shaped + content["posedirs"] @ feature
    chain = []
    for j, R in enumerate(turns):
        parent = int(content["kintree_table"][0, j])
        A = np.eye(4)
        A[:3, :3] = R
        A[:3, 3] = joints[j] if j == 0 else joints[j] - joints[parent]
        chain.append(A if j == 0 else chain[parent] @ A)
    out = np.zeros_like(posed)
    for j, A in enumerate(chain):
        moved = (posed - joints[j]) @ A[:3, :3].T + A[:3, 3]
        out += content["weights"][:, j : j + 1] * moved
    return out


def evaluate(data, identity, expression, pose=None):
    model = MorphableModel(data)
    pose = np.zeros((data.n_joints, 3)) if pose is None else pose
    args = (torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in (identity, expression, pose))
    return model.vertices(*args).numpy()


def assert_close(got, want):
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def linear(c):
    """The standard's formula of sRGB, written out."""
    c = np.clip(c, 0.0, 1.0)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


COLOUR = np.array([0.7, 0.5, 0.4])
TONES = np.array([[0.06, 0.04, 0.02], [-0.02, 0.01, 0.05]])  # sRGB per sigma of two axes


def tone_axes(v):
    """Orthonormal axes [3 V, 2] and deviations [2] of one colour for all vertices."""
    axes = np.tile(TONES, (1, v)).T
    sizes = np.linalg.norm(axes, axis=0)
    return axes / sizes, sizes


def assert_colours(data):
    """The albedo is COLOUR and TONES everywhere, in linear colour."""

    def everywhere(colour):
        return np.broadcast_to(colour[:, None, None], (3, 256, 256))

    np.testing.assert_allclose(data.albedo_mean.numpy(), everywhere(linear(COLOUR)), atol=1e-5)
    assert len(data.albedo_basis) == len(TONES)
    for axis, tone in zip(data.albedo_basis.numpy(), TONES, strict=True):
        want = (linear(COLOUR + tone) - linear(COLOUR - tone)) / 2
        np.testing.assert_allclose(axis, everywhere(want), atol=1e-5)


def outward(data):
    return not winds_inwards(data.template.double().numpy(), data.triangles.numpy())


@pytest.fixture
def flame(tmp_path):
    content = make.flame_content()
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(content))
    return path, content


@pytest.mark.parametrize("joints", [5, 4])
def test_flame_is_its_papers_equation(tmp_path, joints):
    content = make.flame_content(joints=joints)
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(make.flame_bytes(content))
    data = read_model(path, torch.float64)
    assert (data.name, data.version, data.n_joints) == ("flame", "2023", joints)
    assert data.expression_kind == "sigma" and data.joint_names[1] == "neck" and outward(data)
    for scale in (0.0, 1.0):
        z, e = scale * RNG.standard_normal(300), scale * RNG.standard_normal(100)
        pose = 0.6 * RNG.standard_normal((joints, 3))
        assert_close(evaluate(data, z, e, pose), flame_vertices(content, z, e, pose))
    model = MorphableModel(data)
    half, none = torch.randn(2, 10, dtype=torch.float64), torch.zeros(2, 100, dtype=torch.float64)
    full = torch.cat([half, torch.zeros(2, 290, dtype=torch.float64)], dim=1)
    still = torch.zeros(2, joints, 3, dtype=torch.float64)
    torch.testing.assert_close(model.vertices(half, none, still), model.vertices(full, none, still))


@pytest.mark.parametrize("turned", [False, True])
def test_flame_finds_landmarks_texture_and_masks_beside_it(tmp_path, turned):
    content = make.flame_content()
    _, _, uv, uv_triangles = make.head()
    if turned:
        content["f"], uv_triangles = content["f"][:, ::-1], uv_triangles[:, ::-1]
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(content))
    ids = np.arange(68)
    weights = np.tile([0.2, 0.3, 0.5], (68, 1))
    embedding = {
        "static_lmk_faces_idx": ids[17:],
        "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": torch.from_numpy(np.stack([ids[:17], ids[:17] + 1])),
        "dynamic_lmk_bary_coords": torch.from_numpy(np.stack([weights[:17]] * 2)),
    }
    np.save(path.parent / "landmark_embedding.npy", np.array(embedding, dtype=object), allow_pickle=True)
    picture = np.zeros((512, 512, 3))
    picture[..., 0], picture[:256, :, 2] = 255.0, 128.0
    axes = 20.0 * np.ones((512, 512, 3, 2))
    low = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
    np.savez(path.parent / "FLAME_texture.npz", mean=picture, tex_dir=axes, vt=low, ft=uv_triangles)
    (path.parent / "FLAME_masks.pkl").write_bytes(make.Python2Pickle().dump({"face": np.arange(9)}))
    data = read_model(path, torch.float64)
    want = (content["v_template"][content["f"][ids]] * weights[..., None]).sum(axis=1)
    points = MorphableModel(data).landmarks("ibug68", data.template).numpy()
    assert outward(data) and data.metadata["turned_triangles"] == str(turned)
    rows = np.sort(data.uv_triangles.numpy() * 1000 + data.triangles.numpy(), axis=1)
    np.testing.assert_array_equal(rows, np.sort(uv_triangles * 1000 + content["f"].astype(int), axis=1))
    np.testing.assert_allclose(points, want, atol=1e-12)
    np.testing.assert_allclose(data.uv.numpy(), uv, atol=1e-12)
    top = [decode_srgb(np.array(128 / 255)), 0.0, 1.0]
    np.testing.assert_allclose(data.albedo_mean[:, 0, 0], top, atol=1e-6)
    np.testing.assert_allclose(data.albedo_mean[:, -1, 0], [0.0, 0.0, 1.0], atol=1e-6)
    assert data.albedo_basis.shape == (2, 3, 256, 256) and data.vertex_masks["face"].sum() == 9


def test_flame_texture_has_blue_first(flame):
    path = flame[0]
    _, _, uv, uv_triangles = make.head()
    picture = np.tile(255 * COLOUR[::-1], (512, 512, 1))
    axes = np.tile(255 * TONES[:, ::-1].T, (512, 512, 1, 1))
    low = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
    np.savez(path.parent / "FLAME_texture.npz", mean=picture, tex_dir=axes, vt=low, ft=uv_triangles)
    assert_colours(read_model(path))


def test_flame_takes_all_68_points_where_the_file_has_them(flame):
    path, content = flame
    ids, weights = 2 * np.arange(68), RNG.dirichlet(np.ones(3), 68)
    embedding = {"full_lmk_faces_idx": ids[None], "full_lmk_bary_coords": weights[None]}
    np.save(path.parent / "landmark_embedding.npy", np.array(embedding, dtype=object), allow_pickle=True)
    data = read_model(path, torch.float64)
    want = (content["v_template"][content["f"][ids]] * weights[..., None]).sum(axis=1)
    points = data.landmark_sets["ibug68"].positions(data.template, data.triangles)
    np.testing.assert_allclose(points.numpy(), want, atol=1e-12)


def test_flame_takes_a_layout_from_an_obj(flame):
    path = flame[0]
    vertices, triangles, uv, uv_triangles = make.head()
    (path.parent / "head_template.obj").write_text(make.obj_text(vertices, triangles, uv, uv_triangles))
    np.testing.assert_allclose(read_model(path).uv.numpy(), uv, atol=1e-6)
    (path.parent / "head_template.obj").write_text(
        make.obj_text(vertices, triangles[1:], uv, uv_triangles[1:])
    )
    with pytest.raises(ModelFormatError, match="same order"):
        read_model(path)


def test_bfm2009_is_mean_plus_axes_times_sigma(tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    content = {k: v.astype(np.float64) for k, v in make.write_bfm2009(path).items()}
    data = read_model(path, torch.float64)
    z = RNG.standard_normal(6)
    want = (content["shapeMU"][:, 0] + content["shapePC"] @ (content["shapeEV"][:, 0] * z)).reshape(
        -1, 3
    ) * 1e-6
    assert_close(evaluate(data, z, []), want)
    assert outward(data) and data.metadata["turned_triangles"] == "True" and data.expression_names == ()
    front = np.flatnonzero(want[:, 2] > 0.05)
    colour = content["texMU"].reshape(-1, 3) / 255
    map_size = data.albedo_mean.shape[-1]
    for vertex in front[:5]:
        corner = torch.nonzero(data.triangles == vertex)[0]
        u, v = (data.uv[data.uv_triangles[corner[0], corner[1]]] * map_size).long().clamp_max(map_size - 1)
        np.testing.assert_allclose(data.albedo_mean[:, v, u], decode_srgb(colour[vertex]), atol=0.04)


def test_bfm2009_colours_and_mirror_images(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "01_MorphableModel.mat"
    content = make.write_bfm2009(path)
    basis, sizes = tone_axes(98)
    tex = {"texMU": np.tile(255 * COLOUR, 98)[:, None], "texPC": basis, "texEV": 255 * sizes[:, None]}
    savemat(path, content | tex)
    data = read_model(path)
    assert_colours(data)
    mirror = data.template[data.mirror_vertices].numpy()
    np.testing.assert_allclose(mirror * [-1, 1, 1], data.template.numpy(), atol=1e-7)


def test_bfm2009_with_the_fields_expressions(tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    content = make.write_bfm2009(path)
    kept = np.arange(0, len(content["tl"]) // 2 - 3)
    kept = kept[kept < content["shapeMU"].size // 3 - 10]
    extra = make.write_exp_pca(tmp_path, kept)
    data = read_model(path, torch.float64)
    z, e = RNG.standard_normal(6), RNG.standard_normal(5)
    base = content["shapeMU"][:, 0] + content["shapePC"].astype(np.float64) @ (content["shapeEV"][:, 0] * z)
    moved = (extra["sigma"] * e) @ extra["basis"].astype(np.float64)
    want = (base.reshape(-1, 3)[kept] + moved.reshape(-1, 3)) * 1e-6
    assert_close(evaluate(data, z, e), want)
    (tmp_path / "Exp_Pca.bin").write_bytes((tmp_path / "Exp_Pca.bin").read_bytes()[:-4])
    with pytest.raises(ModelFormatError, match=r"Exp_Pca.bin: expected .* bytes"):
        read_model(path)
    (tmp_path / "std_exp.txt").unlink()
    with pytest.raises(ModelFormatError, match=r"needs std_exp.txt"):
        read_model(path)


@pytest.mark.parametrize("name", ["model2017-1_bfm_nomouth.h5", "model2019_fullHead.h5"])
def test_statismo_files(tmp_path, name):
    path = tmp_path / name
    content = {k: v.astype(np.float64) for k, v in make.write_bfm_h5(path).items()}
    data = read_model(path, torch.float64)
    z, e = RNG.standard_normal(6), RNG.standard_normal(6)
    part = {
        key: content[f"{key}_basis"] @ (np.sqrt(content[f"{key}_variance"]) * c)
        for key, c in (("shape", z), ("expression", e))
    }
    want = content["shape_mean"] + part["shape"] + content["expression_mean"] + part["expression"]
    assert_close(evaluate(data, z, [1.0, *e]), want.reshape(-1, 3) * 1e-3)
    neutral = evaluate(data, np.zeros(6), np.zeros(7))
    assert_close(neutral, content["shape_mean"].reshape(-1, 3) * 1e-3)
    assert data.expression_names[0] == "expressionMean" and data.version == name[5:9]
    assert len(data.landmark_sets["bfm"]) == 8 and "center.chin.tip" in data.metadata["landmark_names.bfm"]
    nose = MorphableModel(data).landmarks("now7", data.template)[4]
    np.testing.assert_allclose(nose.numpy(), content["shape_mean"].reshape(-1, 3)[22] * 1e-3, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_statismo_colours(tmp_path, scale):
    import h5py

    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    make.write_bfm_h5(path)
    basis, sizes = tone_axes(98)
    with h5py.File(path, "a") as file:
        del file["color/model"]
        file["color/model/mean"] = np.tile(scale * COLOUR, 98)
        file["color/model/pcaBasis"] = basis
        file["color/model/pcaVariance"] = (scale * sizes) ** 2
    assert_colours(read_model(path))


def test_hifi3dpp(tmp_path):
    path = tmp_path / "HIFI3D++.mat"
    content = make.write_hifi3dpp(path)
    data = read_model(path, torch.float64)
    z, e = RNG.standard_normal(7), RNG.standard_normal(4)
    want = content["mu_shape"][0] + z @ content["basis_shape"] + e @ content["basis_exp"]
    assert_close(evaluate(data, z, e), want.reshape(-1, 3) * 0.01)
    points = data.landmark_sets["hifi86"].positions(data.template, data.triangles).numpy()
    np.testing.assert_allclose(points, make.head()[0][:86], atol=1e-12)
    np.testing.assert_array_equal(data.vertex_masks["face"].numpy(), make.head()[0][:, 2] > 0)
    np.testing.assert_allclose(data.uv.numpy(), make.head()[2], atol=1e-12)
    np.testing.assert_array_equal(data.uv_triangles.numpy(), make.head()[3])
    from scipy.io import savemat

    basis = np.linalg.qr(content["basis_shape"].T)[0].T
    savemat(path, content | {"basis_shape": basis, "tri": content["tri"] + 1})
    again = read_model(path, torch.float64)
    want = content["mu_shape"][0] + (z * np.sqrt(content["EVs"][:, 0])) @ basis
    assert_close(evaluate(again, z, np.zeros(4)), want.reshape(-1, 3) * 0.01)
    assert torch.equal(again.triangles, data.triangles)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("part", ["whole", "face", "without the first vertex", "without the last vertex"])
def test_hifi3d_may_have_triangles_of_a_part_only(tmp_path, part, first):
    from scipy.io import savemat

    path = tmp_path / "AI-NExT-Shape.mat"
    content = make.write_hifi3dpp(path)
    places, tri = make.head()[0], content["tri"]
    # A file from 0 without its first vertex looks like one from 1 without its last, but for the edges.
    kept = {
        "whole": tri >= 0,
        "face": places[tri][..., 2] > 0.02,
        "without the first vertex": tri > 0,
        "without the last vertex": tri < 97,
    }[part].all(axis=1)
    left = {key: value for key, value in content.items() if key not in ("vt_list", "tri_vt")}
    savemat(path, left | {"tri": tri[kept] + first, "keypoints": 12 + np.arange(86)})
    data = read_model(path, torch.float64)
    np.testing.assert_array_equal(data.triangles.numpy(), tri[kept])
    used = np.isin(12 + np.arange(86), tri[kept])
    points = data.landmark_sets["hifi86"].positions(data.template, data.triangles).numpy()
    np.testing.assert_allclose(points, places[12:][used], atol=1e-12)
    told = data.metadata.get("landmarks_left_out.hifi86", "")
    assert [int(n) for n in told.split(", ") if n] == np.flatnonzero(~used).tolist()
    assert (part in ("face", "without the last vertex")) == bool(told)


def test_ict_has_the_52_names(tmp_path):
    offsets = make.write_ict(tmp_path / "ICT" / "FaceXModel")
    data = read_model(tmp_path / "ICT", torch.float64)
    model = MorphableModel(data)
    smile, brows = {"mouthSmileLeft": 0.5, "jawLeft": 1.0}, {"browInnerUp": 0.25}
    z = RNG.standard_normal(3)
    want = offsets["neutral"] + sum(z[i] * offsets[f"identity{i:03d}"] for i in range(3))
    want = want + 0.5 * offsets["mouthSmile_L"] + offsets["jawLeft"]
    want = want + 0.25 * (offsets["browInnerUp_L"] + offsets["browInnerUp_R"])
    got = evaluate(data, z, model.expression_vector(smile | brows).numpy())
    assert np.abs(got - 0.01 * want).max() < 1e-8
    assert len(data.expression_names) == 52 and data.expression_kind == "unit" and data.quads is not None
    assert "tongueOut" in data.metadata["missing_expressions"]
    points = data.landmark_sets["ibug68"].positions(data.template, data.triangles).numpy()
    np.testing.assert_allclose(points, 0.01 * make.shell()[0][7 : 7 + 68], atol=1e-8)
    assert outward(data) and data.uv.max() <= 1


@pytest.mark.parametrize("turned", [False, True])
def test_quads_turn_with_the_triangles(tmp_path, turned):
    make.write_ict(tmp_path / "FaceXModel", turned=turned)
    data = read_model(tmp_path / "FaceXModel")
    assert outward(data) and data.metadata["turned_triangles"] == str(turned)

    def edges(polygons):
        corners = polygons.tolist()
        return {(p[i - 1], p[i]) for p in corners for i in range(len(p))}

    assert edges(data.quads) < edges(data.triangles)


def test_ict_parts_of_the_published_mesh(tmp_path, monkeypatch):
    make.write_ict(tmp_path / "FaceXModel")
    monkeypatch.setattr(ict, "N_VERTICES", 99)
    monkeypatch.setattr(ict, "_N_POLYGONS", 80)
    monkeypatch.setattr(ict, "_PARTS", (("skin", 0), ("teeth", 50)))
    data = read_model(tmp_path / "FaceXModel")
    assert data.part_names == ("skin", "teeth")
    assert torch.bincount(data.triangle_parts).tolist() == [100, 60]


def test_ict_with_other_topology_is_an_error(tmp_path):
    folder = tmp_path / "FaceXModel"
    make.write_ict(folder)
    (folder / "jawOpen.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ModelFormatError, match=r"jawOpen.obj: expected 99 vertices .* found 3"):
        read_model(folder)


def test_facescape_is_the_core_times_both_weights(tmp_path):
    content = make.facescape_core()
    path = tmp_path / "facescape_bm_v1.6_847_50_52_id.npz"
    make.write_facescape(path, content)
    data = read_model(path, torch.float64)
    z, e = RNG.standard_normal(4), RNG.random(4)
    weights = content["mean"] + z * np.sqrt(content["variance"])
    want = content["core"] @ weights @ np.concatenate([[1 - e.sum()], e])
    assert_close(evaluate(data, z, e), want.reshape(-1, 3) * 1e-3)
    model = MorphableModel(data)
    batch = model.shape(
        torch.from_numpy(np.stack([z, z]))[None], torch.from_numpy(np.stack([e, 0 * e]))[None]
    )
    assert_close(batch[0, 0].numpy(), want.reshape(-1, 3) * 1e-3)
    points = data.landmark_sets["ibug68"].positions(data.template, data.triangles)
    assert torch.equal(points, data.template[:68]) and data.expression_kind == "unit"
    np.testing.assert_allclose(data.uv.numpy(), make.head()[2], atol=1e-12)
    content["core"][:, 1:] *= 0.01
    make.write_facescape(path, content)
    with pytest.raises(ModelFormatError, match="principal components"):
        read_model(path)


def test_facescape_v1_needs_factors_and_topology(tmp_path):
    content = make.facescape_core()
    path = tmp_path / "core_847_50_52.npy"
    np.save(path, content["core"].transpose(2, 1, 0))
    people = content["mean"] + 0.05 * RNG.standard_normal((30, 4))
    with pytest.raises(ModelFormatError, match="factors_id"):
        read_model(path)
    np.save(tmp_path / "factors_id_847_50_52.npy", people)
    with pytest.raises(ModelFormatError, match=r"expected an .obj of 98 vertices"):
        read_model(path)
    (tmp_path / "mean.obj").write_text(make.obj_text(*make.head(1000.0)))
    data = read_model(path, torch.float64)
    z = RNG.standard_normal(4)
    want = content["core"][:, 0] @ (people.mean(axis=0) + z * people.std(axis=0))
    assert_close(evaluate(data, z, np.zeros(4)), want.reshape(-1, 3) * 1e-3)
    # The page offers a core of 300 axes as well; its factors may lie in the same folder.
    np.save(tmp_path / "factors_id_847_300_52.npy", RNG.standard_normal((30, 9)))
    assert torch.equal(read_model(path, torch.float64).identity_basis, data.identity_basis)
    (tmp_path / "factors_id_847_50_52.npy").rename(tmp_path / "factors_id_own.npy")
    assert torch.equal(read_model(path, torch.float64).identity_basis, data.identity_basis)
    (tmp_path / "factors_id_own.npy").unlink()
    with pytest.raises(ModelFormatError, match=r"factors_id_847_50_52.npy with 4 columns .*\(30, 9\)"):
        read_model(path)


def test_facewarehouse_gives_its_people_back(tmp_path):
    everyone = make.write_facewarehouse(tmp_path / "FW")
    data = read_model(tmp_path / "FW", torch.float64)
    assert data.metadata["unit_of_file"] == "dm" and "guessed" in data.metadata["unit_source"]
    mean = everyone.astype(np.float64).mean(axis=0) * 0.1
    assert_close(evaluate(data, np.zeros(4), np.zeros(3)), mean[0])
    # Coefficients of every person, from all their shapes at once; they are in sigma.
    moved = torch.cat(
        [data.identity_basis[:, None], data.bilinear_basis + data.identity_basis[:, None]], dim=1
    )
    apart = (everyone.astype(np.float64) * 0.1 - mean).reshape(5, -1)
    z = np.linalg.lstsq(moved.flatten(1).numpy().T, apart.T, rcond=None)[0]
    np.testing.assert_allclose((z**2).mean(axis=1), np.ones(4), rtol=1e-4)
    for person, coefficients in zip(everyone, z.T, strict=True):
        assert np.abs(evaluate(data, coefficients, [0, 1, 0]) - 0.1 * person[2]).max() < 1e-6
    (tmp_path / "FW" / "Tester_2" / "Blendshape" / "shape.bs").write_bytes(b"\x03\0\0\0\x62\0\0\0\0\0\0\0")
    with pytest.raises(ModelFormatError, match="cut short"):
        read_model(tmp_path / "FW")


@pytest.mark.parametrize("kind", ["flame", "bfm", "facescape", "ict", "open"])
def test_conversion_is_exact(tmp_path, kind):
    if kind == "flame":
        (tmp_path / "a.pkl").write_bytes(make.flame_bytes(make.flame_content()))
        source = tmp_path / "a.pkl"
    elif kind == "bfm":
        make.write_bfm_h5(tmp_path / "a.h5")
        source = tmp_path / "a.h5"
    elif kind == "facescape":
        make.write_facescape(tmp_path / "a.npz", make.facescape_core())
        source = tmp_path / "a.npz"
    elif kind == "ict":
        make.write_ict(tmp_path / "ICT")
        source = tmp_path / "ICT"
    else:
        source = "open"
    data = load_model(source).data
    again = load_model(write_model(data, tmp_path / "out" / "a.safetensors")).data
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.safetensors"]
    for name, value in vars(data).items():
        other = getattr(again, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other), name
        elif name in ("vertex_masks", "pairs"):
            assert value.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in value.items())
        elif name == "landmark_sets":
            assert value.keys() == other.keys()
            for key, points in value.items():
                assert torch.equal(points.barycentric, other[key].barycentric)
                assert torch.equal(points.triangle_ids, other[key].triangle_ids)
        elif name == "contour":
            assert (value is None) == (other is None)
            assert value is None or torch.equal(value.valid, other.valid)
        else:
            assert value == other, name


def test_files_are_kept_until_they_change(tmp_path):
    make.write_hifi3dpp(tmp_path / "a.mat")
    first = load_model(str(tmp_path / "a.mat")).data
    assert load_model(tmp_path / "a.mat").data is first
    import os

    os.utime(tmp_path / "a.mat", ns=(1, 1))
    assert load_model(tmp_path / "a.mat").data is not first


def test_files_beside_a_model_count_as_well(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(make.flame_content()))
    first = load_model(path).data
    (tmp_path / "notes.md").write_text("x")
    assert load_model(path).data is first and not first.landmark_sets
    ids = {"full_lmk_faces_idx": np.arange(68), "full_lmk_bary_coords": np.full((68, 3), 1 / 3)}
    np.save(tmp_path / "landmark_embedding.npy", np.array(ids, dtype=object), allow_pickle=True)
    assert "ibug68" in load_model(path).data.landmark_sets
    (tmp_path / "landmark_embedding.npy").unlink()
    assert not load_model(path).data.landmark_sets


def test_folders_are_read_again_when_a_file_in_them_changes(tmp_path):
    make.write_ict(tmp_path / "ICT" / "FaceXModel")
    for path in (tmp_path / "ICT", tmp_path / "ICT" / "FaceXModel"):
        first = load_model(path).data
        assert load_model(path).data is first
        file = tmp_path / "ICT" / "FaceXModel" / "jawOpen.obj"
        file.write_text(file.read_text() + "# changed\n")
        assert load_model(path).data is not first
    make.write_facewarehouse(tmp_path / "FW")
    first = load_model(tmp_path / "FW").data
    shapes = tmp_path / "FW" / "Tester_2" / "Blendshape" / "shape.bs"
    shapes.write_bytes(shapes.read_bytes()[:-4] + b"\0\0\0\0\0")
    assert load_model(tmp_path / "FW").data is not first


def test_missing_packages_say_what_to_type(tmp_path, monkeypatch):
    make.write_bfm2009(tmp_path / "a.mat")
    make.write_bfm_h5(tmp_path / "a.h5")
    import sys

    monkeypatch.setitem(sys.modules, "scipy.io", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for name in ("a.mat", "a.h5"):
        with pytest.raises(MissingExtraError, match=r"pip install 'hiface\[eval\]'"):
            read_model(tmp_path / name)
