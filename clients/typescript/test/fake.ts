/**
 * A gateway in this process that says what a test tells it to: gRPC over node:http2, without a gRPC library, so that a
 * test decides on every header, frame and reset.
 */

import assert from "node:assert/strict";
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { AnySchema, DurationSchema } from "@bufbuild/protobuf/wkt";
import {
  RecognizeRequestSchema,
  SessionStartedSchema,
  type Status,
  StatusSchema,
  SynthesizeRequestSchema,
  SynthesizeResponseSchema,
  SynthesizeStreamRequestSchema,
  SynthesizeStreamResponseSchema,
  TranscribeStreamRequestSchema,
  TranscribeStreamResponseSchema,
  CloseSessionRequestSchema,
  CloseSessionResponseSchema,
  GetSessionRequestSchema,
  GetSessionResponseSchema,
  GetTraceRequestSchema,
  GetTraceResponseSchema,
  ListSessionsRequestSchema,
  ListSessionsResponseSchema,
  ListVoicesRequestSchema,
  ListVoicesResponseSchema,
  RecognizeResponseSchema,
  UpdateSettingsRequestSchema,
  UpdateSettingsResponseSchema,
} from "@wavegate/client";

const METHODS: Readonly<Record<string, readonly [DescMessage, DescMessage]>> = {
  SynthesizeStream: [SynthesizeStreamRequestSchema, SynthesizeStreamResponseSchema],
  TranscribeStream: [TranscribeStreamRequestSchema, TranscribeStreamResponseSchema],
  Synthesize: [SynthesizeRequestSchema, SynthesizeResponseSchema],
  Recognize: [RecognizeRequestSchema, RecognizeResponseSchema],
  ListVoices: [ListVoicesRequestSchema, ListVoicesResponseSchema],
  GetSession: [GetSessionRequestSchema, GetSessionResponseSchema],
  ListSessions: [ListSessionsRequestSchema, ListSessionsResponseSchema],
  CloseSession: [CloseSessionRequestSchema, CloseSessionResponseSchema],
  GetTrace: [GetTraceRequestSchema, GetTraceResponseSchema],
  UpdateSettings: [UpdateSettingsRequestSchema, UpdateSettingsResponseSchema],
};

/** The longest that anything here is waited for; a test that hangs fails by it. */
export const HANG_MS = 15_000;

/** What a promise gives, or a failure that says what did not come. */
export async function soon<T>(promise: Promise<T>, what = "it"): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`${what} did not come`));
    }, HANG_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A queue that can be waited on. */
export class Queue<T> {
  readonly items: T[] = [];
  readonly #waiting: ((item: T) => void)[] = [];

  put(item: T): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      this.items.push(item);
    } else {
      waiting(item);
    }
  }

  take(what = "an item"): Promise<T> {
    const item = this.items.shift();
    if (item !== undefined) {
      return Promise.resolve(item);
    }
    return soon(
      new Promise((resolve) => {
        this.#waiting.push(resolve);
      }),
      what,
    );
  }
}

type Input = { case: string | undefined; value?: unknown };

/** One call, as the gateway sees it. */
export class FakeCall {
  readonly method: string;
  readonly stream: http2.ServerHttp2Stream;
  readonly headers: http2.IncomingHttpHeaders;
  /** Everything that came, in order. */
  readonly received: unknown[] = [];
  /** Settles when the client has half-closed, cancelled or vanished. */
  readonly halfClosed: Promise<void>;
  readonly closed: Promise<number>;
  readonly #requests = new Queue<unknown>();
  readonly #input: DescMessage;
  readonly #output: DescMessage;
  #sequence = 0n;
  #unread: Buffer = Buffer.alloc(0);
  #responded = false;
  /** Bytes that were handed to the transport. */
  sentBytes = 0;

  readonly #sockets: ReadonlySet<Socket>;

