// Runs an example: `node run.mjs speak "Hello there."`. What it needs is fetched and built the first time.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const client = join(here, "..", "..", "clients", "typescript");

/** Runs a program to its end; its output goes where ours does, or with `isQuiet` to standard error. */
function run(program, args, { cwd = process.cwd(), isQuiet = false } = {}) {
  const { status, error } = spawnSync(program, args, { cwd, stdio: ["inherit", isQuiet ? 2 : "inherit", "inherit"] });
  if (error !== undefined) {
    console.error(error.message);
  }
  return status ?? 1;
}

/** The same, for what has to succeed. */
function must(program, args, cwd) {
  const status = run(program, args, { cwd, isQuiet: true });
  if (status !== 0) {
    process.exit(status);
  }
}

const [name = "", ...args] = process.argv.slice(2);
if (!existsSync(join(here, `${name}.ts`))) {
  console.error("usage: node run.mjs speak|listen|barge_in|agent [ARGUMENT...]");
  process.exit(2);
}
if (!existsSync(join(client, "node_modules", "typescript-7"))) {
  must("npm", ["ci", "--no-fund", "--no-audit"], client);
}
if (!existsSync(join(client, "dist", "cjs", "package.json"))) {
  must(process.execPath, ["scripts/build.js"], client);
}
const link = join(here, "node_modules", "@wavegate", "client");
if (!existsSync(link)) {
  mkdirSync(dirname(link), { recursive: true });
  symlinkSync(client, link, "junction");
}
must(process.execPath, [join(client, "node_modules", "typescript-7", "bin", "tsc"), "-p", here], here);
process.exitCode = run(process.execPath, [join(here, "build", `${name}.js`), ...args]);
