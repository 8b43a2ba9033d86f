# SPDX-License-Identifier: Apache-2.0
"""Imports a GLB written by hiface into Blender, checks what an artist relies on and renders one picture.

Usage: blender --background --factory-startup --python-exit-code 1 --python tools/check_glb_in_blender.py -- \
    face.glb picture.png
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]
import numpy as np
from mathutils import Vector  # pyright: ignore[reportMissingImports]

if "bool" not in vars(np):
    np.bool = np.bool_  # the importer of Blender 3.4 uses the name that NumPy 1.24 took away

JOINTS = {"neck", "head", "jaw", "eye_left", "eye_right"}
SIZE_M = (0.15, 0.40)


def read_document(path: Path) -> dict:
    """The file's JSON."""
    content = path.read_bytes()
    length = struct.unpack("<I", content[12:16])[0]
    return json.loads(content[20 : 20 + length])


def import_glb(path: Path) -> tuple[bpy.types.Object, bpy.types.Object]:
    """Imports into an empty scene; returns the mesh object and the armature object."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(path))
    meshes = [o for o in bpy.data.objects if o.type == "MESH" and o.data.shape_keys]
    armatures = [o for o in bpy.data.objects if o.type == "ARMATURE"]
    assert len(meshes) == 1, f"expected one mesh with shape keys, found {[o.name for o in meshes]}"
    assert len(armatures) == 1, f"expected one armature, found {[o.name for o in armatures]}"
    return meshes[0], armatures[0]


def check_shape_keys(head: bpy.types.Object, names: list[str]) -> None:
    """A Basis and one key per name, in the file's order."""
    keys = [key.name for key in head.data.shape_keys.key_blocks]
    assert keys == ["Basis", *names], f"shape keys are {keys}"


def check_scale(head: bpy.types.Object) -> None:
    """The head has the size of a head, in metres, and stands upright (Z up in Blender)."""
    corners = [head.matrix_world @ Vector(corner) for corner in head.bound_box]
    size = [max(c[i] for c in corners) - min(c[i] for c in corners) for i in range(3)]
    assert all(SIZE_M[0] * 0.7 <= s <= SIZE_M[1] for s in size), f"size {size}"
    assert SIZE_M[0] <= size[2] and size[2] >= size[0], f"size {size}"
    print("size in metres:", [round(s, 3) for s in size])


def check_materials(head: bpy.types.Object) -> None:
    """Named materials, each with an image texture."""
    for slot in head.material_slots:
        images = [n.image for n in slot.material.node_tree.nodes if n.type == "TEX_IMAGE"]
        assert images and images[0].size[0] > 0, f"{slot.material.name} has no image texture"
    print("materials:", [slot.material.name for slot in head.material_slots])


def check_animation(head: bpy.types.Object) -> None:
    """Shape keys have an action and their values change over its frames."""
    keys = head.data.shape_keys
    data = keys.animation_data
    assert data is not None, "the shape keys have no animation"
    action = data.action or data.nla_tracks[0].strips[0].action
    data.action = action
    start, end = (round(f) for f in action.frame_range)
    seen = set()
    for frame in range(start, end + 1, 2):
        bpy.context.scene.frame_set(frame)
        seen.add(tuple(round(k.value, 3) for k in keys.key_blocks[1:]))
    assert len(seen) > 3, "the shape keys do not move"
    bpy.context.scene.frame_set(start + round((end - start) * 0.38))
    print("animation:", action.name, "frames", start, "to", end, "different values", len(seen))


def render(picture: Path, aspect: float) -> None:
    """Renders the head as the photo's camera sees it, on the CPU."""
    scene = bpy.context.scene
    cameras = [o for o in bpy.data.objects if o.type == "CAMERA"]
    assert cameras, "the file has no camera"
    scene.camera = cameras[0]
    light = bpy.data.objects.new("key", bpy.data.lights.new("key", "SUN"))
    light.data.energy = 3.0
    light.rotation_euler = (math.radians(60), 0.0, math.radians(25))
    scene.collection.objects.link(light)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.6, 0.6, 0.6, 1.0)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 16
    scene.cycles.use_denoising = False
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x, scene.render.resolution_y = round(480 * aspect), 480
    scene.render.filepath = str(picture)
    bpy.ops.render.render(write_still=True)


def main() -> None:
    """Runs every check; an assertion ends Blender with a non-zero status."""
    path, picture = (Path(p).resolve() for p in sys.argv[sys.argv.index("--") + 1 :][:2])
    document = read_document(path)
    head, armature = import_glb(path)
    bones = {bone.name for bone in armature.data.bones}
    assert bones == JOINTS, f"bones are {bones}"
    check_shape_keys(head, document["meshes"][0]["extras"]["targetNames"])
    check_scale(head)
    check_materials(head)
    check_animation(head)
    render(picture, document["cameras"][0]["perspective"]["aspectRatio"])
    print("all checks passed")


main()
