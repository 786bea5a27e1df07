import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  Client,
  CloseSessionResponseSchema,
  type SynthesisSession,
  type SynthesisEvent,
  type SynthesisOptions,
  SynthesizeStreamRequestSchema,
  SynthesizeStreamResponseSchema,
  WavegateError,
} from "@wavegate/client";
import { create, toBinary } from "@bufbuild/protobuf";
import { FakeGateway, type FakeCall, soon, status } from "./fake.js";

const CHUNK = new Uint8Array(4800).fill(1);

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

/** Opens a session with its gateway's end. */
async function open(
  options: SynthesisOptions = {},
  resumeWindowS = 30,
): Promise<{ session: SynthesisSession; call: FakeCall }> {
  const opening = client.synthesize({ voiceId: "magnus" }, options);
  const call = await gateway.call();
  await call.input("start");
  call.started("s1", {}, { resumeWindowS });
  return { session: await soon(opening), call };
}

/** Answers an `end_session`, and closes. */
async function finish(session: SynthesisSession, call: FakeCall): Promise<void> {
  const closing = session.close();
  for (;;) {
    const request = await call.request(SynthesizeStreamRequestSchema);
    if (request.input.case === "endSession") {
      break;
    }
  }
  call.ended();
  await soon(closing);
}

async function allEvents(session: SynthesisSession): Promise<SynthesisEvent[]> {
  const events: SynthesisEvent[] = [];
  for await (const event of session) {
    events.push(event);
  }
  return events;
}

describe("speaking", () => {
  it("sends a whole text in one message and gives its audio", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    const text = await call.input("text");
    assert.deepEqual(
      [text["text"], text["utteranceId"], text["endUtterance"], text.sequence],
      ["Hello.", utterance.utteranceId, true, 2],
    );
    call.event({ case: "utteranceStarted", value: { utteranceId: utterance.utteranceId } });
    call.audio(utterance.utteranceId, CHUNK, 0);
    call.audio(utterance.utteranceId, CHUNK, 1);
    call.completed(utterance.utteranceId);
    assert.equal((await soon(utterance.read())).length, 9600);
    assert.equal((await soon(utterance.wait())).case, "utteranceCompleted");
    await finish(session, call);
  });

  it("sends tokens as they come, and joins a character that was cut", async () => {
    const { session, call } = await open();
    const smile = "\u{1f600}";
    const utterance = await session.say(["Hi ", smile.slice(0, 1), `${smile.slice(1)}!`, ""]);
    assert.equal((await call.input("text"))["text"], "Hi ");
    assert.equal((await call.input("text"))["text"], `${smile}!`);
    const end = await call.input("endUtterance");
    assert.deepEqual([end["utteranceId"], end.sequence], [utterance.utteranceId, 4]);
    await finish(session, call);
  });

  it("sends one utterance's text after the other's", async () => {
    const { session, call } = await open();
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await session.say(
      (async function* () {
        yield "One ";
        await held;
        yield "two.";
      })(),
      { utteranceId: "a" },
    );
    assert.equal((await call.input("text"))["utteranceId"], "a");
    await session.say("Three.", { utteranceId: "b" });
    release();
    assert.equal((await call.input("text"))["text"], "two.");
    assert.equal((await call.input("endUtterance"))["utteranceId"], "a");
    assert.equal((await call.input("text"))["utteranceId"], "b");
    await finish(session, call);
  });

  it("cuts a text that is longer than a message may be", async () => {
    const { session, call } = await open();
    await session.sendText("word ".repeat(1000), { utteranceId: "u", endUtterance: true });
    const first = await call.input("text");
    const second = await call.input("text");
    assert.equal(String(first["text"]) + String(second["text"]), "word ".repeat(1000));
    assert.deepEqual([first["endUtterance"], second["endUtterance"]], [false, true]);
    await finish(session, call);
  });

  it("skips events and fields that it does not know", async () => {
    const { session, call } = await open();
    const unknown = create(SynthesizeStreamResponseSchema, { sequence: 2n });
    unknown.$unknown = [{ no: 999, wireType: 2, data: new Uint8Array([2, 8, 1]) }];
    call.writeBytes(toBinary(SynthesizeStreamResponseSchema, unknown));
    call.event({ case: "warning", value: { reason: "X" } }, { sequence: 3 });
    const events = session.events();
    assert.equal((await soon(events.next())).value?.case, "sessionStarted");
    assert.equal((await soon(events.next())).value?.case, "warning");
    await finish(session, call);
  });

  it("refuses what is no text, no setting, or an utterance that is over", async () => {
    const { session, call } = await open();
    await assert.rejects(session.say(7 as never), TypeError);
    await assert.rejects(session.updateSettings({ sped: 1 } as never), /there is no sped/);
    await assert.rejects(session.updateSettings({ speed: "fast" } as never), TypeError);
    await assert.rejects(session.updateSettings({}, { reset: ["sped"] }), /there is no setting "sped"/);
    await assert.rejects(session.updateSettings({}, { apply: "LATER" as never }), TypeError);
    const utterance = await session.say("Hello.");
    call.completed(utterance.utteranceId);
    await soon(utterance.wait());
    await assert.rejects(session.say("More.", { utteranceId: utterance.utteranceId }), /is over/);
    await assert.rejects(client.synthesize({ voice: "x" } as never), TypeError);
    await finish(session, call);
  });

  it("gives audio as a web stream", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    call.audio(utterance.utteranceId, CHUNK);
    call.completed(utterance.utteranceId);
    let bytes = 0;
    for await (const chunk of utterance.audioStream()) {
      bytes += chunk.length;
    }
    assert.equal(bytes, 4800);
    await finish(session, call);
  });

  it("cancels the utterance whose web stream is cancelled", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    await call.input("text");
    await utterance.audioStream().cancel();
    assert.equal((await call.input("cancel"))["utteranceId"], utterance.utteranceId);
    await finish(session, call);
  });
});

