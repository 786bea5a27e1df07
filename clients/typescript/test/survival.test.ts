import assert from "node:assert/strict";
import * as http2 from "node:http2";
import { afterEach, beforeEach, describe, it } from "node:test";
import {
  Client,
  CloseSessionRequestSchema,
  CloseSessionResponseSchema,
  GetTraceResponseSchema,
  msFromDuration,
  RecognizeResponseSchema,
  type SynthesisOptions,
  type SynthesisSession,
  SynthesizeResponseSchema,
  type Transcript,
  type TranscriptionEvent,
  type TranscriptionOptions,
  type TranscriptionSession,
  WavegateError,
} from "@wavegate/client";
import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { type FakeCall, FakeGateway, soon, status } from "./fake.js";

const CHUNK = new Uint8Array(4800);

let gateways: FakeGateway[] = [];
let clients: Client[] = [];

beforeEach(() => {
  gateways = [];
  clients = [];
});

afterEach(async () => {
  for (const client of clients) {
    client.close();
  }
  for (const gateway of gateways) {
    await gateway.stop();
  }
});

async function start(): Promise<FakeGateway> {
  const gateway = await FakeGateway.start();
  gateways.push(gateway);
  return gateway;
}

function connect(...to: FakeGateway[]): Client {
  const client = new Client({ targets: to.map((gateway) => gateway.target) });
  clients.push(client);
  return client;
}

async function speak(
  gateway: FakeGateway,
  client = connect(gateway),
  options: SynthesisOptions = {},
  resumeWindowS = 30,
): Promise<{ session: SynthesisSession; call: FakeCall }> {
  const opening = client.synthesize({ voiceId: "magnus" }, options);
  const call = await gateway.call();
  await call.input("start");
  call.respond({ "wavegate-session-id": "s1" });
  call.started("s1", {}, { resumeWindowS });
  return { session: await soon(opening), call };
}

async function listen(
  gateway: FakeGateway,
  client = connect(gateway),
  options: TranscriptionOptions = {},
  init: Record<string, unknown> = {},
): Promise<{ session: TranscriptionSession; call: FakeCall }> {
  const opening = client.transcribe({}, options);
  const call = await gateway.call("TranscribeStream");
  await call.input("start");
  call.started("t1", init);
  return { session: await soon(opening), call };
}

/** Lets what has come be taken note of. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 200; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Reads events until there is one of a kind; gives all of them. */
async function readUntil<E extends { readonly case: string }>(
  session: AsyncIterable<E>,
  kind: string,
): Promise<E[]> {
  const events: E[] = [];
  const iterator = session[Symbol.asyncIterator]();
  for (;;) {
    const result = await soon(iterator.next(), kind);
    assert(result.done !== true, `the session ended before ${kind}`);
    events.push(result.value);
    if (result.value.case === kind) {
      return events;
    }
  }
}

async function failureOf(session: AsyncIterable<unknown>): Promise<WavegateError> {
  try {
    for await (const _ of session);
  } catch (error) {
    assert(error instanceof WavegateError);
    return error;
  }
  throw new Error("it did not fail");
}

