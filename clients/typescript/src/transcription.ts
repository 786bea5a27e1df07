import { randomBytes } from "node:crypto";
import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { bytesPerSecond, opusSamples, Pacer, pieces, sampleBytes } from "./audio.js";
import type { Channels } from "./channel.js";
import type { WaitOptions } from "./duplex.js";
import {
  AudioInputSchema,
  type AudioInput,
  FinalizeSchema,
  type Finalize,
  type StartTranscription,
  StartTranscriptionSchema,
  type TranscribeStreamRequest,
  TranscribeStreamRequestSchema,
  type TranscribeStreamResponse,
  TranscriptionService,
  type Transcript,
  TranscriptSchema,
  UpdateTranscriptionSettingsSchema,
} from "./gen/wavegate/speech/v1/transcription_service_pb.js";
import {
  AudioEncoding,
  AudioFormatSchema,
  type SettingsAck,
  SettingsAck_Mechanism,
  SettingsAck_State,
  type TranscriptionSettings,
  TranscriptionSettingsSchema,
} from "./gen/wavegate/speech/v1/types_pb.js";
import { BaseSession, type Input, type OwnEvent, type SessionOptions, type Unfinished } from "./session.js";
import { message, type UpdateOptions } from "./settings.js";
import { durationFromMs, msFromDuration, nowMs, orAborted, sleep } from "./time.js";

/** Largest audio message where the gateway names no limit. */
const MESSAGE_BYTES = 64 * 1024;
/** Audio behind the last final transcript that is kept for another gateway. */
const KEPT_AUDIO_S = 30;
/** Paced audio goes out in pieces of at most this playing time. */
const PACED_PIECE_MS = 100;

/** What a transcription session says: the contract's events, and the client's own. */
export type TranscriptionEvent = Exclude<TranscribeStreamResponse["event"], { case: undefined }> | OwnEvent;

/** What is said when a transcription session is opened, beside its settings. */
export interface TranscriptionOptions extends SessionOptions {
  /** What will be sent; 16-bit samples at 16000 Hz where it is not given. */
  readonly audioFormat?: MessageInitShape<typeof AudioFormatSchema> | undefined;
  /** Whether a silent session keeps its upstream connection; true where it is not given. */
  readonly keepAlive?: boolean | undefined;
  /** The time of the first sample in milliseconds, where this session continues another. */
  readonly initialAudioOffsetMs?: number | undefined;
}

/** What may go with audio. */
export interface SendAudioOptions extends WaitOptions {
  /** When its first sample was recorded; with it the gateway measures `captureLatency`. */
  readonly captureTime?: Date | undefined;
}

/** What may go with a source of audio. */
export interface StreamAudioOptions extends WaitOptions {
  /**
   * Holds audio that is there at once back to the speed at which it was spoken, or to so many times that speed. It needs
   * a format with a fixed rate.
   */
  readonly paced?: boolean | number | undefined;
}

/**
 * A session of transcription; `Client.transcribe` opens it.
 *
 * Sending and reading may go on side by side. Transcripts that nobody reads yet are kept.
 *
 * A session whose gateway shuts down moves to another one: the audio behind the last final transcript, which is kept here
 * for that (30 s of it at most), is transcribed there, so that all offsets stay on one timeline and no word is lost or
 * comes twice. What falls out of those 30 s in mid-segment is counted in `SessionMoved.lostAudioMs`. A session that sends
 * OGG_OPUS stays where it is, and so does one whose input has ended.
 */
export class TranscriptionSession extends BaseSession<
  typeof TranscribeStreamRequestSchema,
  (typeof TranscriptionService.method.transcribeStream)["output"],
  TranscriptionEvent
