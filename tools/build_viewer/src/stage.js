// SPDX-License-Identifier: Apache-2.0
// Renderer, cameras and the loop that draws only when something has changed.
import { NoToneMapping, PCFShadowMap, PerspectiveCamera, Scene, Spherical, Vector3, WebGLRenderer } from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

const FIELD_DEG = 22;
const MARGIN = 1.12;
const DRAFT_RATIO = 0.5; // of the pixels along a side, while something moves and there is no graphics processor
const SETTLE_MS = 160;

/** Whether WebGL is drawn by the central processor. */
function isSoftware(gl) {
  const about = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.toneMapping = NoToneMapping;
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = PCFShadowMap;
    this.software = isSoftware(this.renderer.getContext());
    this.scene = new Scene();
    this.orbitCamera = new PerspectiveCamera(FIELD_DEG, 1, 0.01, 100);
    this.camera = this.orbitCamera;
    this.controls = new OrbitControls(this.orbitCamera, canvas);
    this.controls.enableDamping = true;
    this.controls.dampingFactor = 0.12;
    this.controls.addEventListener("change", () => this.request());
    this.before = []; // called before each frame with seconds since the last one; true: draw on
    this.waiting = [];
    this.last = null;
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
  }

  get size() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    return [Math.max(1, clientWidth), Math.max(1, clientHeight)];
  }

  resize() {
    const [width, height] = this.size;
    this.renderer.setSize(width, height, false);
    this.orbitCamera.aspect = width / height;
    this.orbitCamera.updateProjectionMatrix();
    this.onResize?.();
    this.draw(); // at once: the canvas has just been emptied
  }

  /** Sees a box from the front, as large as it fits. */
  frame(box) {
    const centre = box.getCenter(new Vector3());
    const size = box.getSize(new Vector3());
    const half = Math.tan((0.5 * FIELD_DEG * Math.PI) / 180);
    const distance = (0.5 * MARGIN * Math.max(size.y, size.x / this.orbitCamera.aspect)) / half + 0.5 * size.z;
    this.controls.enableDamping = false; // ends a turn that is still swinging
    this.controls.update();
    this.orbitCamera.near = 0.05 * distance;
    this.orbitCamera.far = 20 * distance;
    this.orbitCamera.position.copy(centre).add(new Vector3(0, 0, distance));
    this.orbitCamera.updateProjectionMatrix();
    this.controls.target.copy(centre);
    this.controls.minDistance = 0.25 * distance;
    this.controls.maxDistance = 4 * distance;
    this.controls.update();
    this.controls.enableDamping = true;
    this.request();
  }

  /** Turns the orbiting camera about its target, radians. */
  turn(right, up) {
    const offset = this.orbitCamera.position.clone().sub(this.controls.target);
    const place = new Spherical().setFromVector3(offset);
    place.theta += right;
    place.phi -= up;
    this.orbitCamera.position.setFromSpherical(place.makeSafe()).add(this.controls.target);
    this.controls.update();
    this.request();
  }

  /** Looks through a camera of one's own, or through the orbiting one (null). */
  lookThrough(camera) {
    this.camera = camera ?? this.orbitCamera;
    this.controls.enabled = !camera;
    this.request();
  }

  request() {
    this.pending ??= requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    this.pending = undefined;
    const seconds = this.last === null ? 0 : Math.min(0.1, (now - this.last) / 1000);
    const moving = this.before.map((step) => step(seconds)).some(Boolean);
    this.last = moving ? now : null;
    const turning = this.controls.enabled && this.controls.update();
    clearTimeout(this.settling);
    const draft = this.software && !this.waiting.length;
    this.draw(draft);
    if (moving || turning) this.request();
    else if (draft) this.settling = setTimeout(() => this.draw(), SETTLE_MS);
  }

  /** Draws now; a draft has fewer pixels and the shadows of the frame before. */
  draw(draft = false) {
    const ratio = draft ? DRAFT_RATIO : Math.min(2, window.devicePixelRatio);
    if (ratio !== this.renderer.getPixelRatio()) this.renderer.setPixelRatio(ratio);
    this.renderer.shadowMap.autoUpdate = !draft;
    this.onDraw?.(this.camera);
    this.renderer.render(this.scene, this.camera);
    this.onDrawn?.();
    if (draft) return;
    for (const done of this.waiting.splice(0)) done();
  }

  /** Resolves when the next frame has been drawn, in full. */
  drawn() {
    return new Promise((done) => {
      this.waiting.push(done);
      this.request();
    });
  }
}
