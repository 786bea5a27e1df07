/**
 * The driver of the conformance suite: does with the client's public API what the judge says, and tells what comes of it.
 * One JSON object a line on standard input and output; `clients/conformance/README.md` is the protocol.
 */

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type DescMessage, fromJson, type JsonObject, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";
import { context, propagation, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  type Apply,
  AudioFormatSchema,
  Client,
  type ControlOptions,
  RecognizeResponseSchema,
  SessionSchema,
  SessionStartedSchema,
  type SettingsStream,
  SettingsAckSchema,
  SynthesisSession,
  SynthesisSettingsSchema,
  SynthesizeStreamResponseSchema,
  TraceSpanSchema,
  TranscribeStreamResponseSchema,
  TranscriptionSession,
  TranscriptionSettingsSchema,
  TranscriptSchema,
  UpdateSettingsResponseSchema,
  type UpdateOptions,
  type Utterance,
  UtteranceCancelledSchema,
  UtteranceCompletedSchema,
  VoiceSchema,
  WarningSchema,
  WavegateError,
  WordTimings_WordSchema,
} from "@wavegate/client";
import { detailTypes } from "./details.js";

type Command = JsonObject;
type Answer = JsonObject;

const registry = detailTypes();

function json<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): JsonValue {
  return toJson(schema, message, { registry, useProtoFieldName: true, alwaysEmitImplicit: true });
}

function send(line: JsonObject): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

// --- arguments -----------------------------------------------------------------------------------

function text(command: Command, name: string): string {
  const value = command[name];
  if (typeof value !== "string") {
    throw new TypeError(`${name} is no string`);
  }
  return value;
}

function maybeText(command: Command, name: string): string | undefined {
  const value = command[name];
  return typeof value === "string" ? value : undefined;
}

function maybeNumber(command: Command, name: string): number | undefined {
  const value = command[name];
  return typeof value === "number" ? value : undefined;
}

function maybeMs(command: Command, name: string): number | undefined {
  const seconds = maybeNumber(command, name);
  return seconds === undefined ? undefined : seconds * 1000;
}

function maybeBool(command: Command, name: string): boolean | undefined {
  const value = command[name];
  return typeof value === "boolean" ? value : undefined;
}

function texts(command: Command, name: string): string[] {
  const value = command[name];
  return Array.isArray(value) ? value.map(String) : [];
}

function pairs(command: Command, name: string): Record<string, string> {
  const value = command[name];
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return {};
  }
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, typeof each === "string" ? each : JSON.stringify(each)]));
}

