"""Makers of face-model files in the formats of other projects, filled with small random models."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from toy import RADII_M, sphere

RINGS, SEGMENTS = 9, 12


class Python2Pickle:
    """Emits what Python 2 wrote with protocol 2: text and array bytes as 8-bit strings, old module paths."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")

    def dump(self, item) -> bytes:
        self._put(item)
        return bytes(self.out) + b"."

    def _name(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode()

    def _string(self, raw: bytes) -> None:
        self.out += b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
        self.out += raw

    def _tuple(self, items) -> None:
        self.out += b"("
        for item in items:
            self._put(item)
        self.out += b"t"

    def _put(self, item) -> None:
        if item is None:
            self.out += b"N"
        elif isinstance(item, bool):
            self.out += b"\x88" if item else b"\x89"
        elif isinstance(item, int):
            self.out += b"J" + struct.pack("<i", item)
        elif isinstance(item, str):
            self._string(item.encode("latin1"))
        elif isinstance(item, tuple):
            self._tuple(item)
        elif isinstance(item, set):
            self._name("__builtin__", "set")
            self.out += b"(]("
            for entry in item:
                self._put(entry)
            self.out += b"etR"
        elif isinstance(item, dict):
            self.out += b"}("
            for key, value in item.items():
                self._put(key)
                self._put(value)
            self.out += b"u"
        elif isinstance(item, np.dtype):
            self._name("numpy", "dtype")
            self._tuple((item.str[1:], 0, 1))
            self.out += b"R"
            self._tuple((3, item.str[0], None, None, None, -1, -1, 0))
            self.out += b"b"
        elif isinstance(item, np.ndarray):
            self._array(item)
        elif isinstance(item, Instance):
            self._name(item.module, item.name)
            self.out += b")\x81"
            self._put(item.state)
            self.out += b"b"
        else:
            raise TypeError(type(item))

    def _array(self, item: np.ndarray) -> None:
        self._name("numpy.core.multiarray", "_reconstruct")
        self.out += b"("
        self._name("numpy", "ndarray")
        self._tuple((0,))
        self._string(b"b")
        self.out += b"tR("
        fortran = item.flags.f_contiguous and not item.flags.c_contiguous
        for part in (1, tuple(item.shape), item.dtype, fortran):
            self._put(part)
        self._string(item.tobytes("F" if fortran else "C"))
        self.out += b"tb"


class Instance:
    """An object of a class that need not exist, by its state."""

    def __init__(self, module: str, name: str, **state) -> None:
        self.module, self.name, self.state = module, name, state


def chumpy(array: np.ndarray | Instance) -> Instance:
    return Instance("chumpy.ch", "Ch", x=array, _itr=None, _dirty_vars={"x"}, _status="new")


def sparse_csc(dense: np.ndarray, module: str = "scipy.sparse.csc") -> Instance:
    rows = [np.flatnonzero(dense[:, j]) for j in range(dense.shape[1])]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int32)
    data = np.concatenate([dense[r, j] for j, r in enumerate(rows)])
    indices = np.concatenate(rows).astype(np.int32)
    return Instance(
        module,
        "csc_matrix",
        _shape=tuple(dense.shape),
        maxprint=50,
        data=data,
        indices=indices,
        indptr=indptr,
    )


