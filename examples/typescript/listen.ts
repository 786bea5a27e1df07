/**
 * Transcribes a WAV file (16-bit samples, one channel), and prints what it hears as it hears it.
 *
 *     node run.mjs listen hello.wav
 */

import { parseArgs } from "node:util";
import { AudioEncoding, Client, WavegateError } from "@wavegate/client";
import { readWav } from "./wav.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    language: { type: "string", default: "en" },
    fast: { type: "boolean", default: false }, // at once, not at the speed of speech
  },
});

try {
  const [path] = positionals;
  if (path === undefined) {
    throw new Error("usage: node run.mjs listen [--language en] [--fast] FILE.wav");
  }
  const { samples, sampleRateHertz } = await readWav(path);
  await using client = new Client();
  await using session = await client.transcribe(
    { languageCode: values.language },
    { audioFormat: { encoding: AudioEncoding.LINEAR16, sampleRateHertz } },
  );
  const sending = (async () => {
    await session.streamAudio([samples], { paced: !values.fast });
    await session.end();
  })();
  for await (const transcript of session.transcripts()) {
    if (transcript.text !== "") {
      console.log(transcript.isFinal ? "final  " : "partial", transcript.text);
    }
  }
  await sending;
} catch (error) {
  console.error(error instanceof WavegateError ? error.message : error);
  process.exitCode = 1;
}
