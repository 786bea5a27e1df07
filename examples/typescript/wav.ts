/** WAV files of 16-bit samples in one channel, which is all that these examples read and write. */

import { open, readFile } from "node:fs/promises";
import { type AudioFormat, wavHeader } from "@wavegate/client";

/** Writes pieces of audio to a file as they come; gives their length in bytes. */
export async function writeWav(path: string, format: AudioFormat, audio: AsyncIterable<Uint8Array>): Promise<number> {
  const file = await open(path, "w");
  try {
    let length = 0;
    await file.write(wavHeader(format)); // playable at any moment, whatever happens
    for await (const piece of audio) {
      await file.write(piece);
      length += piece.length;
    }
    await file.write(wavHeader(format, length), 0, undefined, 0);
    return length;
  } finally {
    await file.close();
  }
}

/** The samples of a file, and their rate. Throws for what is no such file. */
export async function readWav(path: string): Promise<{ samples: Uint8Array; sampleRateHertz: number }> {
  const file = await readFile(path);
  if (file.toString("latin1", 0, 4) !== "RIFF" || file.toString("latin1", 8, 12) !== "WAVE") {
    throw new Error(`${path} is no WAV file`);
  }
  let sampleRateHertz: number | undefined;
  for (let at = 12; at + 8 <= file.length; ) {
    const name = file.toString("latin1", at, at + 4);
    const length = file.readUInt32LE(at + 4);
    const body = file.subarray(at + 8, at + 8 + length);
    if (name === "fmt ") {
      if (body.readUInt16LE(0) !== 1 || body.readUInt16LE(2) !== 1 || body.readUInt16LE(14) !== 16) {
        throw new Error(`${path} does not hold 16-bit samples in one channel`);
      }
      sampleRateHertz = body.readUInt32LE(4);
    } else if (name === "data" && sampleRateHertz !== undefined) {
      return { samples: body, sampleRateHertz };
    }
    at += 8 + length + (length % 2);
  }
  throw new Error(`${path} holds no audio`);
}
