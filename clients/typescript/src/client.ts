import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Channel, Channels, MAX_MESSAGE_BYTES } from "./channel.js";
import { SettingsStream } from "./control.js";
import type { WaitOptions } from "./duplex.js";
import { requestTooLarge } from "./errors.js";
import {
  CloseSessionRequestSchema,
  GetSessionRequestSchema,
  GetTraceRequestSchema,
  ListSessionsRequestSchema,
  type Session,
  SessionSchema,
  SessionService,
  type TraceSpan,
} from "./gen/wavegate/speech/v1/session_service_pb.js";
import { ListVoicesRequestSchema, SynthesisService, type Voice } from "./gen/wavegate/speech/v1/synthesis_service_pb.js";
import {
  RecognizeRequestSchema,
  type RecognizeResponse,
  TranscriptionService,
} from "./gen/wavegate/speech/v1/transcription_service_pb.js";
import {
  AudioFormatSchema,
  type SynthesisSettingsSchema,
  TranscriptionSettingsSchema,
} from "./gen/wavegate/speech/v1/types_pb.js";
import { type Speech, speech, type SpeechEvent, speechEvents, type SynthesizeOnceOptions } from "./once.js";
import { message } from "./settings.js";
import { type SynthesisOptions, SynthesisSession } from "./synthesis.js";
import { DEFAULT_TARGET, type LoadBalancing } from "./target.js";
import { type TranscriptionOptions, TranscriptionSession } from "./transcription.js";

/** How long a call may take that is one request and one answer, unless the caller says otherwise. */
const UNARY_TIMEOUT_MS = 30_000;
/** The same for a whole recording. */
const RECOGNIZE_TIMEOUT_MS = 300_000;

/** Encryption of the connection; PEM texts. */
export interface TlsOptions {
  /** The authorities to trust instead of the system's. */
  readonly rootCertificates?: string | Uint8Array | undefined;
  /** With `certificateChain`: what this client shows of itself. */
  readonly privateKey?: string | Uint8Array | undefined;
  /** With `privateKey`: the certificate of that key, and those between it and its authority. */
  readonly certificateChain?: string | Uint8Array | undefined;
}

/** How to reach the gateway, and what every call says. */
export interface ClientOptions {
  /** `HOST:PORT`, or `unix:PATH`. Where it is not given: `WAVEGATE_TARGET`, else 127.0.0.1:50051. */
  readonly target?: string | undefined;
  /**
   * Several addresses instead: a session opens on the first that takes it, and moves to another one when its own gateway
   * shuts down. Calls that are no session go to the one in use.
   */
  readonly targets?: readonly string[] | undefined;
  /** Encrypts, with the authorities that the system trusts (`true`), or with others. */
  readonly tls?: boolean | TlsOptions | undefined;
  /** Goes with every call as `authorization: Bearer`. Where it is not given: `WAVEGATE_TOKEN`. */
  readonly token?: string | undefined;
  /** More metadata for every call. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /**
   * How calls spread over the addresses that a target's name resolves to: `pick_first` holds one connection,
   * `round_robin` one to each address, used in turn. A session stays with the address that it was opened at.
   */
  readonly loadBalancing?: LoadBalancing | undefined;
  /** The largest message, in bytes, that is sent or received: 32 MiB where it is not given. */
  readonly maxMessageBytes?: number | undefined;
}

/** What a call takes that is one request and one answer. */
export interface CallOptions extends WaitOptions {
  /** How long it may take, in milliseconds: 30 000 where it is not given, 300 000 for a recording. */
  readonly timeoutMs?: number | undefined;
}

/** What may go with a recording. */
export interface TranscribeOnceOptions extends CallOptions {
  /** What raw samples are; a container says itself what it holds. */
  readonly audioFormat?: MessageInitShape<typeof AudioFormatSchema> | undefined;
  /** An id of the caller's own, for traces and logs. */
  readonly requestId?: string | undefined;
}

/** A recording: its content, or an http or https address that the upstream fetches. */
export type Recording = Uint8Array | { readonly uri: string };

/**
 * A connection to a gateway.
 *
 * It connects with the first call, and again by itself after a loss. Any number of calls and sessions may run at once.
 * Close it, or make it with `await using`.
 */
export class Client {
  readonly #channels: Channels;

