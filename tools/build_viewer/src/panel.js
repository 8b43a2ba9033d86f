// SPDX-License-Identifier: Apache-2.0
// Connects the page's controls with what they change.
import { steerLight } from "./ball.js";
import { Sliders } from "./sliders.js";

const STEP_RAD = 0.08; // of an arrow key
const TURNS = {
  arrowleft: [-STEP_RAD, 0],
  arrowright: [STEP_RAD, 0],
  arrowup: [0, STEP_RAD],
  arrowdown: [0, -STEP_RAD],
};

const $ = (id) => document.getElementById(id);

export class Panel {
  constructor(viewer, facts) {
    Object.assign(this, viewer); // stage, head, shading, lights, player, backdrop
    this.sliders = new Sliders($("panel"), this.head, facts, (values) => this.express(values));
    this.withoutExpressions();
    this.connectLook();
    this.connectLight();
    this.connectPhoto();
    this.connectClips();
    $("reset-view").addEventListener("click", () => this.resetView());
    $("save").addEventListener("click", () => this.save(facts.title));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  /** Sets expressions by name; a clip that plays ends. */
  express(values) {
    this.player.stop();
    for (const [name, value] of values) this.head.set(name, value);
    this.stage.request();
  }

  withoutExpressions() {
    const none = this.head.names.length === 0;
    $("expressions").hidden = none;
    $("no-expressions").hidden = !none;
  }

  connectLook() {
    const { shading } = this;
    const options = { static: shading.hasOwnDetail, photo: Boolean(shading.photoNormals) };
    for (const option of [...$("detail").options]) if (options[option.value] === false) option.remove();
    $("detail").value = shading.detail;
    $("detail-row").hidden = $("detail").options.length < 2;
    $("no-detail").hidden = !$("detail-row").hidden;
    $("relief-choice").hidden = !shading.relief;
    const modes = [...document.querySelectorAll("input[name=shading]")];
    const apply = () => {
      shading.set(modes.find((mode) => mode.checked).value, $("detail").value);
      this.stage.request();
    };
    for (const control of [...modes, $("detail")]) control.addEventListener("change", apply);
    $("wires").addEventListener("change", () => {
      shading.showWires($("wires").checked);
      this.stage.request();
    });
    apply();
  }

  connectLight() {
    const { lights, stage } = this;
    const again = () => stage.request();
    steerLight($("ball"), stage.canvas, lights, again);
    $("intensity").addEventListener("input", () => {
      lights.setIntensity($("intensity").valueAsNumber);
      again();
    });
    $("photo-light-row").hidden = !lights.probe;
    $("photo-light").addEventListener("change", () => this.usePhotoLight($("photo-light").checked));
  }

  usePhotoLight(on) {
    $("photo-light").checked = on;
    this.lights.usePhoto(on);
    $("ball").hidden = this.lights.isPhotos;
    this.stage.request();
  }

  connectPhoto() {
    $("photo-section").hidden = !this.backdrop;
    $("backdrop").addEventListener("change", () => this.showPhoto($("backdrop").checked));
    $("opacity").addEventListener("input", () => this.fade());
  }

  /** Head over the photo, with the photo's expression and light, through the camera that took it; or not. */
  showPhoto(on) {
    if (!this.backdrop) return;
    $("backdrop").checked = on;
    this.backdrop.show(on);
    if (on) {
      this.sliders.move(this.head.opening, true);
      this.usePhotoLight(true);
    } else {
      this.usePhotoLight(false);
    }
    this.fade();
  }

  fade() {
    const over = $("backdrop").checked;
    $("opacity").disabled = !over;
    this.stage.canvas.style.opacity = over ? $("opacity").value : 1;
  }

  connectClips() {
    const { player } = this;
    $("clip-section").hidden = player.clips.length === 0;
    player.clips.forEach((clip, i) => $("clip").append(new Option(clip.name || `clip ${i + 1}`, i)));
    $("clip-row").hidden = player.clips.length < 2;
    $("time").max = player.duration;
    $("clip").addEventListener("change", () => {
      player.choose(Number($("clip").value));
      $("time").max = player.duration;
      player.play();
    });
    $("play").addEventListener("click", () => this.playOrPause());
    $("time").addEventListener("input", () => {
      const time = $("time").valueAsNumber; // before pausing shows the old one
      player.pause();
      player.seek(time);
    });
    $("speed").addEventListener("change", () => (player.speed = Number($("speed").value)));
    player.onChange = () => this.showTime();
    this.showTime();
  }

  playOrPause() {
    if (this.player.playing) this.player.pause();
    else this.player.play();
  }

  showTime() {
    const { player } = this;
    $("play").textContent = player.playing ? "Pause" : "Play";
    $("time").value = player.time;
    $("time-text").value = `${player.time.toFixed(2)} / ${player.duration.toFixed(2)} s`;
    this.sliders.show();
  }

  resetView() {
    if (this.backdrop?.on) this.backdrop.fit();
    else this.stage.frame(this.head.box);
  }

  /** Downloads what is seen. */
  async save(title) {
    const { canvas } = this.stage;
    await this.stage.drawn(); // in full: a draft has fewer pixels
    const picture = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const pen = picture.getContext("2d");
    pen.fillStyle = getComputedStyle(canvas.parentElement).backgroundColor;
    pen.fillRect(0, 0, picture.width, picture.height);
    const ratio = canvas.width / canvas.clientWidth;
    if (this.backdrop?.on) {
      const { x, y, scale, width, height } = this.backdrop;
      pen.drawImage(this.backdrop.image, ratio * x, ratio * y, ratio * scale * width, ratio * scale * height);
    }
    pen.globalAlpha = Number(canvas.style.opacity || 1);
    pen.drawImage(canvas, 0, 0);
    const blob = await new Promise((done) => picture.toBlob(done, "image/png"));
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${title}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  key(event) {
    const { target } = event;
    const types = target.matches?.("input[type=search], select") || event.ctrlKey || event.metaKey || event.altKey;
    if (types) return;
    const key = event.key.toLowerCase();
    if (key === " ") {
      if (target.matches?.("button, summary, input[type=checkbox], input[type=radio]")) return;
      event.preventDefault();
      this.playOrPause();
    } else if (key === "r") this.resetView();
    else if (key === "w") $("wires").click();
    else if (TURNS[key] && target === this.stage.canvas && !this.backdrop?.on) {
      event.preventDefault();
      this.stage.turn(...TURNS[key]);
    } else if (key === "b" && this.backdrop) this.showPhoto(!this.backdrop.on);
  }
}
