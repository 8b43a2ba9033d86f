// SPDX-License-Identifier: Apache-2.0
// Runs the Khronos glTF validator on GLB files and prints its report as JSON, one line per file.
// Usage: node tools/validate_glb.mjs <folder that holds node_modules/gltf-validator> <file.glb> ...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [folder, ...paths] = process.argv.slice(2);
const validator = createRequire(resolve(folder, "package.json"))("gltf-validator");
let failed = false;
for (const path of paths) {
  const report = await validator.validateBytes(new Uint8Array(readFileSync(path)), { maxIssues: 200 });
  const { numErrors, numWarnings, numInfos, numHints, messages } = report.issues;
  console.log(JSON.stringify({ path, numErrors, numWarnings, numInfos, numHints, messages }));
  failed ||= numErrors > 0;
}
process.exit(failed ? 1 : 0);
