/**
 * Against the real gateway, whose program the environment variable WAVEGATE_SERVER names. It speaks with its local
 * deterministic engine, so that audio can be compared byte for byte.
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import {
  Client,
  SettingsAck_State,
  SessionEnded_Reason,
  type SynthesisEvent,
  type SynthesisSession,
  WavegateError,
} from "@wavegate/client";
import { TestAuthority } from "./certificate.js";
import { soon } from "./fake.js";

const SERVER = process.env["WAVEGATE_SERVER"];
const skip = SERVER === undefined ? "WAVEGATE_SERVER does not name the gateway's program" : false;

const folder = mkdtempSync(join(tmpdir(), "wavegate-test-"));
let count = 0;

class RealGateway {
  private constructor(
    readonly process: ChildProcess,
    readonly port: number,
  ) {}

  static async start(...options: string[]): Promise<RealGateway> {
    const portFile = join(folder, `port-${String(++count)}`);
    const { SMALLEST_API_KEY: _key, ...environment } = process.env;
    const child = spawn(
      SERVER ?? "",
      ["--listen", "127.0.0.1:0", "--port-file", portFile, "--metrics-listen", "off", "--local-engine", "deterministic", ...options],
      { stdio: ["ignore", "ignore", "pipe"], env: environment },
    );
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
    for (let tries = 0; tries < 300; tries++) {
      if (existsSync(portFile) && readFileSync(portFile, "utf8").trim() !== "") {
        return new RealGateway(child, Number(readFileSync(portFile, "utf8")));
      }
      assert.equal(child.exitCode, null, said);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    child.kill("SIGKILL");
    throw new Error(`the gateway does not serve: ${said}`);
  }

  get target(): string {
    return `127.0.0.1:${String(this.port)}`;
  }

  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const ended = once(this.process, "exit");
      this.process.kill(signal);
      await ended;
    }
  }
}

/** A network that can fail between a client and a gateway. */
class Network {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;

  constructor(port: number) {
    this.#server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined);
        socket.once("close", () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
  }

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `127.0.0.1:${String((this.#server.address() as AddressInfo).port)}`;
  }

  /** Every connection breaks. */
  cut(): void {
    for (const socket of this.#sockets) {
      socket.destroy();
    }
  }

  stop(): void {
    this.#server.close();
    this.cut();
  }
}

async function whole(client: Client, text: string): Promise<Buffer> {
  return Buffer.from((await soon(client.synthesizeOnce(text))).audio);
}

