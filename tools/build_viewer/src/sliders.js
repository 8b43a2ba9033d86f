// SPDX-License-Identifier: Apache-2.0
// The list of expressions: a slider each, in groups, with a search box and presets.
import { grouped, partner, randomMix } from "./expressions.js";

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export class Sliders {
  /** `onMove(Map)` is called with the values that the user has changed. */
  constructor(root, head, { groups, presets }, onMove) {
    Object.assign(this, { root, head, presets, onMove });
    this.rows = new Map();
    this.link = root.querySelector("#link");
    this.list = root.querySelector("#sliders");
    this.none = root.querySelector("#no-match");
    for (const group of grouped(head.names, groups)) this.list.append(this.group(group));
    this.fillPresets(root.querySelector("#presets"));
    const search = root.querySelector("#search");
    search.addEventListener("input", () => this.filter(search.value));
    root.querySelector("#reset-sliders").addEventListener("click", () => this.move(new Map(), true));
    this.show();
  }

  group({ label, names }) {
    const rows = names.map((name) => this.row(name));
    return make("details", { open: true }, make("summary", {}, `${label} `, make("small", {}, `${names.length}`)), ...rows);
  }

  row(name) {
    const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, name });
    slider.setAttribute("aria-label", name);
    const value = make("output");
    const row = make("label", { className: "slider" }, make("span", { title: name }, name), slider, value);
    slider.addEventListener("input", () => this.move(this.linked(name, slider.valueAsNumber)));
    slider.addEventListener("dblclick", () => this.move(this.linked(name, 0)));
    this.rows.set(name, { row, slider, value });
    return row;
  }

  linked(name, value) {
    const moved = new Map([[name, value]]);
    const other = this.link.checked ? partner(name) : null;
    if (other && this.rows.has(other)) moved.set(other, value);
    return moved;
  }

  /** Passes values on; with `all`, those that are missing become 0. */
  move(values, all = false) {
    this.onMove(all ? new Map(this.head.names.map((name) => [name, values.get(name) ?? 0])) : values);
    this.show();
  }

  fillPresets(place) {
    const button = (label, values) => {
      const node = make("button", { type: "button" }, label);
      node.addEventListener("click", () => this.move(values(), true));
      place.append(node);
    };
    button("neutral", () => new Map());
    if ([...this.head.opening.values()].some(Boolean)) button("as opened", () => this.head.opening);
    const own = Object.entries(this.presets).filter(([, preset]) => Object.keys(preset).every((n) => this.rows.has(n)));
    for (const [label, preset] of own) button(label, () => new Map(Object.entries(preset)));
    if (own.length) button("random", () => randomMix(Object.fromEntries(own)));
  }

  filter(text) {
    const wanted = text.trim().toLowerCase();
    for (const [name, { row }] of this.rows) row.hidden = !name.toLowerCase().includes(wanted);
    for (const group of this.list.children) {
      group.hidden = ![...group.querySelectorAll(".slider")].some((row) => !row.hidden);
      if (wanted && !group.hidden) group.open = true;
    }
    this.none.hidden = [...this.list.children].some((group) => !group.hidden);
  }

  /** Shows the head's present values. */
  show() {
    for (const [name, { slider, value }] of this.rows) {
      const now = this.head.weights.get(name) ?? 0;
      if (slider.valueAsNumber !== now) slider.value = now;
      const text = now.toFixed(2);
      if (value.value !== text) value.value = text;
    }
  }
}