describe("a lost call", () => {
  it("is resumed: what was not acknowledged is sent again, what came twice is delivered once", async () => {
    const gateway = await start();
    const { session, call } = await speak(gateway);
    const one = await session.say("One.", { utteranceId: "one" });
    await session.say("Two.", { utteranceId: "two" });
    await call.input("text");
    await call.input("text");
    call.event({ case: "utteranceStarted", value: { utteranceId: "one" } }, { acknowledged: 2 });
    call.audio("one", CHUNK, 0);
    await readUntil(session, "audio");
    call.disconnect();

    const again = await gateway.call();
    const resumed = await again.input("start");
    assert.deepEqual([resumed["resumeSessionId"], resumed["lastReceivedSequence"]], ["s1", 3n]);
    await session.say("Three.", { utteranceId: "three" }); // while there is no session to say it to
    again.started("s1", { resumed: true, inputSequenceAcknowledged: 2n }, { sequence: 3 });
    const two = await again.input("text");
    assert.deepEqual([two["utteranceId"], two.sequence], ["two", 3]);
    const three = await again.input("text");
    assert.deepEqual([three["utteranceId"], three.sequence], ["three", 4]);
    again.event({ case: "audio", value: { utteranceId: "one", audio: CHUNK, chunkIndex: 0 } }, { sequence: 3 });
    again.event({ case: "audio", value: { utteranceId: "one", audio: CHUNK, chunkIndex: 1 } });
    again.completed("one");
    const events = await readUntil(session, "utteranceCompleted");
    assert.deepEqual(
      events.map((event) => event.case),
      ["sessionResumed", "audio", "utteranceCompleted"],
    );
    const [first] = events;
    assert(first?.case === "sessionResumed");
    assert.deepEqual([first.value.sessionId, first.value.attempts], ["s1", 1]);
    assert.equal(first.value.cause.kind, "CONNECTION_LOST");
    assert.equal((await soon(one.wait())).case, "utteranceCompleted");
    again.ended();
    await soon(session.close());
  });

  for (const [name, code] of Object.entries({
    NO_ERROR: http2.constants.NGHTTP2_NO_ERROR,
    INTERNAL_ERROR: http2.constants.NGHTTP2_INTERNAL_ERROR,
    CANCEL: http2.constants.NGHTTP2_CANCEL,
    REFUSED_STREAM: http2.constants.NGHTTP2_REFUSED_STREAM,
    ENHANCE_YOUR_CALM: http2.constants.NGHTTP2_ENHANCE_YOUR_CALM,
  })) {
    it(`is resumed after RST_STREAM ${name}`, async () => {
      const gateway = await start();
      const { session, call } = await speak(gateway);
      call.reset(code);
      const again = await gateway.call();
      await again.input("start");
      again.started("s1", { resumed: true }, { sequence: 1 });
      await readUntil(session, "sessionResumed");
      again.ended();
      await soon(session.close());
    });
  }

  for (const [name, code] of Object.entries({ UNAVAILABLE: 14, INTERNAL: 13, CANCELLED: 1, UNKNOWN: 2 })) {
    it(`is resumed after a bare status ${name}, as proxies make them`, async () => {
      const gateway = await start();
      const { session, call } = await speak(gateway);
      call.end({ ...status(code, "", "lost"), details: [] });
      const again = await gateway.call();
      await again.input("start");
      again.started("s1", { resumed: true }, { sequence: 1 });
      await readUntil(session, "sessionResumed");
      again.ended();
      await soon(session.close());
    });
  }

  it("is resumed over several more losses", async () => {
    const gateway = await start();
    const { session, call } = await speak(gateway);
    call.disconnect();
    (await gateway.call()).disconnect();
    (await gateway.call()).reset(http2.constants.NGHTTP2_INTERNAL_ERROR);
    const again = await gateway.call();
    await again.input("start");
    again.started("s1", { resumed: true }, { sequence: 1 });
    const events = await readUntil(session, "sessionResumed");
    const last = events.at(-1);
    assert(last?.case === "sessionResumed");
    assert.equal(last.value.attempts, 3);
    again.ended();
    await soon(session.close());
  });

  it("is resumed, and ended from outside, where the balancer led it before", async () => {
    const gateway = await start();
    const client = connect(gateway);
    const opening = client.synthesize({});
    const call = await gateway.call();
    assert.equal(call.headers["wavegate-route"], undefined);
    call.respond({ "wavegate-session-id": "s1", "wavegate-route": "one" });
    call.started("s1");
    const session = await soon(opening);
    call.disconnect();
    const unanswered = await gateway.call();
    assert.equal(unanswered.headers["wavegate-route"], "one");
    unanswered.disconnect();
    const second = await gateway.call();
    assert.equal(second.headers["wavegate-route"], "one");
    second.respond({ "wavegate-session-id": "s1", "wavegate-route": "two" });
    second.started("s1", { resumed: true }, { sequence: 1 });
    await readUntil(session, "sessionResumed");
    second.disconnect();
    const third = await gateway.call();
    assert.equal(third.headers["wavegate-route"], "two");
    third.respond({ "wavegate-session-id": "s1" });
    third.started("s1", { resumed: true }, { sequence: 1 });
    await readUntil(session, "sessionResumed");
    third.disconnect();
    assert.equal((await gateway.call()).headers["wavegate-route"], "two");
    const ending = session.abort();
    const closing = await gateway.call("CloseSession");
    assert.equal(closing.headers["wavegate-route"], "two");
    assert.equal((await closing.request(CloseSessionRequestSchema)).sessionId, "s1");
    closing.write(create(CloseSessionResponseSchema));
    closing.end();
    await soon(ending);
    const other = await speak(gateway, client);
    assert.equal(other.call.headers["wavegate-route"], undefined);
    other.call.ended();
    await soon(other.session.close());
  });

  it("is resumed where the balancer led it also before the session was open", async () => {
    const gateway = await start();
    const opening = connect(gateway).transcribe({});
    const call = await gateway.call("TranscribeStream");
    call.respond({ "wavegate-session-id": "t1", "wavegate-route": "one" });
    call.event({ case: "connection", value: {} });
    await new Promise((resolve) => setImmediate(resolve));
    call.disconnect();
    const again = await gateway.call("TranscribeStream");
    assert.equal(again.headers["wavegate-route"], "one");
    again.started("t1", {}, { sequence: 1 });
    const session = await soon(opening);
    again.ended();
    await soon(session.close());
  });

  it("is resumed also before the session was open", async () => {
    const gateway = await start();
    const opening = connect(gateway).synthesize({});
    const call = await gateway.call();
    await call.input("start");
    call.respond({ "wavegate-session-id": "s9" });
    call.event({ case: "connection", value: {} });
    await new Promise((resolve) => setImmediate(resolve));
    call.disconnect();
    const again = await gateway.call();
    const resumed = await again.input("start");
    assert.deepEqual([resumed["resumeSessionId"], resumed["lastReceivedSequence"]], ["s9", 0n]);
    again.started("s9", {}, { sequence: 0 });
    again.started("s9", {}, { sequence: 1 });
    const session = await soon(opening);
    again.ended();
    await soon(session.close());
  });

  it("says what is lost where the session cannot be resumed", async () => {
    const gateway = await start();
    const { session, call } = await speak(gateway);
    await session.say("One.", { utteranceId: "one" });
    await session.say("Two.", { utteranceId: "two" });
    call.audio("one", CHUNK);
    await readUntil(session, "audio");
    call.disconnect();
    const again = await gateway.call();
    again.end(status(5, "SESSION_NOT_FOUND", "there is no session s1"));
    const failure = await failureOf(session);
    assert.deepEqual([failure.kind, failure.reason], ["CONNECTION_LOST", "SESSION_NOT_FOUND"]);
    assert.match(failure.message, /could not be resumed: there is no session s1/);
    assert.match(failure.message, /lost: the rest of utterance one, utterance two/);
    await assert.rejects(session.say("Three."), { kind: "CONNECTION_LOST" });
    await soon(session.close());
  });

  it("ends the session where the gateway has granted no window", async () => {
    const gateway = await start();
    const { session, call } = await speak(gateway, undefined, {}, 0);
    call.disconnect();
    assert.equal((await failureOf(session)).kind, "CONNECTION_LOST");
    assert.equal(gateway.calls.length, 1);
    await soon(session.close());
  });

  it("asks for no window where the caller wants none", async () => {
    const gateway = await start();
    const opening = connect(gateway).synthesize({}, { resumeWindowMs: 0 });
    const call = await gateway.call();
    assert.equal((await call.input("start"))["resumeWindow"], undefined);
    call.started("s1", {}, { resumeWindowS: 0 });
    const session = await soon(opening);
    call.ended();
    await soon(session.close());
  });

  it("gives up at the end of its window", async () => {
    const gateway = await start();
    const opening = connect(gateway).synthesize({});
    const call = await gateway.call();
    call.started("s1", { limits: { resumeWindow: { seconds: 0n, nanos: 300_000_000 } } });
    const session = await soon(opening);
    call.disconnect();
    await gateway.stop();
    gateways = [];
    const failure = await failureOf(session);
    assert.equal(failure.kind, "CONNECTION_LOST");
    assert.match(failure.message, /could not be resumed: no gateway at/);
    await soon(session.close());
  });

  it("ends with its client, also while it is being resumed", async () => {
    const gateway = await start();
    const client = connect(gateway);
    const { session, call } = await speak(gateway, client);
    call.disconnect();
    (await gateway.call()).disconnect();
    (await gateway.call()).disconnect();
    client.close();
    const failure = await failureOf(session);
    assert.equal(failure.kind, "CONNECTION_LOST");
    assert.match(failure.message, /the client was closed/);
    await soon(session.close());
  });

  it("keeps senders waiting once 1 MiB is kept, and lets them go on when it is resumed", async () => {
    const gateway = await start();
    const { session, call } = await listen(gateway);
    call.disconnect();
    const again = await gateway.call("TranscribeStream");
    const content = new Uint8Array(64 * 1024);
    let sent = 0;
    const sending = (async () => {
      for (; sent < 32; sent++) {
        await session.sendAudio(content);
      }
    })();
    await again.input("start");
    await turns();
    assert(sent >= 15 && sent <= 17, String(sent));
    again.started("t1", { resumed: true }, { sequence: 1 });
    await soon(sending);
    for (let index = 0; index < 32; index++) {
      assert.equal((await again.input("audio")).sequence, index + 2);
    }
    again.ended();
    await soon(session.close());
  });
});

