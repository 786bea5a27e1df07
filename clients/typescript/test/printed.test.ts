/** What is printed for people runs as it is printed: the README, the examples. Against the real gateway. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const SERVER = process.env["WAVEGATE_SERVER"];
const skip = SERVER === undefined ? "WAVEGATE_SERVER does not name the gateway's program" : false;
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

describe("what is printed", { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), "wavegate-printed-"));
  const ends: (() => void)[] = [];
  let environment: NodeJS.ProcessEnv = {};

  before(async () => {
    const { SMALLEST_API_KEY: _key, ...inherited } = process.env;
    const portFile = join(folder, "port");
    const gateway = spawn(
      SERVER ?? "",
      ["--listen", "127.0.0.1:0", "--port-file", portFile, "--metrics-listen", "off", "--local-engine", "deterministic"],
      { stdio: "ignore", env: inherited },
    );
    ends.push(() => gateway.kill("SIGKILL"));
    while (!existsSync(portFile) || readFileSync(portFile, "utf8").trim() === "") {
      assert.equal(gateway.exitCode, null);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    environment = { ...inherited, WAVEGATE_TARGET: `127.0.0.1:${readFileSync(portFile, "utf8").trim()}` };
  });

  after(() => {
    for (const end of ends) {
      end();
    }
    rmSync(folder, { recursive: true, force: true });
  });

  it("in the README compiles and runs", async () => {
    const readme = readFileSync(join(root, "README.md"), "utf8");
    const snippets = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] ?? "");
    assert(snippets.length >= 6);
    const printed = join(root, "build", "printed");
    mkdirSync(printed, { recursive: true });
    for (const [index, snippet] of snippets.entries()) {
      writeFileSync(join(printed, `snippet${String(index)}.ts`), snippet);
    }
    writeFileSync(
      join(printed, "tsconfig.json"),
      JSON.stringify({
        extends: "../../tsconfig.base.json",
        compilerOptions: { module: "nodenext", rootDir: ".", outDir: "out", noUnusedLocals: false },
        include: ["*.ts"],
      }),
    );
    const tsc = join(root, "node_modules", "typescript-7", "bin", "tsc");
    const { stdout } = await run(process.execPath, [tsc, "-p", printed]).catch((error: unknown) => {
      throw new Error((error as { stdout?: string }).stdout ?? String(error));
    });
    assert.equal(stdout, "");
    for (const index of snippets.keys()) {
      const program = join(printed, "out", `snippet${String(index)}.js`);
      const said = await run(process.execPath, [program], { cwd: folder, env: environment, timeout: 60_000 });
      assert.equal(said.stderr, "", snippets[index]);
      assert.notEqual(said.stdout, "", snippets[index]);
    }
  });

  it("of the examples runs by its command", async () => {
    const examples = join(root, "..", "..", "examples", "typescript");
    const wav = join(folder, "example.wav");
    const example = async (...args: string[]): Promise<string> => {
      const options = { cwd: examples, env: environment, timeout: 120_000 };
      return (await run(process.execPath, ["run.mjs", ...args], options)).stdout;
    };
    assert.match(await example("speak", "-o", wav, "Hello there."), /example\.wav: \d+\.\d\d s/);
    assert.match(await example("listen", wav), /final /);
    assert.match(await example("barge_in"), /interrupted after 1\.\d+ s[^]*answer: +\d/);
    assert.match(await example("agent"), /caller: [^]*agent: /);
    await assert.rejects(example("nothing"), /usage: node run\.mjs/);
  });
});