def head(unit_per_m: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles (counter-clockwise), uv and uv_triangles of an ellipsoid head."""
    unit, triangles, uv, uv_triangles = (t.numpy() for t in sphere(RINGS, SEGMENTS))
    return unit * np.array(RADII_M) * unit_per_m, triangles, uv, uv_triangles


def flame_content(seed: int = 0, joints: int = 5) -> dict[str, np.ndarray]:
    """What a FLAME file holds, in dense arrays."""
    rng = np.random.default_rng(seed)
    template, triangles, _, _ = head()
    v = len(template)
    regressor = rng.random((joints, v)) * (rng.random((joints, v)) < 0.2)
    parents = [-1, 0, 1, 1, 1] if joints == 5 else [-1, 0, 1, 1]
    weights = rng.random((v, joints))
    return {
        "v_template": template,
        "f": triangles.astype(np.uint32),
        "shapedirs": 0.001 * rng.standard_normal((v, 3, 400)),
        "posedirs": 0.001 * rng.standard_normal((v, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[p % 2**32 for p in parents], range(joints)], dtype=np.int64),
    }


def flame_bytes(content: dict[str, np.ndarray]) -> bytes:
    """The file of FLAME 2020: Python 2, chumpy for shapedirs, a sparse J_regressor, text beside."""
    stored: dict = dict(content)
    if "shapedirs" in stored:
        stored["shapedirs"] = chumpy(stored["shapedirs"])
    if "J_regressor" in stored:
        stored["J_regressor"] = sparse_csc(stored["J_regressor"])
    return Python2Pickle().dump(stored | {"bs_style": "lbs", "bs_type": "lrotmin"})


def write_bfm2009(path: Path, seed: int = 0, axes: int = 6) -> dict[str, np.ndarray]:
    """01_MorphableModel.mat: micrometres, orthonormal axes, triangles clockwise and from 1."""
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    template, triangles, _, _ = head(1e6)
    n = template.size
    content = {
        "shapeMU": template.reshape(-1, 1).astype(np.float32),
        "shapePC": np.linalg.qr(rng.standard_normal((n, axes)))[0].astype(np.float32),
        "shapeEV": (3e5 * rng.random((axes, 1)) + 1e4).astype(np.float32),
        "texMU": (255 * (0.3 + 0.4 * rng.random((n, 1)))).astype(np.float32),
        "texPC": np.linalg.qr(rng.standard_normal((n, axes)))[0].astype(np.float32),
        "texEV": (100 * rng.random((axes, 1))).astype(np.float32),
        "tl": (triangles[:, ::-1] + 1).astype(np.float64),
        "segbin": np.ones((len(template), 4), np.uint8),
    }
    savemat(path, content)
    return content


def write_exp_pca(folder: Path, kept: np.ndarray, axes: int = 5, seed: int = 1) -> dict[str, np.ndarray]:
    """Exp_Pca.bin, std_exp.txt and BFM_exp_idx.mat for the vertices `kept`."""
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    mean = rng.standard_normal(3 * len(kept)).astype("<f4")
    basis = rng.standard_normal((axes, 3 * len(kept))).astype("<f4")
    sigma = 1000 * rng.random(axes) + 100
    (folder / "Exp_Pca.bin").write_bytes(struct.pack("<i", axes) + mean.tobytes() + basis.tobytes())
    (folder / "std_exp.txt").write_text(" ".join(f"{s:.9f}" for s in sigma))
    savemat(folder / "BFM_exp_idx.mat", {"trimIndex": (kept + 1)[None]})
    return {"basis": basis, "sigma": np.array([float(f"{s:.9f}") for s in sigma])}


def write_bfm_h5(path: Path, seed: int = 0, axes: int = 6) -> dict[str, np.ndarray]:
    """A statismo file: millimetres, mean, orthonormal basis and variance of shape, colour and expression."""
    import h5py

    rng = np.random.default_rng(seed)
    template, triangles, _, _ = head(1000.0)
    means = {
        "shape": template.reshape(-1),
        "expression": rng.standard_normal(template.size),
        "color": 0.3 + 0.4 * rng.random(template.size),
    }
    content: dict[str, np.ndarray] = {}
    names = ["right.eye.corner_outer", "right.eye.corner_inner", "left.eye.corner_inner"]
    names += ["left.eye.corner_outer", "center.nose.attachement_to_philtrum", "right.lips.corner"]
    names += ["left.lips.corner", "center.chin.tip"]
    places = [{"id": n, "coordinates": template[10 + 3 * i].tolist()} for i, n in enumerate(names)]
    with h5py.File(path, "w") as file:
        for part, mean in means.items():
            content[f"{part}_mean"] = mean.astype(np.float32)
            content[f"{part}_basis"] = np.linalg.qr(rng.standard_normal((mean.size, axes)))[0].astype(
                np.float32
            )
            content[f"{part}_variance"] = (0.01 if part == "color" else 50) * rng.random(axes).astype(
                np.float32
            )
            file[f"{part}/model/mean"] = content[f"{part}_mean"]
            file[f"{part}/model/pcaBasis"] = content[f"{part}_basis"]
            file[f"{part}/model/pcaVariance"] = content[f"{part}_variance"]
            file[f"{part}/model/noiseVariance"] = np.zeros(1, np.float32)
            file[f"{part}/representer/cells"] = triangles.T.astype(np.int32)
            file[f"{part}/representer/points"] = template.T.astype(np.float32)
            file[f"{part}/version/majorVersion"] = np.int32(0)
            file[f"{part}/version/minorVersion"] = np.int32(9)
        file["metadata/landmarks/json"] = np.frombuffer(json.dumps(places).encode(), np.int8)
    return content


def write_hifi3dpp(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """HIFI3D++.mat: centimetres, bases with their standard deviations, triangles from 0."""
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    template, triangles, uv, uv_triangles = head(100.0)
    n = template.size
    content = {
        "mu_shape": template.reshape(1, -1),
        "basis_shape": 0.1 * rng.standard_normal((7, n)),
        "basis_exp": 0.1 * rng.standard_normal((4, n)),
        "EVs": rng.random((7, 1)) + 1,
        "tri": triangles.astype(np.int32),
        "mask_face": (template[:, 2] > 0).astype(np.float64)[None],
        "keypoints": np.arange(86)[None].astype(np.int32),
        "vt_list": np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1),
        "tri_vt": uv_triangles.astype(np.int32),
    }
    savemat(path, content)
    return content


def facescape_core(seed: int = 0, identities: int = 4, expressions: int = 5) -> dict[str, np.ndarray]:
    """A core [3 V, expressions, identities] in millimetres whose slices are faces, and the identity prior."""
    rng = np.random.default_rng(seed)
    template = head(1000.0)[0].reshape(-1)
    core = 2.0 * rng.standard_normal((template.size, expressions, identities))
    core[:, :, 0] += template[:, None] / 0.5
    mean = np.concatenate([[0.5], 0.01 * rng.standard_normal(identities - 1)])
    return {"core": core, "mean": mean, "variance": 0.01 * rng.random(identities) + 1e-3}


def write_facescape(path: Path, content: dict[str, np.ndarray]) -> None:
    """facescape_bm_v1.6: triangles from 1, some arrays of objects that nobody needs."""
    _, triangles, uv, uv_triangles = head()
    lines = np.empty(2, dtype=object)
    lines[:] = [[1, 2, 3], [4, 5]]
    np.savez(
        path,
        shape_bm_core=content["core"],
        id_mean=content["mean"],
        id_var=content["variance"],
        fv_indices=triangles + 1,
        ft_indices=uv_triangles + 1,
        texcoords=np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1),
        lm_list_v16=np.arange(68),
        contour_line_right=lines,
    )


def obj_text(vertices: np.ndarray, polygons: np.ndarray, uv: np.ndarray, uv_polygons: np.ndarray) -> str:
    """An .obj with texture coordinates from the bottom."""
    rows = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices]
    rows += [f"vt {u:.9g} {1 - w:.9g}" for u, w in uv]
    for corners, places in zip(polygons + 1, uv_polygons + 1, strict=True):
        rows.append("f " + " ".join(f"{a}/{b}/{a}" for a, b in zip(corners, places, strict=True)))
    return "\n".join(["# made by a test", "mtllib a.mtl", *rows]) + "\n"


def shell(rows: int = 9, columns: int = 11) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A face-like front shell of quads in centimetres: vertices, quads, uv (one per vertex)."""
    u, w = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows))
    vertices = np.stack([7.5 * np.sin(1.4 * u), -11 * w, 9 * np.cos(1.4 * u) * np.cos(w)], -1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    corners = (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    quads = np.stack([c.ravel() for c in corners], axis=1)
    return vertices, quads, np.stack([u.ravel(), w.ravel()], axis=1) / 2 + 0.5


def write_ict(folder: Path, seed: int = 0, turned: bool = False) -> dict[str, np.ndarray]:
    """FaceXModel with 3 identity axes and a few expressions; offsets by file name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    vertices, quads, uv = shell()
    quads = quads[:, ::-1] if turned else quads
    (folder / "generic_neutral_mesh.obj").write_text(obj_text(vertices, quads, uv, quads))
    offsets = {"neutral": vertices}
    names = [f"identity{i:03d}" for i in range(3)]
    names += ["jawOpen", "jawLeft", "browInnerUp_L", "browInnerUp_R", "mouthSmile_L", "mouthSmile_R"]
    for name in names:
        offsets[name] = np.round(0.2 * rng.standard_normal(vertices.shape), 5)
        (folder / f"{name}.obj").write_text(obj_text(vertices + offsets[name], quads, uv, quads))
    points = (7 + np.arange(68)).tolist()
    (folder / "vertex_indices.json").write_text(json.dumps({"idx_to_landmark_verts": points}))
    return offsets


def write_facewarehouse(folder: Path, people: int = 5, shapes: int = 3, seed: int = 0) -> np.ndarray:
    """Tester_*/Blendshape/shape.bs in decimetres with one .obj; [people, shapes + 1, V, 3]."""
    rng = np.random.default_rng(seed)
    template, triangles, uv, uv_triangles = head(10.0)
    everyone = template + 0.02 * rng.standard_normal((people, shapes + 1, *template.shape))
    everyone = everyone.astype("<f4")
    for i, person in enumerate(everyone):
        place = folder / f"Tester_{i + 1}" / "Blendshape"
        place.mkdir(parents=True)
        counts = struct.pack("<3i", shapes, len(template), len(triangles))
        (place / "shape.bs").write_bytes(counts + person.tobytes())
    pose = folder / "Tester_1" / "TrainingPose"
    pose.mkdir()
    (pose / "pose_0.obj").write_text(obj_text(template, triangles, uv, uv_triangles))
    return everyone
