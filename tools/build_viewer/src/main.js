// SPDX-License-Identifier: Apache-2.0
// Starts the viewer from what the page carries.
import { Backdrop } from "./backdrop.js";
import { bytes, facts, pictureUrl } from "./embedded.js";
import { Head } from "./head.js";
import { Lights } from "./lights.js";
import { Panel } from "./panel.js";
import { Player } from "./player.js";
import { Shading } from "./shading.js";
import { Stage } from "./stage.js";

function tell(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = !text;
}

function hasWebGL() {
  return Boolean(document.createElement("canvas").getContext("webgl2"));
}

async function photo(url) {
  const image = document.getElementById("photo");
  image.src = url;
  await image.decode();
  return image;
}

async function start() {
  if (!hasWebGL()) {
    throw new Error("this browser has no WebGL 2, which draws the head; switch on hardware acceleration in its settings, or use another browser");
  }
  const about = facts();
  const head = await Head.read(await bytes("glb"));
  const stage = new Stage(document.getElementById("view"));
  stage.scene.add(head.scene);
  const lights = new Lights(stage.scene, head.box, about.light);
  stage.onDraw = (camera) => lights.follow(camera);
  const shading = new Shading(head);
  await shading.addMaps(await pictureUrl("normals"), await pictureUrl("relief"));
  const player = new Player(head, stage);
  const url = about.camera && (await pictureUrl("photo-file"));
  const backdrop = url ? new Backdrop(stage, await photo(url), head.box, about.camera) : null;
  const panel = new Panel({ stage, head, shading, lights, player, backdrop }, about);
  stage.onResize = () => backdrop?.on && backdrop.fit();
  stage.resize();
  stage.frame(head.box);
  await stage.drawn();
  tell("");
  return { head, stage, player, backdrop, lights, shading, panel };
}

// for the browser's console and for tests: await hifaceViewer
window.hifaceViewer = start().catch((error) => {
  tell(`The head cannot be shown: ${error.message ?? error}.`);
  return null;
});