describe("settings", () => {
  it("waits for the last ack of a change, and throws what is said against it", async () => {
    const { session, call } = await open();
    const change = session.updateSettings({ speed: 1.5 }, { reset: ["voiceId"], apply: "IMMEDIATE", expectedRevision: 1 });
    const update = await call.input("updateSettings");
    const updateId = String(update["updateId"]);
    assert.deepEqual((update["resetMask"] as { paths: string[] }).paths, ["voice_id"]);
    assert.deepEqual([update["applyPolicy"], update["expectedRevision"]], [2, 1n]);
    call.event({ case: "settingsAck", value: { updateId, state: 1 } });
    call.event({
      case: "settingsAck",
      value: {
        updateId,
        state: 2,
        settingsRevision: 2n,
        settings: { settings: { case: "synthesis", value: { speed: 1.5 } } },
      },
    });
    assert.equal((await soon(change)).settingsRevision, 2n);
    assert.equal(session.settings.speed, 1.5);
    const refused = session.updateSettings({ speed: 9 }, { updateId: "mine" });
    await call.input("updateSettings");
    const error = status(3, "FIELD_INVALID", "no", { fields: [["settings.speed", "too fast"]] });
    call.event({ case: "settingsAck", value: { updateId: "mine", state: 3, error } });
    await assert.rejects(soon(refused), (thrown: unknown) => {
      assert(thrown instanceof WavegateError);
      assert.deepEqual(thrown.fieldViolations, [{ field: "settings.speed", description: "too fast" }]);
      assert.match(thrown.message, /settings\.speed: too fast/);
      return thrown.kind === "INVALID_REQUEST";
    });
    await finish(session, call);
  });
});

