import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { Client, type TranscriptionOptions, type TranscriptionSession, wavHeader } from "@wavegate/client";
import { type FakeCall, FakeGateway, soon } from "./fake.js";

let gateway: FakeGateway;
let client: Client;

beforeEach(async () => {
  gateway = await FakeGateway.start();
  client = new Client({ target: gateway.target });
});

afterEach(async () => {
  client.close();
  await gateway.stop();
});

async function open(
  options: TranscriptionOptions = {},
  init: Record<string, unknown> = {},
): Promise<{ session: TranscriptionSession; call: FakeCall; start: Record<string, unknown> }> {
  const opening = client.transcribe({ languageCode: "en", wordTimings: true }, options);
  const call = await gateway.call("TranscribeStream");
  const start = await call.input("start");
  call.started("t1", init, { resumeWindowS: 0 });
  return { session: await soon(opening), call, start };
}

async function finish(session: TranscriptionSession, call: FakeCall): Promise<void> {
  const closing = session.close();
  await call.input("endSession");
  call.ended();
  await soon(closing);
}

const format = (encoding: number, sampleRateHertz = 16000): Record<string, unknown> => ({
  audioFormat: { encoding, sampleRateHertz, channelCount: 1 },
});

describe("listening", () => {
  it("says what it will send", async () => {
    const { session, call, start } = await open({
      keepAlive: false,
      initialAudioOffsetMs: 1500,
      labels: { a: "b" },
      clientSessionId: "mine",
    });
    assert.deepEqual((start["audioFormat"] as { sampleRateHertz: number }).sampleRateHertz, 16000);
    assert.equal(start["keepAlive"], false);
    assert.deepEqual(start["labels"], { a: "b" });
    assert.equal((start["initialAudioOffset"] as { nanos: number }).nanos, 500_000_000);
    assert.equal(start["clientSessionId"], "mine");
    await finish(session, call);
  });

  it("cuts audio between samples, and tells when the first was recorded", async () => {
    const { session, call } = await open({}, { ...format(1), limits: { maxAudioMessageBytes: 1001 } });
    await session.sendAudio(new Uint8Array(2500), { captureTime: new Date(1500) });
    const sizes: number[] = [];
    const times: unknown[] = [];
    for (let index = 0; index < 3; index++) {
      const audio = await call.input("audio");
      sizes.push((audio["content"] as Uint8Array).length);
      times.push((audio["captureTime"] as { seconds: bigint } | undefined)?.seconds);
    }
    assert.deepEqual(sizes, [1000, 1000, 500]);
    assert.deepEqual(times, [1n, undefined, undefined]);
    await session.sendAudio(new Uint8Array(0));
    await assert.rejects(session.sendAudio("audio" as never), TypeError);
    await finish(session, call);
  });

  it("leaves Opus packets whole", async () => {
    const { session, call } = await open({}, { ...format(5, 48000), limits: { maxAudioMessageBytes: 10 } });
    await session.sendAudio(new Uint8Array(100));
    assert.equal(((await call.input("audio"))["content"] as Uint8Array).length, 100);
    await finish(session, call);
  });

  it("sends what a source gives, and stops the source where the wait is ended", async () => {
    const { session, call } = await open();
    await session.streamAudio([new Uint8Array(10), new Uint8Array(20)]);
    assert.equal(((await call.input("audio"))["content"] as Uint8Array).length, 10);
    assert.equal(((await call.input("audio"))["content"] as Uint8Array).length, 20);
    let isReturned = false;
    const controller = new AbortController();
    const source: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => undefined),
        return: () => {
          isReturned = true;
          return Promise.resolve({ done: true, value: undefined });
        },
      }),
    };
    const sending = session.streamAudio(source, { signal: controller.signal });
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(soon(sending), reason);
    assert(isReturned);
    const failure = new Error("the microphone broke");
    await assert.rejects(
      session.streamAudio(
        (async function* (): AsyncGenerator<Uint8Array> {
          throw failure;
        })(),
      ),
      failure,
    );
    await finish(session, call);
  });

  it("paces audio in small pieces, and refuses to pace what has no rate", async () => {
    const { session, call } = await open();
    await session.streamAudio([new Uint8Array(32_000)], { paced: 50 });
    let bytes = 0;
    let messages = 0;
    while (bytes < 32_000) {
      bytes += ((await call.input("audio"))["content"] as Uint8Array).length;
      messages++;
    }
    assert.equal(messages, 1); // 100 ms of the pace are 5 s of the audio
    await finish(session, call);
    const ogg = await open({}, format(6, 48000));
    await assert.rejects(ogg.session.streamAudio([new Uint8Array(1)], { paced: true }), /no fixed rate/);
    await finish(ogg.session, ogg.call);
  });

  it("takes a web stream, and ends with it", async () => {
    const { session, call } = await open();
    const source = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new Uint8Array(10));
        controller.close();
      },
    });
    await soon(source.pipeTo(session.audioWriter()));
    await call.input("audio");
    await call.input("endSession");
    call.ended();
    await soon(session.close());
    const other = await open();
    await soon(other.session.audioWriter().abort());
    assert.equal((await other.call.input("endSession"))["discard"], true);
    other.call.ended();
    await soon(other.session.close());
  });

  it("waits for the final that answers, and gives it among the events as well", async () => {
    const { session, call } = await open();
    const asking = session.finalize({ finalizeId: "turn" });
    await assert.rejects(session.finalize({ finalizeId: "turn" }), /still under way/);
    await call.input("finalize");
    call.event({ case: "transcript", value: { segmentId: "a", text: "other", isFinal: true } });
    call.event({ case: "transcript", value: { segmentId: "b", text: "this", isFinal: true, finalizeId: "turn" } });
    call.event({ case: "transcript", value: { segmentId: "c", text: "part" } });
    assert.equal((await soon(asking)).text, "this");
    const end = session.end();
    await call.input("endSession");
    call.ended();
    await soon(end);
    const finals: string[] = [];
    for await (const transcript of session.finals()) {
      finals.push(transcript.text);
    }
    assert.deepEqual(finals, ["other", "this"]);
    await assert.rejects(session.sendAudio(new Uint8Array(2)), { kind: "SESSION_CLOSED" });
    await soon(session.close());
  });

  it("keeps every transcript until it is read, without holding up what is sent", async () => {
    const { session, call } = await open();
    for (let index = 0; index < 2000; index++) {
      call.event({ case: "transcript", value: { segmentId: String(index), text: "word ".repeat(50), isFinal: true } });
    }
    await session.sendAudio(new Uint8Array(32_000));
    await call.input("audio");
    const ending = session.end();
    await call.input("endSession");
    call.ended();
    await soon(ending);
    let count = 0;
    for await (const _ of session.transcripts()) {
      count++;
    }
    assert.equal(count, 2000);
    await soon(session.close());
  });

  it("changes its settings", async () => {
    const { session, call } = await open();
    const change = session.updateSettings({ languageCode: "de", keywords: { keywords: [{ phrase: "Waves" }] } });
    const update = await call.input("updateSettings");
    call.event({
      case: "settingsAck",
      value: {
        updateId: String(update["updateId"]),
        state: 2,
        settings: { settings: { case: "transcription", value: { languageCode: "de" } } },
      },
    });
    await soon(change);
    assert.equal(session.settings.languageCode, "de");
    const lost = session.updateSettings({ languageCode: "en" });
    const second = await call.input("updateSettings");
    call.event({ case: "settingsAck", value: { updateId: String(second["updateId"]), state: 5 } });
    await assert.rejects(soon(lost), { kind: "SESSION_CLOSED" });
    await finish(session, call);
  });
});

describe("a WAV header", () => {
  it("tells the format and the length", () => {
    const header = Buffer.from(wavHeader({ $typeName: "wavegate.speech.v1.AudioFormat", encoding: 1, sampleRateHertz: 24000, channelCount: 1 }, 480));
    assert.deepEqual(
      [header.length, header.toString("latin1", 0, 4), header.readUInt32LE(4), header.readUInt32LE(24), header.readUInt32LE(40)],
      [44, "RIFF", 516, 24000, 480],
    );
    const law = Buffer.from(wavHeader({ $typeName: "wavegate.speech.v1.AudioFormat", encoding: 3, sampleRateHertz: 8000, channelCount: 1 }));
    assert.deepEqual([law.length, law.readUInt16LE(20), law.readUInt32LE(54)], [58, 7, 0xffffffff]);
  });
});
