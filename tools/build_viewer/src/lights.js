// SPDX-License-Identifier: Apache-2.0
// Light that turns with the viewer: a key light that can be moved, a fill from below (lips shade teeth), sky and ground; or the photo's light.
import { DirectionalLight, Group, HemisphereLight, LightProbe, SphericalHarmonics3, Vector3 } from "three";

const HOME = [-0.45, 0.5]; // of the key light, right and up as seen, part of the ball's radius
const PI = Math.PI; // a matte surface under a light of intensity pi has its own colour

export class Lights {
  constructor(scene, box, harmonics) {
    this.centre = box.getCenter(new Vector3());
    this.radius = 0.5 * box.getSize(new Vector3()).length();
    this.rig = new Group();
    this.rig.position.copy(this.centre);
    this.key = new DirectionalLight(0xfff6ec);
    this.fill = new DirectionalLight(0xe6efff);
    this.sky = new HemisphereLight(0xf4f7ff, 0x8d7f76);
    this.fill.position.set(0.55, -0.55, 1).multiplyScalar(3 * this.radius);
    this.rig.add(this.key, this.key.target, this.fill, this.fill.target, this.sky);
    this.probe = harmonics && new LightProbe(harmonicsOf(harmonics));
    scene.add(this.rig);
    if (this.probe) scene.add(this.probe);
    this.castShadow();
    this.setDirection(...HOME);
    this.setIntensity(1);
    this.usePhoto(false);
  }

  castShadow() {
    const { key, radius } = this;
    key.castShadow = true;
    key.shadow.mapSize.set(2048, 2048);
    key.shadow.radius = 3;
    key.shadow.normalBias = 0.008 * radius;
    key.shadow.bias = -0.0015;
    const view = key.shadow.camera;
    view.left = view.bottom = -1.05 * radius;
    view.right = view.top = 1.05 * radius;
    view.near = 1.5 * radius;
    view.far = 4.5 * radius;
  }

  /** Places the key light where a ball that faces the viewer has its highlight: right and up, -1 to 1. */
  setDirection(right, up) {
    const length = Math.hypot(right, up);
    const shrink = length > 0.98 ? 0.98 / length : 1;
    this.direction = [right * shrink, up * shrink];
    const [x, y] = this.direction;
    this.key.position.set(x, y, Math.sqrt(1 - x * x - y * y)).multiplyScalar(3 * this.radius);
  }

  setIntensity(value) {
    this.intensity = value;
    this.key.intensity = 0.82 * PI * value;
    this.fill.intensity = 0.34 * PI * value;
    this.sky.intensity = 0.32 * PI * value;
    if (this.probe) this.probe.intensity = value;
  }

  /** Lights the head as it is in the photo, instead of by the rig. */
  usePhoto(on) {
    this.isPhotos = on && Boolean(this.probe);
    this.rig.visible = !this.isPhotos;
    if (this.probe) this.probe.visible = this.isPhotos;
  }

  /** Turns the rig with a camera. */
  follow(camera) {
    this.rig.quaternion.setFromRotationMatrix(camera.matrixWorld);
    this.rig.updateMatrixWorld(true);
  }
}

function harmonicsOf(rows) {
  return new SphericalHarmonics3().set(rows.map((row) => new Vector3(...row)));
}