describe("barge-in", () => {
  it("delivers no audio of a cancelled utterance, whether it is here already or still comes", async () => {
    const { session, call } = await open();
    const utterance = await session.say("A long story.");
    call.audio(utterance.utteranceId, CHUNK, 0);
    call.audio(utterance.utteranceId, CHUNK, 1);
    const audio = utterance.audio();
    assert.equal((await soon(audio.next())).done, false);
    await session.cancel(utterance.utteranceId, { playbackOffsetMs: 50 });
    assert.equal((await soon(audio.next())).done, true);
    await call.input("text");
    const cancel = await call.input("cancel");
    assert.equal((cancel["playbackOffset"] as { nanos: number }).nanos, 50_000_000);
    call.audio(utterance.utteranceId, CHUNK, 2);
    call.event({ case: "utteranceCancelled", value: { utteranceId: utterance.utteranceId, spokenText: "A" } });
    const end = await soon(utterance.wait());
    assert.equal(end.case === "utteranceCancelled" && end.value.spokenText, "A");
    await session.cancel(utterance.utteranceId); // twice
    call.ended();
    const events = await soon(allEvents(session));
    assert.equal(events.filter((event) => event.case === "audio").length, 0);
    await session.close();
  });

  it("stops the iterator behind what was said", async () => {
    const { session, call } = await open();
    let isReturned = false;
    const tokens: AsyncIterableIterator<string> = {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: () => (isReturned ? new Promise(() => undefined) : Promise.resolve({ done: false, value: "more " })),
      return: () => {
        isReturned = true;
        return Promise.resolve({ done: true, value: undefined });
      },
    };
    const utterance = await session.say(tokens);
    await call.input("text");
    await utterance.cancel();
    await finish(session, call);
    assert(isReturned);
    assert(utterance.cancelled);
  });

  it("does not wait for an iterator that hangs", async () => {
    const { session, call } = await open();
    const utterance = await session.say(
      (async function* () {
        yield "Hello ";
        await new Promise(() => undefined);
      })(),
    );
    await call.input("text");
    await utterance.cancel();
    await call.input("cancel");
    await session.say("Next.");
    assert.equal((await call.input("text"))["text"], "Next.");
    await finish(session, call);
  });

  it("ends what was never sent without asking the gateway", async () => {
    const { session, call } = await open();
    await session.say(
      (async function* () {
        yield "Hello ";
        await new Promise(() => undefined);
      })(),
      { utteranceId: "first" },
    );
    await call.input("text");
    const second = await session.say("Never.", { utteranceId: "second" });
    await second.cancel();
    const end = await soon(second.wait());
    assert.equal(end.case === "utteranceCancelled" && end.value.method, 1);
    await session.cancel("first");
    assert.equal((await call.input("cancel"))["utteranceId"], "first");
    await finish(session, call);
  });
});

describe("an iterator that throws", () => {
  const failure = new Error("the model broke");
  async function* broken(): AsyncGenerator<string, void, undefined> {
    yield "Hello ";
    throw failure;
  }

  it("cancels its utterance, and comes out of the handle", async () => {
    const { session, call } = await open();
    const utterance = await session.say(broken());
    await call.input("text");
    assert.equal((await call.input("cancel"))["utteranceId"], utterance.utteranceId);
    call.event({ case: "utteranceCancelled", value: { utteranceId: utterance.utteranceId } });
    await assert.rejects(soon(utterance.wait()), failure);
    await assert.rejects(soon(utterance.read()), failure);
    await finish(session, call);
  });

  it("comes out of close where nobody asked", async () => {
    const { session, call } = await open();
    await session.say(broken());
    await call.input("text");
    await call.input("cancel");
    await assert.rejects(finish(session, call), failure);
    await soon(session.close());
  });
});

