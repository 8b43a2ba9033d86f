// SPDX-License-Identifier: Apache-2.0
// What the page carries in its own script elements.

function element(id) {
  return document.getElementById(id);
}

/** Facts about the page: camera, light, presets, groups. */
export function facts() {
  return JSON.parse(element("facts").textContent);
}

/** Bytes of an embedded file, or null where the page has none. */
export async function bytes(id) {
  const node = element(id);
  if (!node) return null;
  const text = atob(node.textContent.trim());
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  if (node.dataset.packed !== "gzip") return packed;
  if (!("DecompressionStream" in window)) {
    throw new Error("this browser is too old to unpack the file; use one of 2023 or newer");
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A URL of an embedded picture, or null where the page has none. */
export async function pictureUrl(id) {
  const content = await bytes(id);
  return content && URL.createObjectURL(new Blob([content], { type: element(id).dataset.mime }));
}
