/**
 * Speaks a text into a WAV file; without one its standard input, word by word as it comes.
 *
 *     node run.mjs speak -o hello.wav "Hello there."
 */

import { parseArgs } from "node:util";
import { Client, WavegateError } from "@wavegate/client";
import { writeWav } from "./wav.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    output: { type: "string", short: "o", default: "speech.wav" },
    voice: { type: "string", default: "magnus" },
  },
});

/** The words of standard input, each as soon as it is there. */
async function* words(): AsyncGenerator<string, void, undefined> {
  let rest = "";
  for await (const piece of process.stdin.setEncoding("utf8") as AsyncIterable<string>) {
    const found = (rest + piece).split(/(?<=\s)/);
    rest = found.pop() ?? "";
    yield* found;
  }
  yield rest;
}

try {
  await using client = new Client();
  await using session = await client.synthesize({ voiceId: values.voice });
  const utterance = await session.say(positionals.length > 0 ? positionals.join(" ") : words());
  const length = await writeWav(values.output, session.audioFormat, utterance.audio());
  console.log(`${values.output}: ${(length / 2 / session.audioFormat.sampleRateHertz).toFixed(2)} s`);
} catch (error) {
  console.error(error instanceof WavegateError ? error.message : error);
  process.exitCode = 1;
}