describe("a gateway that shuts down", () => {
  const DRAINING = status(14, "GATEWAY_DRAINING", "shutting down");
  const AWAY = { case: "goAway", value: { reason: "GATEWAY_DRAINING", timeLeft: { seconds: 30n, nanos: 0 } } };

  it("is left between two utterances; what is heard ends where it is", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await speak(first, connect(first, second));
    const one = await session.say("One.", { utteranceId: "one" });
    const two = await session.say("Two.", { utteranceId: "two" });
    call.audio("one", CHUNK);
    await readUntil(session, "audio");
    call.event(AWAY);
    const other = await second.call();
    const begun = await other.input("start");
    assert.equal((begun["settings"] as { voiceId?: string }).voiceId, undefined); // the settings in force
    other.started("s2");
    call.event({ case: "audio", value: { utteranceId: "one", audio: CHUNK, chunkIndex: 1 } });
    call.completed("one");
    const text = await other.input("text");
    assert.deepEqual([text["utteranceId"], text["text"], text.sequence], ["two", "Two.", 2]);
    await call.input("text");
    await call.input("text");
    assert.equal((await call.input("endSession"))["discard"], true);
    call.ended();
    other.audio("two", CHUNK);
    other.completed("two");
    assert.equal((await soon(one.wait())).case, "utteranceCompleted");
    const events = await readUntil(session, "sessionMoved");
    assert.deepEqual(
      events.map((event) => event.case),
      ["goAway", "audio", "utteranceCompleted", "sessionMoved"],
    );
    const moved = events.at(-1);
    assert(moved?.case === "sessionMoved");
    assert.deepEqual(
      [moved.value.previousSessionId, moved.value.sessionStarted.sessionId, moved.value.target, session.sessionId],
      ["s1", "s2", second.target, "s2"],
    );
    assert.equal((await soon(two.read())).length, 4800);
    other.ended();
    await soon(session.close());
  });

  it("is left at once where nothing is being heard, and tokens go on elsewhere", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await speak(first, connect(first, second));
    let more: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      more = resolve;
    });
    const utterance = await session.say(
      (async function* () {
        yield "Half ";
        await held;
        yield "and half.";
      })(),
    );
    await call.input("text");
    call.event(AWAY);
    const other = await second.call();
    await other.input("start");
    other.started("s2");
    assert.equal((await other.input("text"))["text"], "Half ");
    more();
    assert.equal((await other.input("text"))["text"], "and half.");
    assert.equal((await other.input("endUtterance"))["utteranceId"], utterance.utteranceId);
    other.ended();
    await soon(session.close());
  });

  it("fails what it could not finish in its time, and the session goes on", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await speak(first, connect(first, second));
    const one = await session.say("One.", { utteranceId: "one" });
    const two = await session.say("Two.", { utteranceId: "two" });
    call.audio("one", CHUNK);
    await readUntil(session, "audio");
    call.ended(status(14, "GATEWAY_DRAINING", "shutting down"), 5);
    const other = await second.call();
    await other.input("start");
    other.started("s2");
    await assert.rejects(soon(one.wait()), { reason: "GATEWAY_DRAINING" });
    assert.equal((await other.input("text"))["utteranceId"], "two");
    other.completed("two");
    await soon(two.wait());
    other.ended();
    await soon(session.close());
  });

  it("is stayed with where the caller does not want to move", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await speak(first, connect(first, second), { move: false });
    call.event(AWAY);
    call.ended(status(14, "GATEWAY_DRAINING", "shutting down"), 5);
    const failure = await failureOf(session);
    assert.equal(failure.reason, "GATEWAY_DRAINING");
    assert.equal(session.ended?.reason, 5);
    assert.equal(second.calls.length, 0);
    await soon(session.close());
  });

  it("is looked for at the same address, where another process may answer", async () => {
    const gateway = await start();
    const opening = connect(gateway).synthesize({});
    const call = await gateway.call();
    call.respond({ "wavegate-session-id": "s1", "wavegate-route": "one" });
    call.started("s1");
    const session = await soon(opening);
    call.event(AWAY);
    const other = await gateway.call();
    assert.notEqual(other.stream.session, call.stream.session);
    assert.equal(other.headers["wavegate-route"], undefined); // that would lead to the one that shuts down
    other.started("s2");
    await readUntil(session, "sessionMoved");
    other.ended();
    await soon(session.close());
  });

  it("opens on the next target where one is not there or drains", async () => {
    const [draining, good] = [await start(), await start()];
    const nobody = await FakeGateway.start();
    await nobody.stop();
    const opening = connect(nobody, draining, good).synthesize({});
    (await draining.call()).end(status(14, "GATEWAY_DRAINING", "shutting down"));
    const call = await good.call();
    call.started("s1");
    const session = await soon(opening);
    call.ended();
    await soon(session.close());
  });

  it("is asked again a few times, as a balancer may need a moment to lead elsewhere", async () => {
    const gateway = await start();
    const opening = connect(gateway).synthesize({});
    for (let look = 0; look < 4; look++) {
      (await gateway.call()).end(DRAINING);
    }
    const call = await gateway.call();
    call.started("s1");
    const session = await soon(opening);
    call.ended();
    await soon(session.close());
  });

  it("is said to be what keeps a session from opening where no other one comes", async () => {
    const gateways = [await start(), await start()];
    const opening = connect(...gateways).synthesize({});
    const refused = assert.rejects(soon(opening), { kind: "GATEWAY_UNAVAILABLE", reason: "GATEWAY_DRAINING" });
    // Four times, each over the connection there was and over a fresh one.
    const refusing = gateways.map(async (gateway) => {
      for (let look = 0; look < 8; look++) {
        (await gateway.call()).end(DRAINING);
      }
    });
    await Promise.all([refused, ...refusing]);
    assert.deepEqual(gateways.map((gateway) => gateway.calls.length), [8, 8]);
  });

  it("is not asked again where the client is closed or the caller gives up meanwhile", async () => {
    const gateway = await start();
    const client = connect(gateway);
    const closed = assert.rejects(soon(client.synthesize({})), { kind: "SESSION_CLOSED" });
    for (let look = 0; look < 6; look++) {
      (await gateway.call()).end(DRAINING);
    }
    await turns();
    client.close();
    await closed;
    const caller = new AbortController();
    const left = assert.rejects(soon(client.synthesize({}, { signal: caller.signal })), { name: "AbortError" });
    for (let look = 0; look < 6; look++) {
      (await gateway.call()).end(DRAINING);
    }
    await turns();
    caller.abort();
    await left;
    assert.equal(gateway.calls.length, 12);
  });

  it("is left with its connection open under calls that are no session", async () => {
    const [first, second] = [await start(), await start()];
    const client = connect(first, second);
    const speaking = client.synthesizeOnce("Hi.");
    const speech = await first.call("Synthesize");
    speech.write(create(SynthesizeResponseSchema, { event: { case: "sessionStarted", value: {} } }));
    const asking = client.getTrace({ sessionId: "s" });
    const spans = await first.call("GetTrace");
    spans.write(create(GetTraceResponseSchema, { spans: [{ name: "a" }] }));
    const transcribing = client.transcribeOnce(CHUNK);
    const recording = await first.call("Recognize");
    const later = client.synthesizeOnceEvents("Later.");

    const opening = client.synthesize({});
    const refused = await first.call();
    assert.equal(refused.stream.session, speech.stream.session);
    refused.end(DRAINING);
    const call = await second.call();
    call.started("s1");
    const session = await soon(opening);
    call.event(AWAY); // leaves once more, which closes what is not used
    const fresh = await first.call();
    fresh.started("s2");
    await readUntil(session, "sessionMoved");

    assert.deepEqual([speech, spans, recording].map((running) => running.stream.destroyed), [false, false, false]);
    speech.write(create(SynthesizeResponseSchema, { event: { case: "audio", value: { audio: CHUNK } } }));
    speech.write(create(SynthesizeResponseSchema, { event: { case: "utteranceCompleted", value: {} } }));
    speech.end();
    assert.equal((await soon(speaking)).audio.length, CHUNK.length);
    spans.write(create(GetTraceResponseSchema, { spans: [{ name: "b" }] }));
    spans.end();
    assert.deepEqual((await soon(asking)).map((span) => span.name), ["a", "b"]);
    recording.write(create(RecognizeResponseSchema, { text: "hi" }));
    recording.end();
    assert.equal((await soon(transcribing)).text, "hi");
    const next = soon(later.next());
    const begun = await first.call("Synthesize");
    assert.equal(begun.stream.session, fresh.stream.session);
    begun.write(create(SynthesizeResponseSchema, { event: { case: "sessionStarted", value: {} } }));
    await next;
    await later.return();
    fresh.ended();
    await soon(session.close());
  });

  it("keeps the resources of the gateway that was left only as long as they are used", async () => {
    const [first, second] = [await start(), await start()];
    const client = connect(first, second);
    const { session, call } = await speak(first, client);
    call.event(AWAY);
    const other = await second.call();
    other.started("s2");
    await readUntil(session, "sessionMoved");
    await call.input("endSession");
    call.ended();
    await soon(call.closed);
    other.event(AWAY);
    const third = await first.call();
    third.started("s3");
    await readUntil(session, "sessionMoved");
    third.ended();
    await soon(session.close());
  });
});

