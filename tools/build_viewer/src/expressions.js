// SPDX-License-Identifier: Apache-2.0
// Names of expressions: their groups, their other side, and mixes of presets.

const ONE_SIDED = new Set(["jawLeft", "jawRight", "mouthLeft", "mouthRight"]); // movements to a side, no pairs

/** The shape that the other side makes, or null: both eyes look the same way, all else is mirrored. */
export function partner(name) {
  if (ONE_SIDED.has(name)) return null;
  const side = /(Left|Right)$/.exec(name)?.[0];
  if (!side) return null;
  const stem = name.slice(0, -side.length);
  const other = side === "Left" ? "Right" : "Left";
  if (stem === "eyeLookIn") return `eyeLookOut${other}`;
  if (stem === "eyeLookOut") return `eyeLookIn${other}`;
  return stem + other;
}

/** Names in groups [{label, names}]; those that belong to none come last. */
export function grouped(names, groups) {
  const left = new Set(names);
  const out = groups.map(({ label, prefix }) => {
    const own = names.filter((name) => left.has(name) && name.startsWith(prefix));
    own.forEach((name) => left.delete(name));
    return { label, names: own };
  });
  return [...out, { label: "Other", names: [...left] }].filter((group) => group.names.length);
}

/** Two presets, each by a random amount. */
export function randomMix(presets, random = Math.random) {
  const choices = Object.values(presets).filter((preset) => Object.keys(preset).length);
  const mix = new Map();
  for (let i = 0; i < 2 && choices.length; i++) {
    const [preset] = choices.splice(Math.floor(random() * choices.length), 1);
    const amount = 0.25 + 0.6 * random();
    for (const [name, value] of Object.entries(preset)) {
      mix.set(name, Math.min(1, (mix.get(name) ?? 0) + amount * value));
    }
  }
  return mix;
}