describe("failures", () => {
  it("throws an utterance's failure, and goes on", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    const error = status(8, "UPSTREAM_CAPACITY", "full", {
      retryDelayS: 2,
      quotas: [["upstream-account", "one at a time"]],
      metadata: { http_status: "429" },
    });
    call.event({ case: "utteranceFailed", value: { utteranceId: utterance.utteranceId, error, retryable: true } });
    await assert.rejects(soon(utterance.read()), (thrown: unknown) => {
      assert(thrown instanceof WavegateError);
      assert.deepEqual(
        [thrown.kind, thrown.code, thrown.reason, thrown.message, thrown.retryDelayMs, thrown.retryable],
        ["CAPACITY", "RESOURCE_EXHAUSTED", "UPSTREAM_CAPACITY", "full", 2000, true],
      );
      assert.deepEqual(thrown.quotaViolations, [{ subject: "upstream-account", description: "one at a time" }]);
      assert.deepEqual(thrown.metadata, { http_status: "429" });
      return true;
    });
    await assert.rejects(soon(utterance.wait()), /full/);
    await finish(session, call);
  });

  it("trusts session_ended over the call's own status", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    call.event({ case: "sessionEnded", value: { reason: 6, status: status(9, "UPSTREAM_CREDENTIAL", "bad key") } });
    call.end(status(13, "GATEWAY_BUG", "something else"));
    await assert.rejects(soon(utterance.read()), (thrown: unknown) => {
      assert(thrown instanceof WavegateError);
      return thrown.kind === "UPSTREAM" && thrown.reason === "UPSTREAM_CREDENTIAL" && !thrown.retryable;
    });
    await assert.rejects(session.say("More."), /bad key/);
    await soon(session.close());
  });

  it("takes the status of the trailers where the session had no last word", async () => {
    const { session, call } = await open();
    call.end(status(10, "SESSION_TAKEN_OVER", "another call has it"));
    await assert.rejects(soon(allEvents(session)), (thrown: unknown) => {
      assert(thrown instanceof WavegateError);
      return thrown.kind === "CONFLICT" && thrown.reason === "SESSION_TAKEN_OVER";
    });
    await soon(session.close());
  });

  it("says what is said against opening", async () => {
    const opening = client.synthesize({ voiceId: "magnus", speed: 7 });
    const call = await gateway.call();
    call.end(status(3, "FIELD_INVALID", "no", { fields: [["start.settings.speed", "0.5 to 2"]] }));
    await assert.rejects(soon(opening), { kind: "INVALID_REQUEST" });
  });

  it("ends the wait for an opening in its time", async () => {
    await assert.rejects(soon(client.synthesize({}, { openTimeoutMs: 50 })), { kind: "DEADLINE" });
    const call = await gateway.call();
    await soon(call.closed);
  });

  it("keeps what it has received where the gateway ended the call while it wrote", async () => {
    const { session, call } = await open({}, 0);
    const utterance = await session.say("Hello.");
    for (let index = 0; index < 14; index++) {
      call.audio(utterance.utteranceId, CHUNK, index);
    }
    call.ended(status(9, "UPSTREAM_GONE", "retired"));
    await soon(call.closed);
    await session.say("More.").catch(() => undefined);
    const events: SynthesisEvent[] = [];
    await assert.rejects(
      soon(
        (async () => {
          for await (const event of session) {
            events.push(event);
          }
        })(),
      ),
      { reason: "UPSTREAM_GONE" },
    );
    assert.equal(events.filter((event) => event.case === "audio").length, 14);
    assert.equal(events.at(-1)?.case, "sessionEnded");
    await soon(session.close());
  });
});

describe("waiting", () => {
  it("ends a wait by its signal and loses no event", async () => {
    const { session, call } = await open();
    const controller = new AbortController();
    const events = session.events({ signal: controller.signal });
    await events.next();
    const waiting = events.next();
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(soon(waiting), reason);
    const utterance = await session.say("Hello.");
    call.audio(utterance.utteranceId, CHUNK);
    const second = new AbortController();
    const wait = utterance.wait({ signal: second.signal });
    second.abort(reason);
    await assert.rejects(soon(wait), reason);
    assert.equal((await soon(session.events().next())).value?.case, "audio");
    await finish(session, call);
  });

  it("ends the session at once by the signal that it was opened with", async () => {
    const controller = new AbortController();
    const { session, call } = await open({ signal: controller.signal });
    const reading = allEvents(session);
    controller.abort();
    await soon(reading);
    const end = await call.input("endSession");
    assert.equal(end["discard"], true);
    call.ended();
    await soon(session.close());
  });

  it("gives up opening by its signal", async () => {
    const controller = new AbortController();
    const opening = client.synthesize({}, { signal: controller.signal });
    const call = await gateway.call();
    const reason = new Error("no longer");
    controller.abort(reason);
    await assert.rejects(soon(opening), reason);
    await soon(call.closed);
  });

  it("stops reading where nobody takes the audio, and goes on when somebody does", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    await call.input("text");
    const count = 400; // of 4800 bytes: far more than all windows together
    const block = new Uint8Array(4800);
    for (let index = 0; index < count; index++) {
      call.audio(utterance.utteranceId, block, index);
    }
    call.completed(utterance.utteranceId);
    // Nothing here is read; a second stream of the same connection is not held up by it.
    const other = client.synthesize({});
    const otherCall = await gateway.call();
    otherCall.started("s2");
    const otherSession = await soon(other);
    assert(call.stream.writableLength > count * 2400, `${String(call.stream.writableLength)} bytes wait in the gateway`);
    assert.equal((await soon(utterance.read())).length, count * 4800);
    await finish(session, call);
    await finish(otherSession, otherCall);
  });
});