describe("transcription that moves", () => {
  const AWAY = { case: "goAway", value: { reason: "GATEWAY_DRAINING", timeLeft: { seconds: 30n, nanos: 0 } } };
  const SECOND = 32_000;

  function transcript(init: {
    segment: string;
    revision?: number;
    text: string;
    final?: boolean;
    from: number;
    to: number;
    finalizeId?: string;
    fullText?: string;
  }): { case: string; value: object } {
    const at = (s: number): { seconds: bigint; nanos: number } => ({
      seconds: BigInt(Math.floor(s)),
      nanos: Math.round((s % 1) * 1e9),
    });
    return {
      case: "transcript",
      value: {
        segmentId: init.segment,
        segmentRevision: init.revision ?? 1,
        text: init.text,
        isFinal: init.final ?? false,
        startOffset: at(init.from),
        endOffset: at(init.to),
        finalizeId: init.finalizeId ?? "",
        fullText: init.fullText ?? "",
      },
    };
  }

  it("sends the audio behind the last final again, on one timeline", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await listen(first, connect(first, second));
    for (let index = 0; index < 4; index++) {
      await session.sendAudio(new Uint8Array(SECOND).fill(index + 1));
    }
    call.event(transcript({ segment: "a", text: "One.", final: true, from: 0, to: 1.5, fullText: "One." }));
    call.event(transcript({ segment: "b", revision: 3, text: "Two", from: 1.5, to: 3 }));
    await readUntil(session, "transcript");
    await readUntil(session, "transcript");
    call.event(AWAY);
    const other = await second.call("TranscribeStream");
    const begun = await other.input("start");
    assert.equal(msFromDuration(begun["initialAudioOffset"] as Duration), 1500);
    other.started("t2");
    const contents: Uint8Array[] = [];
    for (let index = 0; index < 3; index++) {
      contents.push((await other.input("audio"))["content"] as Uint8Array);
    }
    assert.deepEqual(
      contents.map((content) => [content.length, content[0]]),
      [
        [SECOND / 2, 2],
        [SECOND, 3],
        [SECOND, 4],
      ],
    );
    const moved = (await readUntil(session, "sessionMoved")).at(-1);
    assert(moved?.case === "sessionMoved");
    assert.equal(moved.value.lostAudioMs, 0);
    other.event(transcript({ segment: "x", text: "One.", final: true, from: 1, to: 1.5 })); // said already
    other.event(transcript({ segment: "y", text: "Two", from: 1.5, to: 3 }));
    other.event(transcript({ segment: "y", revision: 2, text: "Two.", final: true, from: 1.5, to: 3.5, fullText: "Two." }));
    other.event(transcript({ segment: "z", text: "Three", from: 3.5, to: 4 }));
    const heard: Transcript[] = [];
    for (let index = 0; index < 3; index++) {
      const event: TranscriptionEvent | undefined = (await readUntil(session, "transcript")).at(-1);
      assert(event?.case === "transcript");
      heard.push(event.value);
    }
    assert.deepEqual(
      heard.map(({ segmentId, segmentRevision, text, fullText }) => [segmentId, segmentRevision, text, fullText]),
      [
        ["b", 4, "Two", ""],
        ["b", 5, "Two.", "One. Two."],
        ["z.1", 1, "Three", ""],
      ],
    );
    other.ended();
    await soon(session.close());
  });

  it("asks again for what was asked, and answers it once", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await listen(first, connect(first, second));
    await session.sendAudio(new Uint8Array(SECOND));
    const asking = session.finalize();
    await call.input("audio");
    const asked = await call.input("finalize");
    call.event(AWAY);
    const other = await second.call("TranscribeStream");
    await other.input("start");
    other.started("t2");
    await other.input("audio");
    const again = await other.input("finalize");
    assert.equal(again["finalizeId"], asked["finalizeId"]);
    const finalizeId = String(again["finalizeId"]);
    other.event(transcript({ segment: "a", text: "Hi.", final: true, from: 0, to: 1, finalizeId }));
    assert.equal((await soon(asking)).text, "Hi.");
    other.ended();
    await soon(session.close());
  });

  it("takes the settings that came meanwhile along, and counts what fell out of its memory", async () => {
    const [first, second] = [await start(), await start()];
    const { session, call } = await listen(first, connect(first, second));
    call.event(transcript({ segment: "a", text: "Er", from: 0, to: 1 }));
    await readUntil(session, "transcript");
    for (let index = 0; index < 33; index++) {
      await session.sendAudio(new Uint8Array(SECOND));
    }
    call.event({
      case: "settingsAck",
      value: {
        updateId: "from outside",
        state: 2,
        mechanism: 2,
        settingsRevision: 2n,
        settings: { settings: { case: "transcription", value: { languageCode: "de" } } },
      },
    });
    call.event(AWAY);
    const other = await second.call("TranscribeStream");
    const begun = await other.input("start");
    assert.equal((begun["settings"] as { languageCode?: string }).languageCode, "de");
    assert.equal(msFromDuration(begun["initialAudioOffset"] as Duration), 3000);
    other.started("t2");
    const moved = (await readUntil(session, "sessionMoved")).at(-1);
    assert(moved?.case === "sessionMoved");
    assert.equal(moved.value.lostAudioMs, 3000);
    other.ended();
    await soon(session.close());
  });

  it("stays where it is with Ogg, and where its input has ended", async () => {
    const [first, second] = [await start(), await start()];
    const format = { audioFormat: { encoding: 6, sampleRateHertz: 48000, channelCount: 1 } };
    const { session, call } = await listen(first, connect(first, second), {}, format);
    call.event(AWAY);
    call.ended();
    await readUntil(session, "sessionEnded");
    await soon(session.close());
    assert.equal(second.calls.length, 0);
  });
});

