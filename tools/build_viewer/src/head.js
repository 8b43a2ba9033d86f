// SPDX-License-Identifier: Apache-2.0
// The head of a GLB file: its meshes, and its expressions by name.
import { AnimationMixer, Box3, Mesh, SkinnedMesh, Vector3 } from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const UNSHADED = /^(eye|teeth)/i; // wet and bright: the hard shadow of a lid or lip would make them grey

export class Head {
  /** Reads GLB bytes. */
  static async read(content) {
    const gltf = await new GLTFLoader().parseAsync(content.buffer, "");
    return new Head(gltf);
  }

  constructor(gltf) {
    this.scene = gltf.scene;
    this.clips = gltf.animations;
    this.parts = [];
    this.scene.traverse((node) => {
      if (node.isMesh) this.parts.push(node);
    });
    const names = this.parts.flatMap((part) => Object.keys(part.morphTargetDictionary ?? {}));
    this.names = [...new Set(names)];
    for (const part of this.parts) {
      part.frustumCulled = false; // bounds do not follow expressions
      part.castShadow = true;
      part.receiveShadow = !UNSHADED.test(part.material.name);
    }
    this.opening = this.read(); // the expression that the file opens with: the photo's, or the first of a video
    if (this.clips.length && ![...this.opening.values()].some(Boolean)) this.opening = this.beginning(this.clips[0]);
    this.weights = new Map();
    this.setAll(this.opening);
    this.scene.updateMatrixWorld(true);
    this.box = this.restBox();
  }

  /** Bounds of the neutral shape. */
  restBox() {
    const box = new Box3();
    const point = new Vector3();
    for (const part of this.parts) {
      const position = part.geometry.attributes.position;
      for (let i = 0; i < position.count; i++) {
        box.expandByPoint(point.fromBufferAttribute(position, i).applyMatrix4(part.matrixWorld));
      }
    }
    return box;
  }

  /** Values at the beginning of a clip, by name. */
  beginning(clip) {
    const mixer = new AnimationMixer(this.scene);
    mixer.clipAction(clip).play();
    mixer.update(0);
    const found = this.read();
    mixer.stopAllAction();
    mixer.uncacheRoot(this.scene);
    return found;
  }

  /** Values that the meshes have at present, by name. */
  read() {
    const found = new Map(this.names.map((name) => [name, 0]));
    for (const part of this.parts) {
      for (const [name, index] of Object.entries(part.morphTargetDictionary ?? {})) {
        found.set(name, part.morphTargetInfluences[index]);
      }
    }
    return found;
  }

  /** Sets one expression, 0 to 1. */
  set(name, value) {
    this.weights.set(name, value);
    for (const part of this.parts) {
      const index = part.morphTargetDictionary?.[name];
      if (index !== undefined) part.morphTargetInfluences[index] = value;
    }
  }

  /** Sets all expressions; names that are missing become 0. */
  setAll(values) {
    for (const name of this.names) this.set(name, values.get(name) ?? 0);
  }

  /** A mesh that moves as `part` does, with another material. */
  static twin(part, material) {
    const twin = part.isSkinnedMesh ? new SkinnedMesh(part.geometry, material) : new Mesh(part.geometry, material);
    if (part.isSkinnedMesh) twin.bind(part.skeleton, part.bindMatrix);
    twin.morphTargetInfluences = part.morphTargetInfluences;
    twin.morphTargetDictionary = part.morphTargetDictionary;
    twin.frustumCulled = false;
    twin.renderOrder = 1;
    part.add(twin);
    return twin;
  }
}
