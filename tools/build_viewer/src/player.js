// SPDX-License-Identifier: Apache-2.0
// Plays the clips of the file.
import { AnimationMixer } from "three";

export class Player {
  constructor(head, stage) {
    Object.assign(this, { head, stage });
    this.clips = head.clips;
    this.mixer = new AnimationMixer(head.scene);
    this.action = null;
    this.playing = false;
    this.speed = 1;
    this.choose(0);
    stage.before.push((seconds) => this.step(seconds));
  }

  choose(index) {
    this.stop();
    this.clip = this.clips[index];
    this.time = 0;
  }

  get duration() {
    return this.clip?.duration ?? 0;
  }

  play() {
    if (!this.clip) return;
    this.playing = true;
    this.show();
  }

  pause() {
    this.playing = false;
    this.onChange?.();
  }

  /** Goes to a time, seconds. */
  seek(time) {
    this.time = Math.min(Math.max(0, time), this.duration);
    this.show();
  }

  /** Lets go of the head: joints go back to rest, expressions stay as they are. */
  stop() {
    const weights = this.action && this.head.read();
    this.playing = false;
    this.mixer.stopAllAction();
    this.action = null;
    if (weights) this.head.setAll(weights);
    this.onChange?.();
  }

  step(seconds) {
    if (!this.playing) return false;
    const next = this.time + seconds * this.speed;
    this.time = this.duration > 0 ? next % this.duration : 0;
    this.show();
    return true;
  }

  show() {
    this.action ??= this.mixer.clipAction(this.clip).play();
    this.action.time = this.time;
    this.mixer.update(0);
    this.head.weights = this.head.read();
    this.onChange?.();
    this.stage.request();
  }
}
