import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  Client,
  CloseSessionRequestSchema,
  CloseSessionResponseSchema,
  GetSessionResponseSchema,
  GetTraceRequestSchema,
  GetTraceResponseSchema,
  ListSessionsRequestSchema,
  ListSessionsResponseSchema,
  ListVoicesRequestSchema,
  ListVoicesResponseSchema,
  RecognizeRequestSchema,
  RecognizeResponseSchema,
  SettingsAckSchema,
  SynthesizeRequestSchema,
  SynthesizeResponseSchema,
  UpdateSettingsRequestSchema,
  UpdateSettingsResponseSchema,
} from "@wavegate/client";
import { create } from "@bufbuild/protobuf";
import { context, propagation, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { type FakeCall, FakeGateway, soon, status } from "./fake.js";

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

describe("a text that is spoken whole", () => {
  async function begin(): Promise<FakeCall> {
    const call = await gateway.call("Synthesize");
    const request = await call.request(SynthesizeRequestSchema);
    assert.deepEqual([request.text, request.settings?.voiceId, request.requestId], ["Hi.", "magnus", "r1"]);
    call.write(
      create(SynthesizeResponseSchema, {
        event: { case: "sessionStarted", value: { audioFormat: { sampleRateHertz: 24000 } } },
      }),
    );
    call.write(create(SynthesizeResponseSchema, { event: { case: "audio", value: { audio: new Uint8Array(4) } } }));
    return call;
  }

  it("is given whole", async () => {
    const speaking = client.synthesizeOnce("Hi.", { voiceId: "magnus" }, { requestId: "r1" });
    const call = await begin();
    call.write(create(SynthesizeResponseSchema, { event: { case: "audio", value: { audio: new Uint8Array(6) } } }));
    call.write(create(SynthesizeResponseSchema, { event: { case: "wordTimings", value: { words: [{ text: "Hi" }] } } }));
    call.write(create(SynthesizeResponseSchema, { event: { case: "warning", value: { reason: "W" } } }));
    call.write(create(SynthesizeResponseSchema, { event: { case: "utteranceCompleted", value: {} } }));
    call.end();
    const speech = await soon(speaking);
    assert.deepEqual(
      [speech.audio.length, speech.words[0]?.text, speech.warnings[0]?.reason, speech.started.audioFormat?.sampleRateHertz],
      [10, "Hi", "W", 24000],
    );
  });

  it("is an error where it ends before its end", async () => {
    const speaking = client.synthesizeOnce("Hi.", { voiceId: "magnus" }, { requestId: "r1" });
    (await begin()).end();
    await assert.rejects(soon(speaking), { kind: "CONNECTION_LOST" });
    const failing = client.synthesizeOnce("Hi.", { voiceId: "magnus" }, { requestId: "r1" });
    (await begin()).end(status(14, "UPSTREAM_STALLED", "silent"));
    await assert.rejects(soon(failing), { kind: "UPSTREAM" });
    const losing = client.synthesizeOnceEvents("Hi.", { voiceId: "magnus" }, { requestId: "r1" });
    const [call] = await Promise.all([begin(), soon(losing.next())]);
    await soon(losing.next());
    call.disconnect();
    await assert.rejects(soon(losing.next()), { kind: "CONNECTION_LOST" });
  });

  it("is cancelled where its events are left", async () => {
    const events = client.synthesizeOnceEvents("Hi.", { voiceId: "magnus" }, { requestId: "r1" });
    const beginning = begin();
    for await (const event of events) {
      if (event.case === "audio") {
        break;
      }
    }
    await soon((await beginning).closed);
  });
});

describe("a recording", () => {
  it("is sent whole, or by its address", async () => {
    const asking = client.transcribeOnce(new Uint8Array(3_000_000), { wordTimings: true }, { requestId: "r2" });
    const call = await gateway.call("Recognize");
    const request = await call.request(RecognizeRequestSchema);
    assert.equal(request.source.case === "content" && request.source.value.length, 3_000_000);
    assert.equal(call.headers["grpc-timeout"], "300000m");
    call.write(create(RecognizeResponseSchema, { text: "hi" }));
    call.end();
    assert.equal((await soon(asking)).text, "hi");
    const byUri = client.transcribeOnce({ uri: "https://example.com/a.wav" });
    const other = await gateway.call("Recognize");
    assert.equal((await other.request(RecognizeRequestSchema)).source.value, "https://example.com/a.wav");
    other.write(create(RecognizeResponseSchema, {}));
    other.end();
    await soon(byUri);
  });
});

describe("lists", () => {
  it("of voices come page by page", async () => {
    const listing = (async () => {
      const ids: string[] = [];
      for await (const voice of client.listVoices({ model: "m", languageCode: "en" })) {
        ids.push(voice.voiceId);
      }
      return ids;
    })();
    for (const [token, next, voiceId] of [
      ["", "2", "a"],
      ["2", "", "b"],
    ] as const) {
      const call = await gateway.call("ListVoices");
      const request = await call.request(ListVoicesRequestSchema);
      assert.deepEqual([request.pageToken, request.model, request.languageCode], [token, "m", "en"]);
      call.write(create(ListVoicesResponseSchema, { voices: [{ voiceId }], nextPageToken: next }));
      call.end();
    }
    assert.deepEqual(await soon(listing), ["a", "b"]);
  });

  it("of sessions come by their labels", async () => {
    const listing = client.listSessions({ labels: { team: "a" } }).next();
    const call = await gateway.call("ListSessions");
    assert.deepEqual((await call.request(ListSessionsRequestSchema)).labels, { team: "a" });
    call.write(create(ListSessionsResponseSchema, { sessions: [{ sessionId: "s" }] }));
    call.end();
    const { value } = await soon(listing);
    assert.equal(value?.sessionId, "s");
  });

  it("of spans come in parts", async () => {
    const asking = client.getTrace({ sessionId: "s" });
    const call = await gateway.call("GetTrace");
    assert.equal((await call.request(GetTraceRequestSchema)).key.case, "sessionId");
    call.write(create(GetTraceResponseSchema, { spans: [{ name: "a" }] }));
    call.write(create(GetTraceResponseSchema, { spans: [{ name: "b" }] }));
    call.end();
    assert.deepEqual((await soon(asking)).map((span) => span.name), ["a", "b"]);
  });
});

describe("sessions from outside", () => {
  it("are ended", async () => {
    const closing = client.closeSession("s", { discard: true });
    const call = await gateway.call("CloseSession");
    const request = await call.request(CloseSessionRequestSchema);
    assert.deepEqual([request.sessionId, request.discard], ["s", true]);
    call.write(create(CloseSessionResponseSchema));
    call.end();
    await soon(closing);
  });

  it("have their settings changed, each with its ack", async () => {
    const control = await client.settingsStream();
    const first = control.updateSynthesis("a", { speed: 2 }, { watch: true, afterInputSequence: 7 });
    const second = control.updateTranscription("b", { model: "pulse" }, { apply: "NO_RECONNECT", updateId: "mine" });
    const call = await gateway.call("UpdateSettings");
    const one = await call.request(UpdateSettingsRequestSchema);
    const two = await call.request(UpdateSettingsRequestSchema);
    assert.deepEqual([one.sessionId, one.settings.case, one.watch, one.afterInputSequence], ["a", "synthesis", true, 7n]);
    assert.deepEqual([two.sessionId, two.settings.case, two.applyPolicy, two.updateId], ["b", "transcription", 3, "mine"]);
    await assert.rejects(control.updateSynthesis("a", {}, { updateId: "mine" }), /still under way/);
    const ack = (updateId: string, state: number, error?: ReturnType<typeof status>): object =>
      create(SettingsAckSchema, { updateId, state, ...(error && { error }) });
    const answer = (sessionId: string, value: object): void => {
      call.write(create(UpdateSettingsResponseSchema, { sessionId, event: { case: "ack", value: value as never } }));
    };
    answer("a", ack(one.updateId, 1));
    answer("a", ack(one.updateId, 2));
    answer("b", ack("mine", 3, status(5, "SESSION_NOT_FOUND", "there is no b")));
    assert.equal((await soon(first)).state, 2);
    await assert.rejects(soon(second), { kind: "SESSION_NOT_FOUND" });
    call.write(create(UpdateSettingsResponseSchema, { sessionId: "a", event: { case: "connection", value: {} } }));
    const cases: string[] = [];
    for await (const { sessionId, event } of control) {
      cases.push(`${sessionId} ${event.case}`);
      if (event.case === "connection") {
        break;
      }
    }
    assert.deepEqual(cases, ["a ack", "a ack", "b ack", "a connection"]);
    const closing = control.close();
    await soon(call.halfClosed);
    call.end();
    await soon(closing);
    await soon(control.close());
    await assert.rejects(control.updateSynthesis("a", {}), { kind: "SESSION_CLOSED" });
  });

  it("say with the first update that there is no gateway", async () => {
    await gateway.stop();
    const control = await client.settingsStream();
    await assert.rejects(soon(control.updateSynthesis("a", { speed: 1 })), { kind: "GATEWAY_UNAVAILABLE" });
    await soon(control.abort());
    gateway = await FakeGateway.start();
  });
});

describe("OpenTelemetry", () => {
  it("has the caller's span go with each call, also when a session is resumed", async () => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    try {
      const traceId = "0af7651916cd43dd8448eb211c80319c";
      const span = trace.wrapSpanContext({ traceId, spanId: "b7ad6b7169203331", traceFlags: 1 });
      const opening = context.with(trace.setSpan(ROOT_CONTEXT, span), () => client.synthesize());
      const call = await gateway.call();
      assert.equal(call.headers["traceparent"], `00-${traceId}-b7ad6b7169203331-01`);
      call.started("s1");
      const session = await soon(opening);
      call.disconnect();
      const again = await gateway.call();
      assert.equal(again.headers["traceparent"], `00-${traceId}-b7ad6b7169203331-01`);
      again.started("s1", {}, { sequence: 1 });
      const closing = session.close();
      await again.input("start");
      await again.input("endSession");
      again.ended();
      await soon(closing);
      const asking = client.getSession("x");
      const other = await gateway.call("GetSession");
      assert.equal(other.headers["traceparent"], undefined);
      other.write(create(GetSessionResponseSchema, {}));
      other.end();
      await soon(asking);
    } finally {
      context.disable();
      propagation.disable();
    }
  });
});

describe("CommonJS", () => {
  it("has the same names, and its errors are those of the ESM build", async () => {
    const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
    const { stdout } = await promisify(execFile)(process.execPath, [join(root, "test", "commonjs.cjs"), gateway.target]);
    assert.equal(stdout.trim(), "as it should be");
  });
});