  /** Throws a `TypeError` for a target that is written wrong, and for a token or metadata that no header takes. */
  constructor(options: ClientOptions = {}) {
    if (options.target !== undefined && options.targets !== undefined) {
      throw new TypeError("give either a target or targets");
    }
    const { loadBalancing = "pick_first", maxMessageBytes = MAX_MESSAGE_BYTES } = options;
    if (!["pick_first", "round_robin"].includes(loadBalancing)) {
      throw new TypeError(`loadBalancing is pick_first or round_robin, not "${loadBalancing}"`);
    }
    const tls = typeof options.tls === "object" ? options.tls : {};
    if (tls.rootCertificates !== undefined && !Buffer.from(tls.rootCertificates).includes("-----BEGIN ")) {
      // Nothing would be trusted by it, and nothing is sent in the clear because of it.
      throw new TypeError("rootCertificates holds no certificate (PEM)");
    }
    if ((tls.privateKey === undefined) !== (tls.certificateChain === undefined)) {
      throw new TypeError("privateKey and certificateChain go together");
    }
    const targets = options.targets ?? [options.target ?? (process.env["WAVEGATE_TARGET"] || DEFAULT_TARGET)];
    if (targets.length === 0) {
      throw new TypeError("targets is empty");
    }
    this.#channels = new Channels(
      [...new Set(targets)].map(
        (target) =>
          new Channel({
            target,
            tls: options.tls !== undefined && options.tls !== false,
            ...tls,
            token: options.token ?? process.env["WAVEGATE_TOKEN"],
            metadata: options.metadata ?? {},
            loadBalancing,
            maxMessageBytes,
          }),
      ),
    );
  }

  /** Where the gateway is; of several, the one in use. */
  get target(): string {
    return this.#channel.target;
  }

  get #channel(): Channel {
    return this.#channels.current;
  }

  /** Ends every call and the connections. Another call connects again. */
  close(): void {
    this.#channels.close();
  }

  /** Leaves a scope of `using`: as `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Leaves a scope of `await using`: as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  // --- sessions of this caller -----------------------------------------------------------------

  /**
   * Opens a session of speech synthesis; resolves once the upstream has accepted it. It has no deadline.
   *
   * Throws a `TypeError` for settings that do not exist, and a `WavegateError`: `GATEWAY_UNAVAILABLE` where there is no
   * gateway, `DEADLINE` after `openTimeoutMs`, and otherwise what the gateway or the upstream says against it.
   */
  async synthesize(
    settings: MessageInitShape<typeof SynthesisSettingsSchema> = {},
    options: SynthesisOptions = {},
  ): Promise<SynthesisSession> {
    const session = new SynthesisSession(this.#channels, settings, options);
    await session.open(await this.#channel.headers());
    return session;
  }

  /**
   * Opens a session of transcription; resolves once the upstream has accepted it. It has no deadline.
   *
   * Throws as `synthesize`.
   */
  async transcribe(
    settings: MessageInitShape<typeof TranscriptionSettingsSchema> = {},
    options: TranscriptionOptions = {},
  ): Promise<TranscriptionSession> {
    const session = new TranscriptionSession(this.#channels, settings, options);
    await session.open(await this.#channel.headers());
    return session;
  }

  // --- whole texts and recordings --------------------------------------------------------------

  /** Speaks one text, and gives it whole. Throws what the gateway says against it. */
  async synthesizeOnce(
    text: string,
    settings: MessageInitShape<typeof SynthesisSettingsSchema> = {},
    options: SynthesizeOnceOptions = {},
  ): Promise<Speech> {
    const channel = this.#channel;
    return speech(channel, speechEvents(channel, text, settings, options));
  }

  /** Speaks one text, and gives what comes of it as it comes. Leaving the loop early cancels it. */
  async *synthesizeOnceEvents(
    text: string,
    settings: MessageInitShape<typeof SynthesisSettingsSchema> = {},
    options: SynthesizeOnceOptions = {},
  ): AsyncGenerator<SpeechEvent, void, undefined> {
    // Only now: where it goes may have shut down since it was asked for.
    yield* speechEvents(this.#channel, text, settings, options);
  }

  /**
   * Transcribes a recording of up to 32 MiB. What is larger can be streamed: `transcribe`.
   *
   * Throws an error of kind `INVALID_REQUEST` for a recording that is too large, and what the gateway says against it.
   */
  async transcribeOnce(
    recording: Recording,
    settings: MessageInitShape<typeof TranscriptionSettingsSchema> = {},
    options: TranscribeOnceOptions = {},
  ): Promise<RecognizeResponse> {
    const channel = this.#channel;
    const limit = channel.maxMessageBytes;
    if (recording instanceof Uint8Array && recording.length > limit) {
      throw requestTooLarge(recording.length, limit, "content");
    }
    const request = create(RecognizeRequestSchema, {
      source:
        recording instanceof Uint8Array
          ? { case: "content", value: recording }
          : { case: "uri", value: recording.uri },
      settings: message(TranscriptionSettingsSchema, settings),
      ...(options.audioFormat === undefined ? {} : { audioFormat: message(AudioFormatSchema, options.audioFormat) }),
      requestId: options.requestId ?? "",
    });
    const { length } = toBinary(RecognizeRequestSchema, request);
    if (length > limit) {
      throw requestTooLarge(length, limit, "content");
    }
    const timeoutMs = options.timeoutMs ?? RECOGNIZE_TIMEOUT_MS;
    return channel.unary(TranscriptionService.method.recognize, request, timeoutMs, options.signal);
  }

  /** The voices of the catalogue, asked for page by page; `timeoutMs` is for each page. */
  async *listVoices(
    options: CallOptions & { readonly model?: string | undefined; readonly languageCode?: string | undefined } = {},
  ): AsyncGenerator<Voice, void, undefined> {
    const { model = "", languageCode = "", timeoutMs = UNARY_TIMEOUT_MS, signal } = options;
    let pageToken = "";
    do {
      const request = create(ListVoicesRequestSchema, { model, languageCode, pageToken });
      const page = await this.#channel.unary(SynthesisService.method.listVoices, request, timeoutMs, signal);
      yield* page.voices;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  // --- control over live sessions --------------------------------------------------------------

  /** Opens a stream for changing the settings of live sessions; that there is no gateway shows with the first update. */
  async settingsStream(): Promise<SettingsStream> {
    const channel = this.#channel;
    return new SettingsStream(channel, await channel.headers());
  }

  /** One live session. Throws an error of kind `SESSION_NOT_FOUND` where there is none of that id. */
  async getSession(sessionId: string, options: CallOptions = {}): Promise<Session> {
    const request = create(GetSessionRequestSchema, { sessionId });
    const timeoutMs = options.timeoutMs ?? UNARY_TIMEOUT_MS;
    const answer = await this.#channel.unary(SessionService.method.getSession, request, timeoutMs, options.signal);
    return answer.session ?? create(SessionSchema, { sessionId });
  }

  /** The caller's live sessions that have all of these labels, asked for page by page; `timeoutMs` is for each page. */
  async *listSessions(
    options: CallOptions & { readonly labels?: Readonly<Record<string, string>> | undefined } = {},
  ): AsyncGenerator<Session, void, undefined> {
    const { labels = {}, timeoutMs = UNARY_TIMEOUT_MS, signal } = options;
    let pageToken = "";
    do {
      const request = create(ListSessionsRequestSchema, { labels: { ...labels }, pageToken });
      const page = await this.#channel.unary(SessionService.method.listSessions, request, timeoutMs, signal);
      yield* page.sessions;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** Ends a live session as its own `end` would, with `discard` at once. Throws as `getSession`. */
  async closeSession(sessionId: string, options: CallOptions & { readonly discard?: boolean | undefined } = {}): Promise<void> {
    const request = create(CloseSessionRequestSchema, { sessionId, discard: options.discard ?? false });
    const timeoutMs = options.timeoutMs ?? UNARY_TIMEOUT_MS;
    await this.#channel.unary(SessionService.method.closeSession, request, timeoutMs, options.signal);
  }

  // --- traces ----------------------------------------------------------------------------------

  /**
   * The spans of a trace, or of a session, that the gateway still holds: the newest of this caller's calls.
   *
   * One that has not ended is not among them. Throws an error of kind `SESSION_NOT_FOUND` where none is held.
   */
  async getTrace(
    key: { readonly traceId: string } | { readonly sessionId: string },
    options: CallOptions = {},
  ): Promise<TraceSpan[]> {
    const request = create(GetTraceRequestSchema, {
      key: "traceId" in key ? { case: "traceId", value: key.traceId } : { case: "sessionId", value: key.sessionId },
    });
    const timeoutMs = options.timeoutMs ?? UNARY_TIMEOUT_MS;
    const spans: TraceSpan[] = [];
    for await (const part of this.#channel.serverStream(SessionService.method.getTrace, request, timeoutMs, options.signal)) {
      spans.push(...part.spans);
    }
    return spans;
  }
}
