// SPDX-License-Identifier: Apache-2.0
// The photo behind the head, and the camera that took it; moving and zooming are those of a flat picture.
import { Box2, Matrix4, PerspectiveCamera, Vector2, Vector3 } from "three";

const NEAREST = 0.1; // of the distance to the head
const FARTHEST = 10;
const HEAD_SHARE = 0.6; // of the view that the head fills at least

export class Backdrop {
  /** `bounds` is the head's box; K in pixels and T_cam_object (units of the file) are OpenCV's; width and height are the photo's pixels. */
  constructor(stage, image, bounds, { K, T_cam_object: T, width, height }) {
    Object.assign(this, { stage, image, bounds, K, width, height });
    this.depth = T[2][3];
    this.camera = new PerspectiveCamera();
    this.camera.matrixAutoUpdate = false;
    const flip = new Matrix4().makeScale(1, -1, -1); // OpenCV looks along +z with y down, three.js along -z
    this.camera.matrix.copy(flip.multiply(new Matrix4().set(...T.flat())).invert());
    this.camera.updateMatrixWorld(true);
    this.on = false;
    this.pointers = new Map();
    this.listen(stage.canvas);
  }

  show(on) {
    this.on = on;
    this.image.hidden = !on;
    this.stage.lookThrough(on ? this.camera : null);
    if (on) this.fit();
  }

  /** Shows the whole photo, or nearer where the head would be small in it. */
  fit() {
    const [w, h] = this.stage.size;
    const { min, max } = this.headBox();
    const whole = Math.min(w / this.width, h / this.height);
    this.scale = Math.max(whole, HEAD_SHARE * Math.min(w / (max.x - min.x), h / (max.y - min.y)));
    const middle = (from, to, view, photo) => {
      const size = this.scale * photo;
      if (size <= view) return 0.5 * (view - size);
      return Math.min(0, Math.max(view - size, 0.5 * (view - this.scale * (from + to)))); // no edge in sight
    };
    this.x = middle(min.x, max.x, w, this.width);
    this.y = middle(min.y, max.y, h, this.height);
    this.place();
  }

  /** Bounds of the head in the photo, pixels. */
  headBox() {
    const { min, max } = this.bounds;
    const box = new Box2();
    for (let i = 0; i < 8; i++) {
      const corner = new Vector3(i & 1 ? min.x : max.x, i & 2 ? min.y : max.y, i & 4 ? min.z : max.z);
      const { x, y, z } = corner.applyMatrix4(this.camera.matrixWorldInverse);
      const [u, v] = [x / -z, -y / -z];
      box.expandByPoint(new Vector2(this.K[0][0] * u + this.K[0][1] * v + this.K[0][2], this.K[1][1] * v + this.K[1][2]));
    }
    return box;
  }

  /** Zooms by a factor about a point of the view, pixels. */
  zoom(factor, px, py) {
    const [w, h] = this.stage.size;
    const whole = Math.min(w / this.width, h / this.height);
    const scale = Math.min(30 * whole, Math.max(0.5 * whole, this.scale * factor));
    this.x = px - ((px - this.x) * scale) / this.scale;
    this.y = py - ((py - this.y) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  /** Puts the photo and the projection of the same pixels where x, y and scale say. */
  place() {
    const { scale: s, x, y, K } = this;
    this.image.style.width = `${this.width}px`;
    this.image.style.height = `${this.height}px`;
    this.image.style.transform = `translate(${x}px, ${y}px) scale(${s})`;
    const [w, h] = this.stage.size;
    const [fx, skew, cx] = [s * K[0][0], s * K[0][1], s * K[0][2] + x];
    const [fy, cy] = [s * K[1][1], s * K[1][2] + y];
    const [near, far] = [NEAREST * this.depth, FARTHEST * this.depth];
    this.camera.projectionMatrix.set(
      (2 * fx) / w, (-2 * skew) / w, 1 - (2 * cx) / w, 0,
      0, (2 * fy) / h, (2 * cy) / h - 1, 0,
      0, 0, -(far + near) / (far - near), (-2 * far * near) / (far - near),
      0, 0, -1, 0,
    );
    this.camera.projectionMatrixInverse.copy(this.camera.projectionMatrix).invert();
    this.stage.request();
  }

  listen(canvas) {
    const place = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("pointerdown", (event) => this.on && this.pointers.set(event.pointerId, place(event)));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointermove", (event) => {
      if (this.on && this.pointers.has(event.pointerId)) this.drag(event.pointerId, place(event));
    });
    const wheel = (event) => {
      if (!this.on) return;
      event.preventDefault();
      this.zoom(Math.exp(-0.0015 * event.deltaY), ...place(event));
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
  }

  /** Moves the picture with one pointer, and zooms with two. */
  drag(id, [px, py]) {
    const [oldX, oldY] = this.pointers.get(id);
    const other = [...this.pointers].find(([key]) => key !== id)?.[1];
    this.pointers.set(id, [px, py]);
    if (other) {
      const before = Math.hypot(oldX - other[0], oldY - other[1]);
      if (before > 0) this.zoom(Math.hypot(px - other[0], py - other[1]) / before, ...other);
      return;
    }
    this.x += px - oldX;
    this.y += py - oldY;
    this.place();
  }
}
