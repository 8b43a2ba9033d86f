# SPDX-License-Identifier: Apache-2.0
"""Imports GLB files written by hiface into Blender and compares what arrived with what the files say.

The files are read here a second time with struct, json and NumPy alone: names, sizes, wiring of textures, the
camera, and the moved vertices of every clip must agree with what Blender shows.

Usage, with Blender or with `pip install bpy` (a Python of the version that Blender has):
    blender --background --factory-startup --python tools/check_glb_in_blender.py -- face.glb [OPTIONS]
    python tools/check_glb_in_blender.py face.glb [OPTIONS]
Prints a PASS or FAIL line per check; ends with 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import bpy  # pyright: ignore[reportMissingImports]
import numpy as np
from bpy_extras.object_utils import world_to_camera_view  # pyright: ignore[reportMissingImports]
from mathutils import Vector  # pyright: ignore[reportMissingImports]

if "bool" not in vars(np):
    np.bool = np.bool_  # the importer of Blender 3.4 uses the name that NumPy 1.24 took away

HEIGHT_M = (0.2, 0.3)
WEIGHT_TOLERANCE = 1e-3
PLACE_TOLERANCE_M = 2e-5
PIXEL_TOLERANCE = 0.5
SAMPLES = 7  # times at which a clip is compared
UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # glTF's axes to Blender's
TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Report:
    """PASS and FAIL lines."""

    def __init__(self) -> None:
        self.failed = 0

    def line(self, passed: bool, what: str, found: object) -> None:
        """Prints one line."""
        self.failed += not passed
        print(f"{'PASS' if passed else 'FAIL'}  {what}: {found}", flush=True)


class Glb:
    """A GLB file as the specification says it is read; nodes have translation, rotation and scale."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        length = struct.unpack_from("<I", content, 12)[0]
        self.json: dict[str, Any] = json.loads(content[20 : 20 + length])
        self.binary = content[28 + length :]
        self.nodes = self.json["nodes"]
        self.head = next(i for i, node in enumerate(self.nodes) if "mesh" in node and "skin" in node)
        self.mesh = self.json["meshes"][self.nodes[self.head]["mesh"]]
        self.skin = self.json["skins"][self.nodes[self.head]["skin"]]
        self.names: list[str] = self.mesh["extras"]["targetNames"]
        self.parents = {c: i for i, node in enumerate(self.nodes) for c in node.get("children", ())}

    def _rows(self, view: int, offset: int, kind: int, count: int, columns: int) -> np.ndarray:
        start = self.json["bufferViews"][view].get("byteOffset", 0) + offset
        return np.frombuffer(self.binary, TYPES[kind], count * columns, start).reshape(count, columns)

    def accessor(self, index: int) -> np.ndarray:
        """Rows of an accessor, sparse ones filled up."""
        a = self.json["accessors"][index]
        count, columns, kind = a["count"], COLUMNS[a["type"]], a["componentType"]
        values = np.zeros((count, columns))
        if "bufferView" in a:
            values[:] = self._rows(a["bufferView"], a.get("byteOffset", 0), kind, count, columns)
        if "sparse" in a:
            s, n = a["sparse"], a["sparse"]["count"]
            at, new = s["indices"], s["values"]
            rows = self._rows(at["bufferView"], at.get("byteOffset", 0), at["componentType"], n, 1)[:, 0]
            values[rows] = self._rows(new["bufferView"], new.get("byteOffset", 0), kind, n, columns)
        return values

    def clip(self, number: int, time_s: float) -> tuple[np.ndarray, dict[int, dict[str, np.ndarray]]]:
        """Weights, and what nodes are set to, at a time; between keys in a straight line."""
        animation = self.json["animations"][number]
        weights = np.array(self.mesh.get("weights", [0.0] * len(self.names)))
        moved: dict[int, dict[str, np.ndarray]] = {}
        for channel in animation["channels"]:
            sampler, target = animation["samplers"][channel["sampler"]], channel["target"]
            times = self.accessor(sampler["input"])[:, 0]
            keys = self.accessor(sampler["output"]).reshape(len(times), -1)
            value = np.array([np.interp(time_s, times, column) for column in keys.T])
            if target["path"] == "weights":
                weights = value
            else:
                moved.setdefault(target["node"], {})[target["path"]] = value
        return weights, moved

    def times(self, number: int) -> np.ndarray:
        """Times of a clip's keys, seconds."""
        inputs = {s["input"] for s in self.json["animations"][number]["samplers"]}
        return np.unique(np.concatenate([self.accessor(i)[:, 0] for i in inputs]))

    def world(self, node: int, moved: dict[int, dict[str, np.ndarray]]) -> np.ndarray:
        """[4, 4] place of a node in glTF's axes."""
        values = {**self.nodes[node], **moved.get(node, {})}
        x, y, z, w = np.array(values.get("rotation", [0.0, 0, 0, 1])) / np.linalg.norm(
            values.get("rotation", [1])
        )
        T = np.eye(4)
        T[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        T[:3, :3] *= np.array(values.get("scale", [1.0, 1, 1]))
        T[:3, 3] = values.get("translation", [0.0, 0, 0])
        return self.world(self.parents[node], moved) @ T if node in self.parents else T

    def vertices(self, weights: np.ndarray, moved: dict[int, dict[str, np.ndarray]]) -> np.ndarray:
        """[n, 3] of all primitives in their order, in Blender's axes: morph targets, then the skin."""
        inverse_bind = self.accessor(self.skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([self.world(j, moved) for j in self.skin["joints"]]) @ inverse_bind
        out = []
        for primitive in self.mesh["primitives"]:
            attributes = primitive["attributes"]
            points = self.accessor(attributes["POSITION"])
            for weight, target in zip(weights, primitive["targets"], strict=True):
                if weight:
                    points = points + weight * self.accessor(target["POSITION"])
            share, which = (self.accessor(attributes[k]) for k in ("WEIGHTS_0", "JOINTS_0"))
            T = np.einsum("nk,nkij->nij", share, joints[which.astype(int)])
            out.append(np.einsum("nij,nj->ni", T[:, :3, :3], points) + T[:, :3, 3])
        return np.concatenate(out) @ UP[:3, :3].T


def import_glb(path: Path, fps: int) -> tuple[Any, Any]:
    """Imports into an empty scene that counts `fps` frames a second; returns mesh and armature."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = fps
    bpy.ops.import_scene.gltf(filepath=str(path))
    heads = [o for o in bpy.context.scene.objects if o.type == "MESH" and o.data.shape_keys]
    armatures = [o for o in bpy.context.scene.objects if o.type == "ARMATURE"]
    if len(heads) != 1 or len(armatures) != 1:
        raise SystemExit(f"FAIL  one head, one armature: {[o.name for o in (*heads, *armatures)]}")
    return heads[0], armatures[0]


def check_head(head: Any, armature: Any, glb: Glb, report: Report) -> None:
    """Names of shape keys and bones; size; upright, looking along -Y."""
    keys = [key.name for key in head.data.shape_keys.key_blocks]
    report.line(
        keys == ["Basis", *glb.names],
        "shape keys",
        f"{keys[0]}, {keys[1]} ... {keys[-1]}, {len(keys)} in all",
    )
    bones = {bone.name for bone in armature.data.bones}
    joints = {glb.nodes[j]["name"] for j in glb.skin["joints"]}
    report.line(bones == joints, "bones", ", ".join(sorted(bones)))
    local = np.array([v.co[:] for v in head.data.vertices])
    world = local @ np.array(head.matrix_world)[:3, :3].T
    size = np.ptp(world, axis=0)
    passed = HEIGHT_M[0] <= size[2] <= HEIGHT_M[1] and size[2] > size[0]
    report.line(passed, "size in metres, x y z", size.round(3).tolist())
    place = {bone.name: np.array(armature.matrix_world @ bone.head_local) for bone in armature.data.bones}
    eyes = 0.5 * (place["eye_left"] + place["eye_right"])
    up, out = eyes[2] - place["neck"][2], place["head"][1] - eyes[1]
    found = f"eyes {up:.3f} m above the neck, {out:.3f} m before the head's joint"
    report.line(up > 0.03 and out > 0.02 and place["eye_left"][0] > 0, "upright, looks along -Y", found)


def _source(socket: Any, kind: str) -> Any:
    """The node of a kind that feeds a socket, or None."""
    nodes = [link.from_node for link in socket.links]
    return nodes[0] if nodes and nodes[0].type == kind else None


def _image(node: Any, space: str) -> bool:
    image = node.image if node is not None else None
    return image is not None and min(image.size) > 0 and image.colorspace_settings.name == space


def check_materials(head: Any, glb: Glb, report: Report) -> None:
    """Textures reach Base Color as sRGB, normal maps reach Normal as data."""
    blender = {slot.material.name: slot.material for slot in head.material_slots}
    names = [material["name"] for material in glb.json["materials"]]
    report.line(list(blender) == names or set(blender) == set(names), "materials", ", ".join(names))
    for material in glb.json["materials"]:
        name = material["name"]
        shader = next(n for n in blender[name].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
        if "baseColorTexture" in material["pbrMetallicRoughness"]:
            node = _source(shader.inputs["Base Color"], "TEX_IMAGE")
            size = tuple(node.image.size) if node is not None else None
            report.line(_image(node, "sRGB"), f"{name}: texture in Base Color, sRGB", size)
        if "normalTexture" in material:
            bump = _source(shader.inputs["Normal"], "NORMAL_MAP")
            tangent = bump is not None and bump.space == "TANGENT"
            node = _source(bump.inputs["Color"], "TEX_IMAGE") if bump is not None else None
            passed = tangent and _image(node, "Non-Color")
            size = tuple(node.image.size) if node is not None else None
            report.line(passed, f"{name}: normal map in Normal Map in Normal, Non-Color", size)


def check_camera(glb: Glb, report: Report) -> None:
    """The photo's camera opens as wide as the file says and sees points where the photo has them."""
    scene = bpy.context.scene
    camera = scene.objects.get("photo_camera")
    report.line(camera is not None and camera.type == "CAMERA", "photo_camera", "there" if camera else "no")
    if camera is None:
        return
    lens, extras = glb.json["cameras"][0]["perspective"], glb.json["asset"]["extras"]["camera"]
    scene.camera = camera
    scene.render.resolution_x, scene.render.resolution_y = extras["width"], extras["height"]
    corners = np.array([c[:] for c in camera.data.view_frame(scene=scene)])
    yfov = 2 * math.atan(np.ptp(corners[:, 1]) / 2 / abs(corners[0, 2]))
    found = f"{math.degrees(yfov):.3f} degrees, in the file {math.degrees(lens['yfov']):.3f}"
    report.line(abs(yfov - lens["yfov"]) < 1e-4, "vertical field of view", found)
    size = np.array([extras["width"], extras["height"]])
    T, K = np.array(extras["T_cam_object"]), np.array(extras["K"])
    points = glb.accessor(glb.mesh["primitives"][0]["attributes"]["POSITION"])[::97]
    wanted = (points @ T[:3, :3].T + T[:3, 3]) @ K.T
    wanted = wanted[:, :2] / wanted[:, 2:] - K[:2, 2]
    wanted = wanted * [K[1, 1] / K[0, 0], 1] + size / 2  # glTF has no principal point and square pixels
    seen = [world_to_camera_view(scene, camera, Vector(p)) for p in points @ UP[:3, :3].T]
    pixels = np.array([[x, 1 - y] for x, y, _ in (s[:] for s in seen)]) * size
    error = np.abs(pixels - wanted).max()
    off = np.abs(K[:2, 2] - size / 2).max()
    found = f"off by {error:.4f} px at most; principal point {off:.2f} px off the centre"
    report.line(error < PIXEL_TOLERANCE, "points through photo_camera", found)


def choose_clip(name: str) -> None:
    """Makes every object and the shape keys play the clip of that name, and nothing else."""
    for owner in (*bpy.data.objects, *bpy.data.shape_keys):
        data = owner.animation_data
        if data is None:
            continue
        strips = [s for track in data.nla_tracks if track.name == name for s in track.strips]
        data.action = strips[0].action if strips else None
        if strips and hasattr(strips[0], "action_slot"):
            data.action_slot = strips[0].action_slot


def show(frame: float) -> None:
    """Goes to a frame, or between two."""
    whole = math.floor(frame + 1e-6)
    bpy.context.scene.frame_set(whole, subframe=max(0.0, frame - whole))


def check_clip(path: Path, glb: Glb, number: int, report: Report) -> None:
    """At several times: values of the shape keys, and every vertex as it is shown, equal the file's."""
    name, times = glb.json["animations"][number]["name"], glb.times(number)
    fps = max(1, round(1.0 / float(np.median(np.diff(times))))) if len(times) > 1 else 24
    head, _ = import_glb(path, fps)
    choose_clip(name)
    worst_value = worst_place = moved_most = 0.0
    first = None
    for time_s in times[np.unique(np.linspace(0, len(times) - 1, SAMPLES).round().astype(int))]:
        show(float(time_s) * fps)
        weights, moved = glb.clip(number, float(time_s))
        values = np.array([key.value for key in head.data.shape_keys.key_blocks[1:]])
        worst_value = max(worst_value, float(np.abs(values - weights).max()))
        shown = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
        local = np.empty(3 * len(shown.data.vertices))
        shown.data.vertices.foreach_get("co", local)
        M = np.array(shown.matrix_world)
        points, wanted = local.reshape(-1, 3) @ M[:3, :3].T + M[:3, 3], glb.vertices(weights, moved)
        if points.shape != wanted.shape:
            report.line(False, f"clip {name!r}", f"{len(points)} vertices, in the file {len(wanted)}")
            return
        first = wanted if first is None else first
        moved_most = max(moved_most, float(np.linalg.norm(wanted - first, axis=1).max()))
        worst_place = max(worst_place, float(np.linalg.norm(points - wanted, axis=1).max()))
    title = f"clip {name!r}, {times[-1]:.2f} s at {fps} a second"
    report.line(worst_value < WEIGHT_TOLERANCE, f"{title}, shape keys", f"off by {worst_value:.1e}")
    nodes = {c["target"]["node"] for c in glb.json["animations"][number]["channels"]} - {glb.head}
    turned = ", ".join(sorted(glb.nodes[n]["name"] for n in nodes)) or "no joint"
    found = f"off by {1000 * worst_place:.4f} mm, moved by {1000 * moved_most:.1f} mm; {turned} animated"
    passed = worst_place < PLACE_TOLERANCE_M and moved_most > 1e-4
    report.line(passed, f"{title}, vertices", found)


def render(glb: Glb, picture: Path, photo: Path | None, height: int) -> None:
    """Renders the head through the photo's camera, on the CPU; if there is a photo, beside and over it."""
    scene = bpy.context.scene
    extras = glb.json["asset"]["extras"]["camera"]
    scene.camera = scene.objects["photo_camera"]
    light = bpy.data.objects.new("key", bpy.data.lights.new("key", "SUN"))
    light.data.energy = 3.0
    light.rotation_euler = (math.radians(72), 0.0, math.radians(20))
    scene.collection.objects.link(light)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.6, 0.6, 0.6, 1.0)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 32
    scene.cycles.use_denoising = False
    scene.view_settings.view_transform = "Standard"
    scene.render.film_transparent = photo is not None
    scene.render.image_settings.color_mode = "RGBA"
    width = round(height * extras["width"] / extras["height"])
    scene.render.resolution_x, scene.render.resolution_y = width, height
    drawn = picture.with_suffix(".png")
    scene.render.filepath = str(drawn)
    bpy.ops.render.render(write_still=True)
    if photo is not None:
        _beside(photo, drawn, picture, width, height)
        if drawn != picture:
            drawn.unlink()


def _beside(photo: Path, drawn: Path, picture: Path, width: int, height: int) -> None:
    """Left the photo, right the rendered head over it, both cut to a square around the head."""

    def pixels(path: Path) -> np.ndarray:
        image = bpy.data.images.load(str(path))
        image.scale(width, height)
        return np.array(image.pixels[:]).reshape(height, width, 4)

    left, head = pixels(photo), pixels(drawn)
    right = left.copy()
    right[..., :3] += head[..., 3:] * (head - left)[..., :3]
    there = np.argwhere(head[..., 3] > 0.5)
    low, high = there.min(axis=0), there.max(axis=0)
    side = min(height, width, round(1.5 * float((high - low).max())))
    y, x = (int(c) for c in np.clip((low + high - side) // 2, 0, [height - side, width - side]))
    both = bpy.data.images.new("both", 2 * side, side)
    window = np.s_[y : y + side, x : x + side]
    both.pixels = np.concatenate([left[window], right[window]], axis=1).ravel().tolist()
    both.filepath_raw = str(picture)
    both.file_format = "JPEG" if picture.suffix == ".jpg" else "PNG"
    both.save()


def main() -> int:
    """Checks every file; returns the exit code."""
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("glb", type=Path, nargs="+")
    parser.add_argument("--picture", type=Path, help=".png (or .jpg) of the first file, through its camera")
    parser.add_argument("--photo", type=Path, help="show the picture beside this photo and over it")
    parser.add_argument("--time", type=float, default=1.5, help="time of the clip that is rendered, seconds")
    parser.add_argument("--height", type=int, default=512, help="height of the picture, pixels")
    options = parser.parse_args(arguments)
    report = Report()
    for path in options.glb:
        glb = Glb(path)
        print(f"{path} in Blender {bpy.app.version_string}", flush=True)
        head, armature = import_glb(path.resolve(), 24)
        check_head(head, armature, glb, report)
        check_materials(head, glb, report)
        check_camera(glb, report)
        for number in range(len(glb.json.get("animations", ()))):
            check_clip(path.resolve(), glb, number, report)
    if options.picture is not None:
        import_glb(options.glb[0].resolve(), 24)
        show(options.time * 24.0)
        photo = options.photo.resolve() if options.photo else None
        render(Glb(options.glb[0]), options.picture.resolve(), photo, options.height)
    print("all checks passed" if not report.failed else f"{report.failed} checks failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
