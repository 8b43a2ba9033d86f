// SPDX-License-Identifier: Apache-2.0
// Bundles the viewer's source and three.js into one script: npm ci && npm run build
import { build } from "esbuild";
import { createRequire } from "node:module";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";

const out = new URL("../../src/hiface/app/page/viewer.js", import.meta.url);
const require = createRequire(import.meta.url);
const three = require.resolve("three").replace(/build\/three[^/]*$/, "");
const { version } = JSON.parse(readFileSync(`${three}package.json`, "utf8"));
const licence = readFileSync(`${three}LICENSE`, "utf8").trim();
// tests compare this with the sources, so that the bundle cannot fall behind them
const folder = new URL("src/", import.meta.url);
const hash = createHash("sha256");
for (const name of readdirSync(folder).sort()) hash.update(readFileSync(new URL(name, folder)));
const banner = `/*! hiface viewer, SPDX-License-Identifier: Apache-2.0. Built by tools/build_viewer
from sources ${hash.digest("hex")}; contains three.js ${version}:

${licence}
*/`;

await build({
  entryPoints: [new URL("src/main.js", import.meta.url).pathname],
  outfile: out.pathname,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  charset: "ascii",
  legalComments: "none", // the banner has three's licence in full
  banner: { js: banner },
  logLevel: "info",
});