  constructor(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders, sockets: ReadonlySet<Socket>) {
    this.#sockets = sockets;
    this.stream = stream;
    this.headers = headers;
    this.method = String(headers[":path"]).split("/").at(-1) ?? "";
    const types = METHODS[this.method];
    assert(types !== undefined, `an unknown method: ${this.method}`);
    [this.#input, this.#output] = types;
    stream.on("error", () => undefined);
    stream.on("data", (chunk: Buffer) => {
      this.#unread = Buffer.concat([this.#unread, chunk]);
      this.#parse();
    });
    this.halfClosed = new Promise((resolve) => {
      stream.once("end", resolve);
      stream.once("close", resolve);
    });
    this.closed = new Promise((resolve) => {
      stream.once("close", () => {
        resolve(stream.rstCode);
      });
    });
  }

  #parse(): void {
    while (this.#unread.length >= 5) {
      const length = this.#unread.readUInt32BE(1);
      if (this.#unread.length < 5 + length) {
        return;
      }
      const request: unknown = fromBinary(this.#input, this.#unread.subarray(5, 5 + length));
      this.#unread = this.#unread.subarray(5 + length);
      this.received.push(request);
      this.#requests.put(request);
    }
  }

  /** The next request, whole. */
  async request<Desc extends DescMessage>(_schema: Desc): Promise<MessageShape<Desc>> {
    return (await this.#requests.take(`a request of ${this.method}`)) as MessageShape<Desc>;
  }

  /** The next input of a session, which has to be of this kind; gives its value, with its number. */
  async input(kind: string): Promise<Record<string, unknown> & { sequence: number }> {
    const request = (await this.#requests.take(`the input ${kind}`)) as { inputSequence: bigint; input: Input };
    assert.equal(request.input.case, kind);
    return { ...(request.input.value as Record<string, unknown>), sequence: Number(request.inputSequence) };
  }

  /** Sends the first headers. */
  respond(headers: http2.OutgoingHttpHeaders = {}): void {
    if (!this.#responded) {
      this.#responded = true;
      this.stream.respond(
        { ":status": 200, "content-type": "application/grpc+proto", ...headers },
        { waitForTrailers: true },
      );
    }
  }

  /** Sends a response as it is. */
  write(response: MessageShape<DescMessage>): void {
    this.writeBytes(toBinary(this.#output, response));
  }

  writeBytes(message: Uint8Array): void {
    this.respond();
    const frame = Buffer.alloc(5 + message.length);
    frame.writeUInt32BE(message.length, 1);
    frame.set(message, 5);
    this.sentBytes += frame.length;
    this.stream.write(frame);
  }

  /** Sends an event of a session under the next number, or under another. */
  event(event: Input, options: { acknowledged?: number; sequence?: number } = {}): void {
    if (options.sequence === undefined) {
      this.#sequence++;
    } else {
      this.#sequence = BigInt(options.sequence);
    }
    const response = create(this.#output, {
      sequence: this.#sequence,
      acknowledgedInputSequence: BigInt(options.acknowledged ?? 0),
      event,
    });
    this.write(response);
  }

  /** Opens the session: what a gateway says first. */
  started(
    sessionId: string,
    init: Readonly<Record<string, unknown>> = {},
    options: { acknowledged?: number; sequence?: number; resumeWindowS?: number } = {},
  ): void {
    const isSynthesis = this.method === "SynthesizeStream";
    const value = create(SessionStartedSchema, {
      sessionId,
      audioFormat: { encoding: 1, sampleRateHertz: isSynthesis ? 24000 : 16000, channelCount: 1 },
      settings: { settings: isSynthesis ? { case: "synthesis", value: {} } : { case: "transcription", value: {} } },
      settingsRevision: 1n,
      limits: {
        resumeWindow: { seconds: BigInt(options.resumeWindowS ?? 30), nanos: 0 },
        maxTextMessageChars: 4096,
        maxAudioMessageBytes: 65536,
      },
      ...init,
    });
    this.event({ case: "sessionStarted", value }, options);
  }

  audio(utteranceId: string, audio: Uint8Array, chunkIndex = 0): void {
    this.event({ case: "audio", value: { audio, utteranceId, chunkIndex } });
  }

  completed(utteranceId: string): void {
    this.event({ case: "utteranceCompleted", value: { utteranceId } });
  }

  /** The session's last word, and the end of the call. */
  ended(status?: Status, reason = 2): void {
    this.event({ case: "sessionEnded", value: { reason, ...(status === undefined ? {} : { status }) } });
    this.end(status);
  }

  /** Ends the call with a status. */
  end(status?: Status): void {
    this.respond();
    this.stream.once("wantTrailers", () => {
      this.stream.sendTrailers(trailers(status));
      // Then, as gRPC servers do where the client has not half-closed:
      setImmediate(() => {
        this.stream.close(http2.constants.NGHTTP2_NO_ERROR);
      });
    });
    this.stream.end();
  }

  /** Ends the stream without a status. */
  reset(code: number): void {
    this.stream.close(code);
  }

  /** Takes the whole connection away, without a word. */
  disconnect(): void {
    const port = this.stream.session?.socket.remotePort;
    for (const socket of this.#sockets) {
      if (socket.remotePort === port) {
        socket.destroy();
      }
    }
  }
}

function trailers(status: Status | undefined): http2.OutgoingHttpHeaders {
  if (status === undefined || status.code === 0) {
    return { "grpc-status": "0" };
  }
  return {
    "grpc-status": String(status.code),
    "grpc-message": encodeURIComponent(status.message),
    ...(status.details.length === 0
      ? {}
      : { "grpc-status-details-bin": Buffer.from(toBinary(StatusSchema, status)).toString("base64") }),
  };
}

/** A gateway that listens on a port of its own. */
export class FakeGateway {
  readonly #server: http2.Http2Server;
  readonly #calls = new Map<string, Queue<FakeCall>>();
  readonly #sessions = new Set<http2.ServerHttp2Session>();
  readonly #sockets = new Set<Socket>();
  /** Every call there ever was. */
  readonly calls: FakeCall[] = [];
  port = 0;

  private constructor(server: http2.Http2Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("session", (session) => {
      this.#sessions.add(session);
      session.on("error", () => undefined);
      session.once("close", () => this.#sessions.delete(session));
    });
    server.on("stream", (stream, headers) => {
      const call = new FakeCall(stream, headers, this.#sockets);
      this.calls.push(call);
      this.#queue(call.method).put(call);
    });
  }

  static async start(
    options: { port?: number; host?: string; tls?: http2.SecureServerOptions } = {},
  ): Promise<FakeGateway> {
    const server = options.tls === undefined ? http2.createServer() : http2.createSecureServer(options.tls);
    server.on("sessionError", () => undefined);
    const gateway = new FakeGateway(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(options.port ?? 0, options.host ?? "127.0.0.1", resolve);
    });
    gateway.port = (server.address() as AddressInfo).port;
    return gateway;
  }

  get target(): string {
    return `127.0.0.1:${String(this.port)}`;
  }

  get connectionCount(): number {
    return this.#sessions.size;
  }

  /** The next call of a method. */
  call(method = "SynthesizeStream"): Promise<FakeCall> {
    return this.#queue(method).take(`a call of ${method}`);
  }

  #queue(method: string): Queue<FakeCall> {
    let queue = this.#calls.get(method);
    if (queue === undefined) {
      queue = new Queue();
      this.#calls.set(method, queue);
    }
    return queue;
  }

  async stop(): Promise<void> {
    for (const session of this.#sessions) {
      session.destroy();
    }
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }
}

/** What a status says, as a gateway puts it. */
export function status(
  code: number,
  reason: string,
  text: string,
  more: {
    retryDelayS?: number;
    fields?: readonly (readonly [string, string])[];
    quotas?: readonly (readonly [string, string])[];
    metadata?: Readonly<Record<string, string>>;
  } = {},
): Status {
  const info = new BinaryWriter().tag(1, WireType.LengthDelimited).string(reason);
  info.tag(2, WireType.LengthDelimited).string("wavegate.speech");
  for (const [key, value] of Object.entries(more.metadata ?? {})) {
    info.tag(3, WireType.LengthDelimited).bytes(pair(key, value));
  }
  const details = [any("ErrorInfo", info.finish())];
  if (more.retryDelayS !== undefined) {
    const delay = toBinary(DurationSchema, create(DurationSchema, { seconds: BigInt(more.retryDelayS) }));
    details.push(any("RetryInfo", new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(delay).finish()));
  }
  if (more.fields !== undefined) {
    details.push(any("BadRequest", pairs(more.fields)));
  }
  if (more.quotas !== undefined) {
    details.push(any("QuotaFailure", pairs(more.quotas)));
  }
  return create(StatusSchema, { code, message: text, details });
}

function any(name: string, value: Uint8Array): MessageShape<typeof AnySchema> {
  return create(AnySchema, { typeUrl: `type.googleapis.com/google.rpc.${name}`, value });
}

function pair(first: string, second: string): Uint8Array {
  return new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .string(first)
    .tag(2, WireType.LengthDelimited)
    .string(second)
    .finish();
}

function pairs(entries: readonly (readonly [string, string])[]): Uint8Array {
  const writer = new BinaryWriter();
  for (const [first, second] of entries) {
    writer.tag(1, WireType.LengthDelimited).bytes(pair(first, second));
  }
  return writer.finish();
}