describe("a real gateway", { skip }, () => {
  let gateway: RealGateway;
  let client: Client;
  const ends: (() => Promise<void> | void)[] = [];

  before(async () => {
    gateway = await RealGateway.start();
    client = new Client({ target: gateway.target });
  });

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) {
      await end();
    }
  });

  after(async () => {
    client.close();
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  async function another(...options: string[]): Promise<RealGateway> {
    const other = await RealGateway.start(...options);
    ends.push(() => other.stop());
    return other;
  }

  function connectTo(options: ConstructorParameters<typeof Client>[0]): Client {
    const other = new Client(options);
    ends.push(() => {
      other.close();
    });
    return other;
  }

  it("speaks a text, tokens, and one text after the other", async () => {
    await using session = await client.synthesize({ voiceId: "magnus", wordTimings: true });
    const one = await session.say("One after the other.");
    const two = await session.say(["Two ", "in ", "pieces."]);
    assert((await whole(client, "One after the other.")).equals(await soon(one.read())));
    assert((await whole(client, "Two in pieces.")).equals(await soon(two.read())));
    assert.equal((await soon(two.wait())).case, "utteranceCompleted");
    await soon(session.close());
    assert.equal(session.ended?.reason, SessionEnded_Reason.CLIENT_END);
  });

  it("is interrupted at once, and speaks on", async () => {
    const session = await client.synthesize({ voiceId: "magnus" });
    const story = await session.say("A very long story, of which nobody wants to hear the end. ".repeat(40));
    let bytes = 0;
    for await (const audio of story.audio()) {
      bytes += audio.length;
      await session.cancel(story.utteranceId, { playbackOffsetMs: 500 });
    }
    assert(bytes > 0);
    const end = await soon(story.wait());
    assert(end.case === "utteranceCancelled");
    assert(end.value.remainingText.length > 1000);
    const answer = await session.say("Yes?");
    assert((await whole(client, "Yes?")).equals(await soon(answer.read())));
    await soon(session.close());
  });

  it("survives a network that breaks again and again: every byte once, in order", async () => {
    const network = new Network(gateway.port);
    ends.push(() => {
      network.stop();
    });
    const shaky = connectTo({ target: await network.start() });
    const text = "Whatever happens to the network, you will hear this once. ".repeat(20);
    const tokens = text.match(/\S+\s+/g) ?? [];
    const steady = await client.synthesize({ voiceId: "magnus" });
    const expected = await soon((await steady.say(tokens)).read());
    await soon(steady.close());
    const session = await shaky.synthesize({ voiceId: "magnus" });
    const utterance = await session.say(tokens);
    const audio: Uint8Array[] = [];
    let resumed = 0;
    let events = 0;
    for await (const event of session) {
      if (event.case === "audio") {
        audio.push(event.value.audio);
        if (++events % 40 === 0) {
          network.cut();
        }
      } else if (event.case === "sessionResumed") {
        resumed++;
      } else if (event.case === "utteranceCompleted") {
        break;
      }
    }
    assert(resumed > 1, String(resumed));
    assert(Buffer.concat(audio).equals(expected));
    await soon(utterance.wait());
    await soon(session.close());
  });

  it("transcribes over a network that breaks as over one that does not", async () => {
    const network = new Network(gateway.port);
    ends.push(() => {
      network.stop();
    });
    const shaky = connectTo({ target: await network.start() });
    const audioFormat = { encoding: 1, sampleRateHertz: 16000 };
    const { audio } = await soon(client.synthesizeOnce("Many words that nobody should lose on their way.", {}, { audioFormat }));
    const texts: string[] = [];
    for (const each of [client, shaky]) {
      const session = await each.transcribe({ languageCode: "en" });
      for (let at = 0; at < audio.length; at += 3200) {
        await session.sendAudio(audio.subarray(at, at + 3200));
        if (each === shaky && at % 32000 === 0) {
          network.cut();
        }
      }
      texts.push((await soon(session.finalize())).text);
      await soon(session.close());
    }
    assert.equal(texts[1], texts[0]);
    assert((texts[0] ?? "").length > 10);
  });

  it("is left when it shuts down, and nobody loses or hears a word twice", async () => {
    const first = await another();
    const second = await another();
    const mobile = connectTo({ targets: [first.target, second.target] });
    const session = await mobile.synthesize({ voiceId: "magnus" }, { maxAudioLeadMs: 200 });
    const texts = ["The first of three.", "The second of three.", "The third of three."];
    for (const [index, text] of texts.entries()) {
      await session.say(text, { utteranceId: `u${String(index)}` });
    }
    const audio = new Map<string, Uint8Array[]>();
    let moved: Extract<SynthesisEvent, { case: "sessionMoved" }> | undefined;
    let completed = 0;
    for await (const event of session) {
      if (event.case === "audio") {
        const heard = audio.get(event.value.utteranceId) ?? [];
        heard.push(event.value.audio);
        audio.set(event.value.utteranceId, heard);
        if (audio.size === 1 && heard.length === 1) {
          first.process.kill("SIGTERM");
        }
      } else if (event.case === "sessionMoved") {
        moved = event;
      } else if (event.case === "utteranceCompleted" && ++completed === texts.length) {
        break;
      }
    }
    assert.equal(moved?.value.target, second.target);
    for (const [index, text] of texts.entries()) {
      assert((await whole(client, text)).equals(Buffer.concat(audio.get(`u${String(index)}`) ?? [])), text);
    }
    await soon(session.close());
    await first.stop("SIGTERM");
  });

  it("is left in the middle of a transcription", async () => {
    const first = await another();
    const second = await another();
    const mobile = connectTo({ targets: [first.target, second.target] });
    const audioFormat = { encoding: 1, sampleRateHertz: 16000 };
    const { audio } = await soon(client.synthesizeOnce("Many words that nobody should lose on their way.", {}, { audioFormat }));
    const reference = await client.transcribe({ languageCode: "en" });
    await reference.sendAudio(audio);
    const expected = await soon(reference.finalize());
    await soon(reference.close());
    const session = await mobile.transcribe({ languageCode: "en" });
    const half = Math.floor(audio.length / 4) * 2;
    await session.sendAudio(audio.subarray(0, half));
    first.process.kill("SIGTERM");
    for await (const event of session) {
      if (event.case === "sessionMoved") {
        assert.equal(event.value.lostAudioMs, 0);
        break;
      }
    }
    await session.sendAudio(audio.subarray(half));
    const turn = await soon(session.finalize());
    assert.equal(turn.text, expected.text);
    assert.deepEqual(turn.endOffset, expected.endOffset);
    await soon(session.close());
    await first.stop("SIGTERM");
  });

  it("says what is lost when it is killed", async () => {
    const victim = await another();
    const lonely = connectTo({ target: victim.target });
    const session = await lonely.synthesize({ voiceId: "magnus" }, { resumeWindowMs: 500, maxAudioLeadMs: 100 });
    const utterance = await session.say("A sentence that will not be heard to its end, since its gateway is killed.");
    const audio = utterance.audio();
    await soon(audio.next());
    await victim.stop("SIGKILL");
    await assert.rejects(
      soon(
        (async () => {
          while ((await audio.next()).done !== true);
        })(),
      ),
      (error: unknown) => {
        assert(error instanceof WavegateError);
        assert.match(error.message, /lost: the rest of utterance/);
        return error.kind === "CONNECTION_LOST";
      },
    );
    await soon(session.close());
  });

  it("changes settings from inside and outside, and shows sessions and traces", async () => {
    const labels = { test: "typescript" };
    const session: SynthesisSession = await client.synthesize({ voiceId: "magnus" }, { labels });
    const control = await client.settingsStream();
    const ack = await soon(session.updateSettings({ speed: 1.5 }));
    assert.equal(ack.state, SettingsAck_State.APPLIED);
    const second = await soon(control.updateSynthesis(session.sessionId, {}, { reset: ["speed"], watch: true }));
    assert.equal(second.settingsRevision, ack.settingsRevision + 1n);
    assert.equal(session.settings.speed, undefined);
    await assert.rejects(soon(session.updateSettings({ speed: 1 }, { expectedRevision: 1 })), { kind: "CONFLICT" });
    await assert.rejects(soon(control.updateSynthesis("s-unknown", { speed: 1 })), { kind: "SESSION_NOT_FOUND" });
    const found: string[] = [];
    for await (const live of client.listSessions({ labels })) {
      found.push(live.sessionId);
    }
    assert.deepEqual(found, [session.sessionId]);
    assert.equal((await soon(client.getSession(session.sessionId))).sessionId, session.sessionId);
    await soon(client.closeSession(session.sessionId));
    await soon(session.close());
    assert.equal(session.ended?.reason, SessionEnded_Reason.CLOSED_BY_OPERATOR);
    await soon(control.close());
    assert((await soon(client.getTrace({ sessionId: session.sessionId }))).length > 0);
    assert((await soon(client.listVoices().next())).value?.voiceId);
  });

  it("transcribes a recording near the limit, and says which is beyond it", async () => {
    const audioFormat = { encoding: 1, sampleRateHertz: 16000 };
    const { audio } = await soon(client.synthesizeOnce("Hello world.", {}, { audioFormat }));
    assert.match((await soon(client.transcribeOnce(audio, {}, { audioFormat }))).text, /\w/);
    const large = new Uint8Array(31 * 1024 * 1024);
    large.set(audio);
    await soon(client.transcribeOnce(large, {}, { audioFormat })).catch((error: unknown) => {
      assert(error instanceof WavegateError && error.kind !== "CONNECTION_LOST" && error.kind !== "OTHER", String(error));
    });
    await assert.rejects(client.transcribeOnce(new Uint8Array(33 * 1024 * 1024)), { kind: "INVALID_REQUEST" });
  });

  it("asks who is there, over TLS", async () => {
    const authority = new TestAuthority();
    const { certificate, key } = authority.sign("localhost");
    for (const [name, content] of Object.entries({ "cert.pem": certificate, "key.pem": key, tokens: "team-a:a-secret-of-a-test\n" })) {
      writeFileSync(join(folder, name), content, { mode: 0o600 });
    }
    const guarded = await another(
      ...["--tls-cert", join(folder, "cert.pem"), "--tls-key", join(folder, "key.pem")],
      ...["--auth-tokens-file", join(folder, "tokens")],
    );
    const tls = { rootCertificates: authority.certificate };
    const known = connectTo({ target: guarded.target, tls, token: "a-secret-of-a-test" });
    assert((await whole(known, "Hello.")).length > 0);
    const unknown = connectTo({ target: guarded.target, tls, token: "wrong" });
    await assert.rejects(soon(unknown.synthesize()), { kind: "ACCESS_DENIED", reason: "CALLER_UNAUTHENTICATED" });
    const plain = connectTo({ target: guarded.target });
    await assert.rejects(soon(plain.synthesize()), { kind: "GATEWAY_UNAVAILABLE", message: /connect with tls: true/ });
    const encrypted = connectTo({ target: gateway.target, tls: true });
    await assert.rejects(soon(encrypted.synthesize()), { kind: "GATEWAY_UNAVAILABLE", message: /does not speak TLS/ });
  });
});