describe("leaving", () => {
  it("closes twice, and aborts what is closed", async () => {
    const { session, call } = await open();
    await finish(session, call);
    await soon(session.close());
    await soon(session.abort());
    await assert.rejects(session.say("More."), { kind: "SESSION_CLOSED" });
  });

  it("aborts at once, at the gateway too", async () => {
    const { session, call } = await open();
    const utterance = await session.say("Hello.");
    await call.input("text");
    const aborting = session.abort();
    assert.equal((await call.input("endSession"))["discard"], true);
    call.ended();
    await soon(aborting);
    await soon(session.abort());
    await assert.rejects(soon(utterance.wait()), { kind: "SESSION_CLOSED" });
  });

  it("ends a session from outside where its call does not let it", async () => {
    const { session, call } = await open();
    call.disconnect();
    const resuming = await gateway.call(); // never answered
    const aborting = session.abort();
    const outside = await gateway.call("CloseSession");
    outside.write(create(CloseSessionResponseSchema));
    outside.end();
    await soon(aborting);
    await soon(resuming.closed);
  });

  it("ends every call when the client is closed", async () => {
    const { session, call } = await open();
    const reading = allEvents(session);
    client.close();
    await soon(call.closed);
    assert.deepEqual((await soon(reading)).map((event) => event.case), ["sessionStarted"]);
    await soon(session.close());
    client.close();
  });

  it("stops iterators that have not ended when a scope is left", async () => {
    const { session, call } = await open();
    await session.say(
      (async function* () {
        yield "Hello ";
        await new Promise(() => undefined);
      })(),
    );
    await call.input("text");
    const leaving = session[Symbol.asyncDispose]();
    await call.input("cancel");
    await call.input("endSession");
    call.ended();
    await soon(leaving);
  });

  it("ends a session that was dropped, and lets its memory go", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    let call: FakeCall | undefined;
    const dropped = await (async () => {
      const opened = await open();
      ({ call } = opened);
      const utterance = await opened.session.say("Hello.");
      await opened.call.input("text");
      opened.call.audio(utterance.utteranceId, CHUNK);
      await opened.session.events().next();
      return new WeakRef(opened.session);
    })();
    const told = call?.input("endSession");
    const collecting = setInterval(collect, 10);
    try {
      assert.equal((await told)?.["discard"], true);
      call?.ended();
      await soon(call?.closed ?? Promise.resolve(0));
    } finally {
      clearInterval(collecting);
    }
    assert.equal(dropped.deref(), undefined);
  });

  it("keeps a session that somebody waits for", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    let call: FakeCall | undefined;
    const waiting = (async () => {
      const opened = await open();
      ({ call } = opened);
      const utterance = await opened.session.say("Hello.", { utteranceId: "u" });
      return utterance.read();
    })();
    while (call === undefined) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    await call.input("text");
    for (let turn = 0; turn < 20; turn++) {
      collect();
      await new Promise((resolve) => setImmediate(resolve));
    }
    call.audio("u", CHUNK);
    call.completed("u");
    assert.equal((await soon(waiting)).length, 4800);
  });
});
