// Builds dist/ (what is published: ESM and CommonJS) and build/ (the conformance driver, the tests).
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
// The package `typescript` is the last one with the compiler's programming interface, which the linter needs.
const tsc = "node_modules/typescript-7/bin/tsc";

rmSync("dist", { recursive: true, force: true });
rmSync("build", { recursive: true, force: true });
for (const project of ["tsconfig.json", "tsconfig.cjs.json", "tsconfig.driver.json", "tsconfig.test.json"]) {
  const { status } = spawnSync(process.execPath, [tsc, "-p", project], { stdio: "inherit" });
  if (status !== 0) {
    process.exit(status ?? 1);
  }
  if (project === "tsconfig.cjs.json") {
    writeFileSync("dist/cjs/package.json", `${JSON.stringify({ type: "commonjs" })}\n`);
  }
}
