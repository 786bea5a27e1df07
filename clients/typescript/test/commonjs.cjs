// What a CommonJS program sees. Run by the tests with a target where nobody answers a call.
"use strict";
const assert = require("node:assert/strict");
const wavegate = require("@wavegate/client");

async function main() {
  assert.match(require.resolve("@wavegate/client"), /cjs/);
  const esm = await import("@wavegate/client");
  assert.deepEqual(Object.keys(wavegate).sort(), Object.keys(esm).sort());
  assert.notEqual(wavegate.Client, esm.Client);
  const client = new wavegate.Client({ target: process.argv[2] });
  await assert.rejects(client.getSession("x", { timeoutMs: 50 }), (error) => {
    assert(error instanceof wavegate.WavegateError);
    assert(error instanceof esm.WavegateError);
    assert.equal(error.kind, "DEADLINE");
    return true;
  });
  client.close();
  console.log("as it should be");
}

void main();
