// Puts what has to be in the package beside the rest of it: the build, and the repository's licence.
import { copyFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import "./build.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
for (const name of ["LICENSE", "NOTICE"]) {
  copyFileSync(join(root, "..", "..", name), join(root, name));
}