> {
  /** @internal */
  protected readonly method = TranscriptionService.method.transcribeStream;
  /** @internal */
  protected readonly settingsSchema = TranscriptionSettingsSchema;
  /** @internal */
  protected readonly startSchema = StartTranscriptionSchema;
  /** @internal */
  protected readonly startMessage: StartTranscription;
  readonly #prefix = randomBytes(4).toString("hex");
  #lastFinalize = 0;
  readonly #finals = new Map<string, Transcript | undefined>();
  // Where audio lies is counted in bytes of a raw format, in samples at 48 kHz of Opus packets.
  readonly #zeroMs: number;
  #position = 0;
  /** Up to here there are final transcripts. */
  #covered = 0;
  #keptFrom = 0;
  /** How much was kept no longer before a final covered it. */
  #fallenOut = 0;
  /** The open segment, and its revision. */
  #hanging: { readonly id: string; readonly revision: number } | undefined;
  /** What segments of this session are called since a move. */
  readonly #names = new Map<string, { readonly id: string; readonly revision: number }>();
  #fullText = "";
  #fullTextBefore = "";
  #voiceOn = false;
  #voiceAtMs = -1;

  /** @internal */
  constructor(
    channels: Channels,
    settings: MessageInitShape<typeof TranscriptionSettingsSchema>,
    options: TranscriptionOptions,
  ) {
    // No limit on what waits to be read: a transcript is small, and the gateway must not stop taking audio because its
    // caller sends a whole file before reading the first word.
    super(channels, options, Infinity);
    const { resumeWindowMs = 30_000, initialAudioOffsetMs, keepAlive } = options;
    this.#zeroMs = initialAudioOffsetMs ?? 0;
    this.startMessage = message(StartTranscriptionSchema, {
      audioFormat: message(
        AudioFormatSchema,
        options.audioFormat ?? { encoding: AudioEncoding.LINEAR16, sampleRateHertz: 16000 },
      ),
      settings: message(TranscriptionSettingsSchema, settings),
      clientSessionId: options.clientSessionId ?? "",
      labels: { ...options.labels },
      ...(keepAlive === undefined ? {} : { keepAlive }),
      ...(resumeWindowMs > 0 ? { resumeWindow: durationFromMs(resumeWindowMs) } : {}),
      ...(initialAudioOffsetMs === undefined ? {} : { initialAudioOffset: durationFromMs(initialAudioOffsetMs) }),
    });
  }

  // --- audio -----------------------------------------------------------------------------------

  /** Sends audio in the session's format, of any length; one packet where that is raw Opus. */
  async sendAudio(content: Uint8Array, options: SendAudioOptions = {}): Promise<void> {
    if (!(content instanceof Uint8Array)) {
      throw new TypeError(`audio is a Uint8Array, not ${typeof content}`);
    }
    this.checkOpen();
    let { captureTime } = options;
    for (const piece of pieces(content, this.audioFormat, this.#messageBytes)) {
      const value = create(AudioInputSchema, {
        content: piece,
        ...(captureTime === undefined ? {} : { captureTime: timestampFromDate(captureTime) }),
      });
      captureTime = undefined;
      await this.send({ case: "audio", value }, options.signal);
    }
  }

  /** Sends audio as it comes from a microphone, a call or another stream; resolves when the source has ended. */
  async streamAudio(
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: StreamAudioOptions = {},
  ): Promise<void> {
    const { paced = false, signal } = options;
    const pacer = paced === false ? undefined : new Pacer(this.audioFormat, paced === true ? 1 : paced);
    const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
    let isDone = false;
    try {
      for (;;) {
        const result = await orAborted(Promise.resolve(iterator.next()), signal);
        if (result.done === true) {
          isDone = true;
          return;
        }
        if (pacer === undefined) {
          await this.sendAudio(result.value, { signal });
          continue;
        }
        for (const piece of pieces(result.value, this.audioFormat, pacer.bytesIn(PACED_PIECE_MS))) {
          await sleep(pacer.delayMs(piece.length, nowMs()), signal);
          await this.sendAudio(piece, { signal });
        }
      }
    } finally {
      if (!isDone) {
        void (async (): Promise<void> => {
          await iterator.return?.();
        })().catch(() => undefined);
      }
    }
  }

  /**
   * A web stream to write audio to, as fast as the gateway takes it. Closing it ends the session's input, aborting it
   * discards the session; `pipeTo(session.audioWriter(), { preventClose: true })` leaves the session open.
   */
  audioWriter(): WritableStream<Uint8Array> {
    return new WritableStream<Uint8Array>(
      {
        write: (content) => this.sendAudio(content),
        close: () => this.end(),
        abort: () => this.discard(),
      },
      { highWaterMark: 1 },
    );
  }

  /**
   * A turn ends here: waits for the final transcript of what was sent so far; empty if nothing was said.
   *
   * The transcript is also among the events.
   */
  async finalize(options: WaitOptions & { readonly finalizeId?: string | undefined } = {}): Promise<Transcript> {
    const finalizeId = options.finalizeId ?? `${this.#prefix}-${String(++this.#lastFinalize)}`;
    if (this.#finals.has(finalizeId)) {
      throw new TypeError(`finalize "${finalizeId}" of this session is still under way`);
    }
    this.#finals.set(finalizeId, undefined);
    try {
      await this.send({ case: "finalize", value: create(FinalizeSchema, { finalizeId }) }, options.signal);
      return await this.until(() => this.#finals.get(finalizeId), options.signal);
    } finally {
      this.#finals.delete(finalizeId);
    }
  }

  // --- settings --------------------------------------------------------------------------------

  /** The settings in force, as far as acks have told; changes from outside included. */
  get settings(): TranscriptionSettings {
    const settings = this.settingsMessage?.settings;
    return settings?.case === "transcription" ? settings.value : create(TranscriptionSettingsSchema);
  }

  /**
   * Changes settings from here on in the audio; resolves once that is applied, superseded or validated.
   *
   * Settings not named stay; `reset` names those to put back to their defaults. Most need a new connection to the
   * upstream, made at the end of speech unless `apply` says otherwise; no audio is lost in it. Throws what the gateway says
   * against it, and then nothing has changed.
   */
  async updateSettings(
    settings: MessageInitShape<typeof TranscriptionSettingsSchema>,
    options: UpdateOptions = {},
  ): Promise<SettingsAck> {
    const wanted = message(TranscriptionSettingsSchema, settings);
    return this.update((fields) => create(UpdateTranscriptionSettingsSchema, { ...fields, settings: wanted }), options);
  }

  // --- transcripts -----------------------------------------------------------------------------

  /** Partial and final transcripts, to the end of the session; other events are passed over. */
  async *transcripts(options: WaitOptions = {}): AsyncGenerator<Transcript, void, undefined> {
    for await (const event of this.events(options)) {
      if (event.case === "transcript") {
        yield event.value;
      }
    }
  }

  /** Final transcripts, to the end of the session; other events are passed over. */
  async *finals(options: WaitOptions = {}): AsyncGenerator<Transcript, void, undefined> {
    for await (const transcript of this.transcripts(options)) {
      if (transcript.isFinal) {
        yield transcript;
      }
    }
  }

  // --- inside ----------------------------------------------------------------------------------

  get #isOpus(): boolean {
    return this.audioFormat.encoding === AudioEncoding.OPUS;
  }

  get #messageBytes(): number {
    return this.started.limits?.maxAudioMessageBytes || MESSAGE_BYTES;
  }

  /** @internal */
  protected note(event: TranscriptionEvent): TranscriptionEvent | undefined {
    switch (event.case) {
      case "transcript": {
        const value = this.#noteTranscript(event.value);
        return value === undefined ? undefined : { case: "transcript", value };
      }
      case "settingsAck": {
        const { state, mechanism, audioOffset } = event.value;
        if (state === SettingsAck_State.APPLIED && mechanism === SettingsAck_Mechanism.RECONNECT) {
          // All before it is final with the old settings; a session elsewhere would hear it with the new ones.
          this.#cover(this.#positionAt(msFromDuration(audioOffset)));
        }
        return event;
      }
      case "speechStarted":
      case "speechEnded": {
        const begins = event.case === "speechStarted";
        const atMs = msFromDuration(event.value.audioOffset);
        if (this.moves > 0 && (begins === this.#voiceOn || atMs <= this.#voiceAtMs)) {
          return undefined; // heard again, where audio was sent again
        }
        this.#voiceOn = begins;
        this.#voiceAtMs = atMs;
        return event;
      }
      default:
        return event;
    }
  }

  #noteTranscript(heard: Transcript): Transcript | undefined {
    const end = this.#positionAt(msFromDuration(heard.endOffset));
    let transcript = heard;
    if (this.moves > 0) {
      if (transcript.text !== "" && transcript.finalizeId === "" && end <= this.#covered) {
        return undefined; // a final of the session before has said it
      }
      transcript = this.#renamed(transcript);
    }
    if (!transcript.isFinal) {
      if (transcript.text !== "") {
        this.#hanging = { id: transcript.segmentId, revision: transcript.segmentRevision };
      }
    } else {
      if (this.#hanging?.id === transcript.segmentId) {
        this.#hanging = undefined;
      }
      const key = `finalize ${transcript.finalizeId}`;
      if (transcript.text !== "") {
        const asked = this.unfinished.filter((item) => item.key === key).map((item) => item.end);
        this.#cover(Math.max(end, ...asked));
      }
      this.#fullText = transcript.fullText || this.#fullText;
      this.settle(key);
    }
    if (this.#finals.has(transcript.finalizeId)) {
      this.#finals.set(transcript.finalizeId, transcript);
    }
    return transcript;
  }

  // --- moving ----------------------------------------------------------------------------------

  /** A transcript of a later session: the open segment is said again there, and goes on under its name. */
  #renamed(transcript: Transcript): Transcript {
    const { segmentId } = transcript;
    let name = this.#names.get(segmentId);
    if (name === undefined) {
      const hanging = this.#hanging;
      const isTaken = [...this.#names.values()].some((given) => given.id === hanging?.id);
      name =
        transcript.text !== "" && hanging !== undefined && !isTaken
          ? hanging
          : { id: `${segmentId}.${String(this.moves)}`, revision: 0 };
      this.#names.set(segmentId, name);
    }
    if (transcript.isFinal) {
      this.#names.delete(segmentId);
    }
    const renamed = clone(TranscriptSchema, transcript);
    renamed.segmentId = name.id;
    renamed.segmentRevision += name.revision;
    if (renamed.fullText !== "") {
      renamed.fullText = `${this.#fullTextBefore} ${renamed.fullText}`.trimStart();
    }
    return renamed;
  }

  get #unitsPerS(): number {
    return this.#isOpus ? 48_000 : bytesPerSecond(this.audioFormat);
  }

  get #unitWidth(): number {
    return this.#isOpus ? 1 : (sampleBytes(this.audioFormat) ?? 1);
  }

  #positionAt(offsetMs: number): number {
    if (!this.canMove()) {
      return 0;
    }
    const width = this.#unitWidth;
    return Math.round((((offsetMs - this.#zeroMs) / 1000) * this.#unitsPerS) / width) * width;
  }

  /** @internal */
  protected keep(input: Input): void {
    const start = this.#position;
    if (input.case === "audio" && this.canMove()) {
      const { content } = input.value as AudioInput;
      this.#position += this.#isOpus ? opusSamples(content) : content.length;
      this.unfinished.push({ key: "audio", input, start, end: this.#position });
      // While another session is being opened, what that one starts from has to stay.
      while (!this.paused && this.#position - this.#keptFrom > KEPT_AUDIO_S * this.#unitsPerS) {
        this.#dropOldest();
      }
    } else if (input.case === "finalize") {
      this.unfinished.push({ key: `finalize ${(input.value as Finalize).finalizeId}`, input, start, end: start });
    }
  }

  #dropOldest(): void {
    const index = this.unfinished.findIndex((item) => item.key === "audio");
    const [item] = this.unfinished.splice(index, 1);
    if (item === undefined) {
      this.#keptFrom = this.#position;
      return;
    }
    if (this.#hanging !== undefined || this.givenUp) {
      // Else it was heard, and there was nothing in it.
      this.#fallenOut += item.end - this.#keptFrom;
    }
    this.#keptFrom = item.end;
  }

  #cover(position: number): void {
    this.#covered = Math.max(this.#covered, Math.min(position, this.#position));
    this.#keptFrom = Math.max(this.#keptFrom, this.#covered);
    this.#fallenOut = 0;
    this.unfinished = this.unfinished.filter((item) => item.key !== "audio" || item.end > this.#covered);
  }

  /** @internal */
  protected isIdle(): boolean {
    return !this.inputEnded; // else it ends by itself, soon
  }

  /** @internal */
  protected isMovable(): boolean {
    return this.audioFormat.encoding !== AudioEncoding.OGG_OPUS; // it would have to be cut between pages
  }

  /** Where another session begins: a sample that is there whole, of a packet its beginning. */
  #goesOnAt(): number {
    const first = this.unfinished.find((item) => item.key === "audio");
    if (first === undefined) {
      return this.#position;
    }
    if (this.#isOpus) {
      return first.start;
    }
    const width = this.#unitWidth;
    return Math.ceil(Math.max(first.start, this.#covered) / width) * width;
  }

  /** @internal */
  protected startElsewhere(): StartTranscription {
    const start = clone(StartTranscriptionSchema, this.startMessage);
    const settings = this.settingsMessage?.settings;
    if (settings?.case === "transcription") {
      start.settings = settings.value;
    }
    start.initialAudioOffset = durationFromMs(this.#zeroMs + (this.#goesOnAt() / this.#unitsPerS) * 1000);
    return start;
  }

  /** @internal */
  protected carryOver(): number {
    const lostMs = (this.#fallenOut / this.#unitsPerS) * 1000;
    const at = this.#goesOnAt();
    const index = this.unfinished.findIndex((item) => item.key === "audio");
    const item = this.unfinished[index];
    if (item !== undefined && item.start < at) {
      const { content } = item.input.value as AudioInput;
      const value = create(AudioInputSchema, { content: content.subarray(at - item.start) });
      const cut: Unfinished = { ...item, input: { case: "audio", value }, start: at };
      this.unfinished[index] = cut;
    }
    this.#fallenOut = 0;
    this.#names.clear();
    this.#fullTextBefore = this.#fullText;
    return lostMs;
  }

  /** @internal */
  protected whatIsLost(): string {
    if (this.#position <= this.#covered) {
      return "";
    }
    const sinceS = this.#zeroMs / 1000 + this.#covered / this.#unitsPerS;
    return `the transcript of the audio from ${sinceS.toFixed(2)} s on`;
  }

  /** @internal */
  protected makeRequest(sequence: bigint, input: Input): TranscribeStreamRequest {
    return create(TranscribeStreamRequestSchema, {
      inputSequence: sequence,
      input: input as TranscribeStreamRequest["input"],
    });
  }

  /** @internal */
  protected startToResume(sessionId: string, lastReceived: bigint): StartTranscription {
    return create(StartTranscriptionSchema, { resumeSessionId: sessionId, lastReceivedSequence: lastReceived });
  }
}
