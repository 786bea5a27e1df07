import { AudioEncoding, type AudioFormat } from "./gen/wavegate/speech/v1/types_pb.js";

/** The size of a sample of a raw encoding; undefined for a compressed one. */
export function sampleBytes(format: AudioFormat): number | undefined {
  switch (format.encoding) {
    case AudioEncoding.UNSPECIFIED:
    case AudioEncoding.LINEAR16:
      return 2;
    case AudioEncoding.LINEAR32:
      return 4;
    case AudioEncoding.MULAW:
    case AudioEncoding.ALAW:
      return 1;
    default:
      return undefined;
  }
}

/** The rate of a raw format; throws a `TypeError` for a compressed one, which has none. */
export function bytesPerSecond(format: AudioFormat): number {
  const width = sampleBytes(format);
  if (width === undefined) {
    throw new TypeError(`${AudioEncoding[format.encoding]} has no fixed rate of bytes`);
  }
  return width * format.sampleRateHertz;
}

/** The playing time of an Opus packet in samples at 48 kHz, as its first two bytes tell it (RFC 6716, 3.1 and 3.2). */
export function opusSamples(packet: Uint8Array): number {
  const [toc, second] = packet;
  if (toc === undefined) {
    return 0;
  }
  const config = toc >> 3;
  const frameMs =
    config < 12
      ? [10, 20, 40, 60][config % 4] // SILK
      : config < 16
        ? [10, 20][config % 2] // hybrid
        : [2.5, 5, 10, 20][config % 4]; // CELT
  const code = toc & 3;
  const count = code === 3 ? (second ?? 0) & 63 : code === 0 ? 1 : 2;
  return Math.round(count * (frameMs ?? 0) * 48);
}

/** Audio in pieces of at most `limitBytes`, cut between samples; Opus packets whole. */
export function* pieces(content: Uint8Array, format: AudioFormat, limitBytes: number): Generator<Uint8Array, void, undefined> {
  const width = sampleBytes(format) ?? 1;
  const step = Math.max(limitBytes - (limitBytes % width), width);
  if (format.encoding === AudioEncoding.OPUS || content.length <= step) {
    if (content.length > 0) {
      yield content;
    }
    return;
  }
  for (let offset = 0; offset < content.length; offset += step) {
    yield content.subarray(offset, offset + step);
  }
}

/** Pieces of audio as one. */
export function concatenated(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/** What a pacer makes up for of a source that was late: the jitter of timers, not a pause. */
const CATCH_UP_MS = 100;

/**
 * Says how long to hold audio back, so that it leaves no faster than it was spoken.
 *
 * A piece is due when its last sample would have been recorded. The clock starts with the first piece. A source that
 * was late is not made up for: the time that it lost stays lost, as with a microphone.
 */
export class Pacer {
  readonly #bytesPerMs: number;
  #dueMs: number | undefined;

  /** Throws a `TypeError` for a format that has no fixed rate. */
  constructor(format: AudioFormat, speed = 1) {
    this.#bytesPerMs = (bytesPerSecond(format) * speed) / 1000;
  }

  /** How many bytes play for so long. */
  bytesIn(ms: number): number {
    return Math.floor(this.#bytesPerMs * ms);
  }

  /** How long the next piece has to wait. */
  delayMs(lengthBytes: number, nowMs: number): number {
    const startMs = this.#dueMs === undefined ? nowMs : Math.max(this.#dueMs, nowMs - CATCH_UP_MS);
    this.#dueMs = startMs + lengthBytes / this.#bytesPerMs;
    return Math.max(0, this.#dueMs - nowMs);
  }
}

/** What readers take for "until the end". */
const UNKNOWN_BYTES = 0xffffffff;

/**
 * The RIFF header of one channel of raw audio; without `dataBytes` for a stream of unknown length.
 *
 * Throws a `TypeError` for an encoding that is not raw.
 */
export function wavHeader(format: AudioFormat, dataBytes?: number): Uint8Array {
  const rate = format.sampleRateHertz;
  const width = bytesPerSecond(format) / rate;
  const tag = format.encoding === AudioEncoding.ALAW ? 6 : format.encoding === AudioEncoding.MULAW ? 7 : 1;
  const header = Buffer.alloc(tag === 1 ? 44 : 58);
  const formBytes = tag === 1 ? 16 : 18;
  header.write("RIFF", 0);
  header.writeUInt32LE(dataBytes === undefined ? UNKNOWN_BYTES : header.length - 8 + dataBytes + (dataBytes % 2), 4);
  header.write("WAVEfmt ", 8);
  header.writeUInt32LE(formBytes, 16);
  header.writeUInt16LE(tag, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(rate, 24);
  header.writeUInt32LE(rate * width, 28);
  header.writeUInt16LE(width, 32);
  header.writeUInt16LE(width * 8, 34);
  let at = 20 + formBytes;
  if (tag !== 1) {
    // Any format but PCM has an extension and a fact chunk.
    header.write("fact", at);
    header.writeUInt32LE(4, at + 4);
    header.writeUInt32LE(dataBytes === undefined ? UNKNOWN_BYTES : dataBytes / width, at + 8);
    at += 12;
  }
  header.write("data", at);
  header.writeUInt32LE(dataBytes ?? UNKNOWN_BYTES, at + 4);
  return new Uint8Array(header);
}
