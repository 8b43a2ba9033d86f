// SPDX-License-Identifier: Apache-2.0
// How the head's surface is drawn.
import {
  Color,
  LinearFilter,
  MeshBasicMaterial,
  MeshNormalMaterial,
  MeshStandardMaterial,
  SRGBColorSpace,
  TextureLoader,
  Vector2,
} from "three";
import { Head } from "./head.js";

const CLAY = 0xb4b1ad;
// light that reaches the inside of the mouth: sky and fill light would shine through the head
const SHADE = { mouth_interior: 0.45, tongue: 0.7, teeth: 0.8 };

const OFFSET = { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 };

async function load(url, colourSpace) {
  const texture = await new TextureLoader().loadAsync(url);
  texture.flipY = false; // glTF counts v from the top
  if (colourSpace) texture.colorSpace = colourSpace;
  texture.minFilter = LinearFilter;
  texture.generateMipmaps = false;
  return texture;
}

export class Shading {
  constructor(head) {
    const seen = new Map(); // meshes may share a material
    this.parts = head.parts.map((mesh) => {
      const own = mesh.material;
      if (!seen.has(own)) seen.set(own, prepared(own));
      return { mesh, own, ...seen.get(own) };
    });
    this.mode = "textured";
    this.detail = this.hasOwnDetail ? "static" : "off";
    this.photoNormals = this.relief = null;
    this.wires = [];
  }

  get hasOwnDetail() {
    return this.parts.some((part) => part.normalMap);
  }

  /** Adds pictures that lie beside the file: normals of the photo's expression, coloured relief. */
  async addMaps(normalsUrl, reliefUrl) {
    const missing = () => null; // a picture that cannot be decoded is as good as none
    if (normalsUrl) this.photoNormals = await load(normalsUrl).catch(missing);
    if (reliefUrl) this.relief = await load(reliefUrl, SRGBColorSpace).catch(missing);
  }

  set(mode, detail) {
    this.mode = mode;
    this.detail = detail;
    for (const part of this.parts) {
      if (part.mesh.material !== part.own) part.mesh.material.dispose();
      part.mesh.material = this.material(part);
    }
  }

  normalMap(part) {
    if (this.detail === "photo") return part.isSkin ? this.photoNormals : null;
    return this.detail === "static" ? part.normalMap : null;
  }

  material(part) {
    const { own, colour, normalScale } = part;
    const relief = { normalMap: this.normalMap(part), normalScale };
    const common = { side: own.side, ...OFFSET };
    if (this.mode === "clay") {
      const clay = new MeshStandardMaterial({ ...common, ...relief, color: CLAY, roughness: 0.75 });
      clay.color.multiplyScalar(SHADE[own.name] ?? 1);
      return clay;
    }
    if (this.mode === "normals") return new MeshNormalMaterial({ ...common, ...relief });
    if (this.mode === "relief") {
      const look = part.isSkin ? { map: this.relief } : { color: 0x808080 };
      return new MeshBasicMaterial({ ...common, ...look });
    }
    if (this.mode === "albedo") {
      const look = { map: own.map ?? null, color: colour, vertexColors: own.vertexColors };
      return new MeshBasicMaterial({ ...common, ...look });
    }
    if ("normalMap" in own) {
      Object.assign(own, relief);
      own.needsUpdate = true;
    }
    return own;
  }

  /** Draws the triangles' edges over the surface. */
  showWires(on) {
    if (on && !this.wires.length) {
      const lines = new MeshBasicMaterial({ wireframe: true, color: 0x10161c, transparent: true, opacity: 0.45 });
      lines.depthWrite = false;
      this.wires = this.parts.map((part) => Head.twin(part.mesh, lines));
    }
    for (const wire of this.wires) wire.visible = on;
  }
}

/** What a material was before it is changed; leaves room for wires over it, and darkens the mouth's inside. */
function prepared(own) {
  Object.assign(own, OFFSET);
  const colour = own.color?.clone() ?? new Color(1, 1, 1);
  own.color?.multiplyScalar(SHADE[own.name] ?? 1);
  // normals of a file without tangents have v downwards in three.js
  const normalScale = own.normalMap ? own.normalScale.clone() : new Vector2(1, -1);
  const isSkin = own.name === "skin" || Boolean(own.normalMap);
  return { colour, normalMap: own.normalMap ?? null, normalScale, isSkin };
}