function message<Desc extends DescMessage>(command: Command, name: string, schema: Desc): MessageShape<Desc> | undefined {
  const value = command[name];
  if (value === undefined || value === null) {
    return undefined;
  }
  try {
    return fromJson(schema, value);
  } catch (error) {
    throw new TypeError(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function bytes(command: Command, name: string): Uint8Array {
  return new Uint8Array(Buffer.from(text(command, name), "base64"));
}

// --- what is open --------------------------------------------------------------------------------

class Opened {
  readonly utterances = new Map<string, Utterance>();
  reading: AbortController | undefined;

  constructor(readonly session: SynthesisSession | TranscriptionSession) {}
}

const clients = new Map<string, Client>();
const sessions = new Map<string, Opened>();
const controls = new Map<string, SettingsStream>();
/** What nobody should refer to any more. */
const gone = new Map<string, WeakRef<object>>();

function the<T>(map: Map<string, T>, command: Command, name: string): T {
  const found = map.get(text(command, name));
  if (found === undefined) {
    throw new TypeError(`there is no ${name} ${text(command, name)}`);
  }
  return found;
}

function synthesis(command: Command): { session: SynthesisSession; utterances: Map<string, Utterance> } {
  const { session, utterances } = the(sessions, command, "session");
  if (!(session instanceof SynthesisSession)) {
    throw new TypeError("this is no synthesis session");
  }
  return { session, utterances };
}

function transcription(command: Command): TranscriptionSession {
  const { session } = the(sessions, command, "session");
  if (!(session instanceof TranscriptionSession)) {
    throw new TypeError("this is no transcription session");
  }
  return session;
}

function utterance(command: Command): Utterance {
  return the(synthesis(command).utterances, command, "utterance_id");
}

// --- events --------------------------------------------------------------------------------------

async function read(name: string, opened: Opened, signal: AbortSignal): Promise<void> {
  try {
    for await (const event of opened.session.events({ signal })) {
      send({ session: name, event: eventJson(opened.session, event) });
    }
    send({ session: name, over: null });
  } catch (error) {
    if (!signal.aborted) {
      send({ session: name, over: errorJson(error) });
    }
  }
}

function eventJson(session: SynthesisSession | TranscriptionSession, event: { case: string; value: unknown }): JsonValue {
  if (event.case === "sessionResumed") {
    const { sessionId, outageMs, attempts } = event.value as { sessionId: string; outageMs: number; attempts: number };
    return { session_resumed: { session_id: sessionId, outage: outageMs / 1000, attempts } };
  }
  if (event.case === "sessionMoved") {
    const moved = event.value as {
      sessionStarted: MessageShape<typeof SessionStartedSchema>;
      previousSessionId: string;
      target: string;
      lostAudioMs: number;
    };
    return {
      session_moved: {
        session_started: json(SessionStartedSchema, moved.sessionStarted),
        previous_session_id: moved.previousSessionId,
        target: moved.target,
        lost_audio: moved.lostAudioMs / 1000,
      },
    };
  }
  const schema =
    session instanceof SynthesisSession ? SynthesizeStreamResponseSchema : TranscribeStreamResponseSchema;
  return arm(schema, event);
}

/** An event under its name in the contract. */
function arm(schema: DescMessage, event: { case: string; value: unknown }): JsonObject {
  const field = schema.fields.find((each) => each.localName === event.case);
  if (field?.message === undefined) {
    return { [event.case]: {} };
  }
  return { [field.name]: json(field.message, event.value as MessageShape<DescMessage>) };
}

function startReading(name: string, opened: Opened): void {
  if (opened.reading === undefined) {
    opened.reading = new AbortController();
    void read(name, opened, opened.reading.signal);
  }
}

function stopReading(opened: Opened): void {
  opened.reading?.abort();
  opened.reading = undefined;
}

// --- errors --------------------------------------------------------------------------------------

/** What an iterator of the driver's own throws. */
class CallerFailure extends Error {}

function errorJson(error: unknown): JsonObject {
  const common = {
    code: "",
    reason: "",
    retryable: false,
    retry_delay: null,
    field_violations: [],
    quota_violations: [],
    metadata: {},
  };
  if (error instanceof WavegateError) {
    return {
      kind: error.kind,
      code: error.code,
      reason: error.reason,
      message: error.message,
      retryable: error.retryable,
      retry_delay: error.retryDelayMs === undefined ? null : error.retryDelayMs / 1000,
      field_violations: error.fieldViolations.map(({ field, description }) => ({ field, description })),
      quota_violations: error.quotaViolations.map(({ subject, description }) => ({ subject, description })),
      metadata: { ...error.metadata },
    };
  }
  const said = error instanceof Error ? error.message : String(error);
  const kind =
    error instanceof CallerFailure
      ? "CALLER"
      : error instanceof TypeError || error instanceof RangeError
        ? "ARGUMENT"
        : error instanceof NotImplemented
          ? "NOT_IMPLEMENTED"
          : error instanceof Error && error.name === "AbortError"
            ? "CANCELLED"
            : "OTHER";
  return { ...common, kind, message: said };
}

class NotImplemented extends Error {}

// --- commands ------------------------------------------------------------------------------------

let tracing = false;

/** Runs work under a span of the caller's own. */
function under<T>(traceparent: string | undefined, work: () => Promise<T>): Promise<T> {
  if (traceparent === undefined) {
    return work();
  }
  if (!tracing) {
    tracing = true;
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  }
  const [, traceId = "", spanId = "", flags = "00"] = traceparent.split("-");
  const span = trace.wrapSpanContext({ traceId, spanId, traceFlags: parseInt(flags, 16) });
  return context.with(trace.setSpan(ROOT_CONTEXT, span), work);
}

function sessionOptions(command: Command): {
  clientSessionId: string | undefined;
  labels: Record<string, string>;
  resumeWindowMs: number | undefined;
  move: boolean | undefined;
  openTimeoutMs: number | undefined;
  audioFormat: MessageShape<typeof AudioFormatSchema> | undefined;
} {
  return {
    clientSessionId: maybeText(command, "client_session_id"),
    labels: pairs(command, "labels"),
    resumeWindowMs: maybeMs(command, "resume_window"),
    move: maybeBool(command, "move"),
    openTimeoutMs: maybeMs(command, "open_timeout"),
    audioFormat: message(command, "audio_format", AudioFormatSchema),
  };
}

function opened(command: Command, session: SynthesisSession | TranscriptionSession): Answer {
  const name = text(command, "session");
  const entry = new Opened(session);
  sessions.set(name, entry);
  if (maybeBool(command, "events") !== false) {
    startReading(name, entry);
  }
  return { session_started: json(SessionStartedSchema, session.started) };
}

function updateOptions(command: Command): UpdateOptions {
  const revision = command["expected_revision"];
  return {
    reset: texts(command, "reset"),
    apply: maybeText(command, "apply") as Apply | undefined,
    expectedRevision: typeof revision === "number" || typeof revision === "string" ? BigInt(revision) : undefined,
    validateOnly: maybeBool(command, "validate_only"),
    updateId: maybeText(command, "update_id"),
  };
}

async function* tokens(command: Command): AsyncGenerator<string, void, undefined> {
  const intervalMs = maybeMs(command, "interval") ?? 0;
  const failAfter = maybeNumber(command, "fail_after");
  let count = 0;
  for (const token of texts(command, "tokens")) {
    if (count === failAfter) {
      throw new CallerFailure("the iterator failed");
    }
    if (count++ > 0 && intervalMs > 0) {
      await sleep(intervalMs);
    }
    yield token;
  }
  if (failAfter !== undefined && count <= failAfter) {
    throw new CallerFailure("the iterator failed");
  }
}

async function close(command: Command, how: (session: SynthesisSession | TranscriptionSession) => Promise<void>): Promise<Answer> {
  const name = text(command, "session");
  const entry = the(sessions, command, "session");
  try {
    await how(entry.session);
  } finally {
    sessions.delete(name);
    gone.set(`session ${name}`, new WeakRef(entry.session));
  }
  return {};
}

async function collect<T>(items: AsyncIterable<T>, make: (item: T) => JsonValue): Promise<JsonValue[]> {
  const found: JsonValue[] = [];
  for await (const item of items) {
    found.push(make(item));
  }
  return found;
}

async function sendAudio(command: Command): Promise<Answer> {
  const session = transcription(command);
  const content = bytes(command, "content");
  const pace = maybeNumber(command, "pace");
  const pieceS = maybeNumber(command, "piece");
  const { sampleRateHertz, encoding } = session.audioFormat;
  const width = [2, 2, 4, 1, 1][encoding];
  const step =
    pieceS === undefined || width === undefined
      ? content.length
      : Math.max(width, Math.floor(pieceS * sampleRateHertz) * width);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += step) {
    parts.push(content.subarray(at, at + step));
  }
  await session.streamAudio(parts, { paced: pace });
  return {};
}

function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

/** What still lives that belongs to nothing open, after time to end. */
async function leaks(): Promise<string[]> {
  let found: string[] = [];
  for (let tries = 0; tries < 40; tries++) {
    collectGarbage();
    const handles = process.getActiveResourcesInfo().filter((name) => !/^(PipeWrap|TTYWrap|FSReq|Immediate)/.test(name));
    const isIdle = sessions.size === 0 && controls.size === 0;
    // This very wait is one of the timers.
    found = [
      ...(isIdle ? handles : []),
      ...[...gone].flatMap(([name, ref]) => (ref.deref() === undefined ? [] : [`${name} is still referred to`])),
    ];
    if (found.length === 0) {
      break;
    }
    await sleep(100);
  }
  return found;
}

/** A function of its own, so that nothing of the session stays in the frame of what waits for its end. */
function forget(command: Command): void {
  const name = text(command, "session");
  const entry = the(sessions, command, "session");
  stopReading(entry);
  sessions.delete(name);
  gone.set(`session ${name}`, new WeakRef(entry.session));
}

type Handler = (command: Command) => Promise<Answer> | Answer;

const handlers: Readonly<Record<string, Handler>> = {
  hello: () => ({ language: "typescript", version: "0.1.0", features: [] }),
  connect: (command) => {
    const tls = command["tls"];
    const wanted = typeof tls === "object" && tls !== null && !Array.isArray(tls) ? tls : undefined;
    const client = new Client({
      targets: texts(command, "targets"),
      tls: wanted && {
        rootCertificates: maybeText(wanted, "root_certificates"),
        privateKey: maybeText(wanted, "private_key"),
        certificateChain: maybeText(wanted, "certificate_chain"),
      },
      token: maybeText(command, "token"),
      metadata: pairs(command, "metadata"),
    });
    clients.set(text(command, "client"), client);
    return {};
  },
  close_client: (command) => {
    the(clients, command, "client").close();
    clients.delete(text(command, "client"));
    return {};
  },
  open_synthesis: (command) =>
    under(maybeText(command, "traceparent"), async () =>
      opened(
        command,
        await the(clients, command, "client").synthesize(message(command, "settings", SynthesisSettingsSchema), {
          ...sessionOptions(command),
          maxAudioLeadMs: maybeMs(command, "max_audio_lead"),
        }),
      ),
    ),
  open_transcription: (command) =>
    under(maybeText(command, "traceparent"), async () =>
      opened(
        command,
        await the(clients, command, "client").transcribe(message(command, "settings", TranscriptionSettingsSchema), {
          ...sessionOptions(command),
          keepAlive: maybeBool(command, "keep_alive"),
          initialAudioOffsetMs: maybeMs(command, "initial_audio_offset"),
        }),
      ),
    ),
  say: async (command) => {
    const { session, utterances } = synthesis(command);
    const said = await session.say(text(command, "text"), { utteranceId: maybeText(command, "utterance_id") });
    utterances.set(said.utteranceId, said);
    return { utterance_id: said.utteranceId };
  },
  say_tokens: async (command) => {
    const { session, utterances } = synthesis(command);
    const said = await session.say(tokens(command), { utteranceId: maybeText(command, "utterance_id") });
    utterances.set(said.utteranceId, said);
    return { utterance_id: said.utteranceId };
  },
  send_text: async (command) => {
    const { session, utterances } = synthesis(command);
    const said = await session.sendText(text(command, "text"), {
      utteranceId: maybeText(command, "utterance_id"),
      endUtterance: maybeBool(command, "end_utterance"),
    });
    utterances.set(said.utteranceId, said);
    return { utterance_id: said.utteranceId };
  },
  flush: async (command) => {
    await synthesis(command).session.flush(maybeText(command, "utterance_id"));
    return {};
  },
  end_utterance: async (command) => {
    await synthesis(command).session.endUtterance(maybeText(command, "utterance_id"));
    return {};
  },
  cancel: async (command) => {
    await synthesis(command).session.cancel(maybeText(command, "utterance_id"), {
      playbackOffsetMs: maybeMs(command, "playback_offset"),
    });
    return {};
  },
  report_playback: async (command) => {
    const offsetMs = maybeMs(command, "playback_offset") ?? 0;
    await synthesis(command).session.reportPlayback(text(command, "utterance_id"), offsetMs);
    return {};
  },
  wait: async (command) => {
    const end = await utterance(command).wait();
    return end.case === "utteranceCompleted"
      ? { utterance_completed: json(UtteranceCompletedSchema, end.value) }
      : { utterance_cancelled: json(UtteranceCancelledSchema, end.value) };
  },
  read_utterance: async (command) => ({
    audio: Buffer.from(await utterance(command).read()).toString("base64"),
  }),
  send_audio: sendAudio,
  finalize: async (command) => ({ transcript: json(TranscriptSchema, await transcription(command).finalize()) }),
  update_settings: async (command) => {
    const { session } = the(sessions, command, "session");
    const ack =
      session instanceof SynthesisSession
        ? await session.updateSettings(message(command, "settings", SynthesisSettingsSchema) ?? {}, updateOptions(command))
        : await session.updateSettings(
            message(command, "settings", TranscriptionSettingsSchema) ?? {},
            updateOptions(command),
          );
    return { settings_ack: json(SettingsAckSchema, ack) };
  },
  end: async (command) => {
    await the(sessions, command, "session").session.end();
    return {};
  },
  discard: async (command) => {
    await the(sessions, command, "session").session.discard();
    return {};
  },
  close: (command) => close(command, (session) => session.close()),
  abort: (command) => close(command, (session) => session.abort()),
  drop: async (command) => {
    forget(command);
    // What is collected is told about in a later turn; commands run in turns of their own, too.
    for (let turns = 0; turns < 5; turns++) {
      await sleep(10);
      collectGarbage();
    }
    return {};
  },
  events: (command) => {
    const entry = the(sessions, command, "session");
    if (maybeBool(command, "on") === true) {
      startReading(text(command, "session"), entry);
    } else {
      stopReading(entry);
    }
    return {};
  },
  synthesize_once: async (command) => {
    const speech = await the(clients, command, "client").synthesizeOnce(
      text(command, "text"),
      message(command, "settings", SynthesisSettingsSchema),
      { audioFormat: message(command, "audio_format", AudioFormatSchema), requestId: maybeText(command, "request_id") },
    );
    return {
      audio: Buffer.from(speech.audio).toString("base64"),
      session_started: json(SessionStartedSchema, speech.started),
      utterance_completed: json(UtteranceCompletedSchema, speech.completed),
      warnings: speech.warnings.map((warning) => json(WarningSchema, warning)),
      words: speech.words.map((word) => json(WordTimings_WordSchema, word)),
    };
  },
  transcribe_once: async (command) => {
    const uri = maybeText(command, "uri");
    const response = await the(clients, command, "client").transcribeOnce(
      uri === undefined ? bytes(command, "content") : { uri },
      message(command, "settings", TranscriptionSettingsSchema),
      {
        audioFormat: message(command, "audio_format", AudioFormatSchema),
        requestId: maybeText(command, "request_id"),
        timeoutMs: maybeMs(command, "timeout"),
      },
    );
    return json(RecognizeResponseSchema, response) as JsonObject;
  },
  list_voices: async (command) => {
    const voices = the(clients, command, "client").listVoices({
      model: maybeText(command, "model"),
      languageCode: maybeText(command, "language_code"),
    });
    return { voices: await collect(voices, (voice) => json(VoiceSchema, voice)) };
  },
  get_session: async (command) => {
    const session = await the(clients, command, "client").getSession(text(command, "session_id"));
    return { session: json(SessionSchema, session) };
  },
  close_session: async (command) => {
    await the(clients, command, "client").closeSession(text(command, "session_id"), {
      discard: maybeBool(command, "discard"),
    });
    return {};
  },
  list_sessions: async (command) => {
    const found = the(clients, command, "client").listSessions({ labels: pairs(command, "labels") });
    return { sessions: await collect(found, (session) => json(SessionSchema, session)) };
  },
  get_trace: async (command) => {
    const traceId = maybeText(command, "trace_id");
    const key = traceId === undefined ? { sessionId: text(command, "session_id") } : { traceId };
    const spans = await the(clients, command, "client").getTrace(key);
    return { spans: spans.map((span) => json(TraceSpanSchema, span)) };
  },
  open_control: async (command) => {
    const name = text(command, "control");
    const control = await the(clients, command, "client").settingsStream();
    controls.set(name, control);
    void (async () => {
      try {
        for await (const { sessionId, event } of control) {
          send({ control: name, session_id: sessionId, event: arm(UpdateSettingsResponseSchema, event) });
        }
        send({ control: name, over: null });
      } catch (error) {
        send({ control: name, over: errorJson(error) });
      }
    })();
    return {};
  },
  control_update: async (command) => {
    const control = the(controls, command, "control");
    const after = command["after_input_sequence"];
    const options: ControlOptions = {
      ...updateOptions(command),
      afterInputSequence: typeof after === "number" || typeof after === "string" ? BigInt(after) : undefined,
      watch: maybeBool(command, "watch"),
    };
    const sessionId = text(command, "session_id");
    const transcriptionSettings = message(command, "transcription", TranscriptionSettingsSchema);
    const ack =
      transcriptionSettings === undefined
        ? await control.updateSynthesis(sessionId, message(command, "synthesis", SynthesisSettingsSchema) ?? {}, options)
        : await control.updateTranscription(sessionId, transcriptionSettings, options);
    return { ack: json(SettingsAckSchema, ack) };
  },
  close_control: async (command) => {
    const control = the(controls, command, "control");
    controls.delete(text(command, "control"));
    await control.close();
    return {};
  },
  leaks: async () => ({ leaked: await leaks() }),
};

async function run(command: Command): Promise<void> {
  const id = command["id"] ?? null;
  try {
    const name = text(command, "do");
    const handler = handlers[name];
    if (handler === undefined) {
      throw new NotImplemented(`this driver cannot ${name}`);
    }
    send({ id, ok: await handler(command) });
  } catch (error) {
    send({ id, error: errorJson(error) });
  }
}

function quit(): void {
  for (const client of clients.values()) {
    client.close();
  }
  process.exit(0);
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  if (line.trim() === "") {
    return;
  }
  const command = JSON.parse(line) as Command;
  if (command["do"] === "quit") {
    process.stdout.write(`${JSON.stringify({ id: command["id"] ?? null, ok: {} })}\n`, quit);
    return;
  }
  void run(command);
});
lines.on("close", quit);

