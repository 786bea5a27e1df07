import { randomBytes } from "node:crypto";
import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { bytesPerSecond, concatenated, sampleBytes } from "./audio.js";
import type { Channels } from "./channel.js";
import type { WaitOptions } from "./duplex.js";
import { errorFromStatus, WavegateError } from "./errors.js";
import {
  type AudioChunk,
  CancelUtteranceSchema,
  EndUtteranceSchema,
  FlushSchema,
  PlaybackReportSchema,
  type StartSynthesis,
  StartSynthesisSchema,
  SynthesisService,
  type SynthesizeStreamRequest,
  SynthesizeStreamRequestSchema,
  type SynthesizeStreamResponse,
  TextInputSchema,
  UpdateSynthesisSettingsSchema,
  type UtteranceCancelled,
  UtteranceCancelled_Method,
  UtteranceCancelledSchema,
  type UtteranceCompleted,
  type UtteranceFailed,
  UtteranceFailedSchema,
} from "./gen/wavegate/speech/v1/synthesis_service_pb.js";
import {
  type AudioFormatSchema,
  type SettingsAck,
  StatusSchema,
  type SynthesisSettings,
  SynthesisSettingsSchema,
  WarningSchema,
} from "./gen/wavegate/speech/v1/types_pb.js";
import { BaseSession, type Input, type OwnEvent, type SessionOptions } from "./session.js";
import { message, type UpdateOptions } from "./settings.js";
import { durationFromMs, orAborted } from "./time.js";

/**
 * Audio that may lie unread in this process before reading stops: 1.4 s of the default format. What is not read waits
 * in the gateway, which can still drop it when the listener interrupts.
 */
const BUFFER_LIMIT_BYTES = 64 * 1024;

const REMEMBERED_UTTERANCES = 256;

/** What a synthesis session says: the contract's events, and the client's own. */
export type SynthesisEvent = Exclude<SynthesizeStreamResponse["event"], { case: undefined }> | OwnEvent;

/** Text as it comes: a whole text, or the pieces of one. */
export type Text = string | AsyncIterable<string> | Iterable<string>;

/** What is said when a synthesis session is opened, beside its settings. */
export interface SynthesisOptions extends SessionOptions {
  /** The audio wanted; 16-bit samples at 24000 Hz where it is not given. */
  readonly audioFormat?: MessageInitShape<typeof AudioFormatSchema> | undefined;
  /**
   * How much audio may be sent ahead of real time, in milliseconds. Without it audio comes as fast as it is read.
   */
  readonly maxAudioLeadMs?: number | undefined;
}

/** What may go with a text. */
export interface SayOptions extends WaitOptions {
  /** An id of the caller's own; one is made where there is none. */
  readonly utteranceId?: string | undefined;
}

/** What may go with a piece of text. */
export interface SendTextOptions extends SayOptions {
  /** Whether this is the last text of the utterance. */
  readonly endUtterance?: boolean | undefined;
}

/** What may go with a cancel. */
export interface CancelOptions extends WaitOptions {
  /** How much the listener has heard of the utterance, in milliseconds; it decides what `spokenText` says. */
  readonly playbackOffsetMs?: number | undefined;
}

type Outcome = Extract<SynthesisEvent, { case: "utteranceCompleted" | "utteranceCancelled" | "utteranceFailed" }>;

/** How an utterance ended that did not fail. */
export type UtteranceEnd =
  | { readonly case: "utteranceCompleted"; readonly value: UtteranceCompleted }
  | { readonly case: "utteranceCancelled"; readonly value: UtteranceCancelled };

/** What the session keeps of an utterance. */
interface UtteranceState {
  cancelled: boolean;
  outcome: Outcome | undefined;
  /** Sends the text of an iterator; aborted to stop it. */
  text: { readonly abort: AbortController; readonly done: Promise<void> } | undefined;
  textError: { readonly error: unknown } | undefined;
  /** Its last event has been taken out of the session's buffer. */
  consumed: boolean;
  started: boolean;
  heard: boolean;
  /** Playing time of its audio so far. */
  heardMs: number;
  /** Which of the gateway's sessions has its text; none while nothing is sent. */
  sessionNumber: number | undefined;
}

/** A piece of speech that is being made, as `SynthesisSession.say` gives it. */
export class Utterance {
  /** Its id. */
  readonly utteranceId: string;
  /** @internal */
  readonly state: UtteranceState = {
    cancelled: false,
    outcome: undefined,
    text: undefined,
    textError: undefined,
    consumed: false,
    started: false,
    heard: false,
    heardMs: 0,
    sessionNumber: undefined,
  };
  readonly #session: SynthesisSession;

  /** @internal */
  constructor(session: SynthesisSession, utteranceId: string) {
    this.#session = session;
    this.utteranceId = utteranceId;
  }

  /** Whether this side has cancelled it. The gateway's word on it comes from `wait`. */
  get cancelled(): boolean {
    return this.state.cancelled;
  }

  /** How it ended; undefined while it is being made. */
  get outcome(): UtteranceEnd | { readonly case: "utteranceFailed"; readonly value: UtteranceFailed } | undefined {
    return this.state.outcome;
  }

  /**
   * The audio as it comes, to the end of the utterance; ends at once when it is cancelled.
   *
   * Events of other kinds, and audio of utterances before this one, are passed over: one consumer at a time. Throws the
   * utterance's failure, the session's, or what the iterator of its text threw.
   */
  async *audio(options: WaitOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    while (!this.state.consumed) {
      const event = await this.#session.nextFor(this, options.signal);
      if (event === undefined) {
        break;
      }
      if (event.case === "audio" && event.value.utteranceId === this.utteranceId) {
        yield event.value.audio;
      }
    }
    this.#throwIfFailed();
  }

  /** As `audio`. */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, void, undefined> {
    return this.audio();
  }

  /** Its audio as a web stream, read as it is wanted. Cancelling the stream cancels the utterance. */
  audioStream(): ReadableStream<Uint8Array> {
    const audio = this.audio();
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          const { done, value } = await audio.next();
          if (done === true) {
            controller.close();
          } else {
            controller.enqueue(value);
          }
        },
        cancel: async () => {
          await this.cancel();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** All of its audio in one piece. Throws as `audio` does. */
  async read(options: WaitOptions = {}): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.audio(options)) {
      chunks.push(chunk);
    }
    return concatenated(chunks);
  }

  /**
   * Waits for the end of the utterance; its audio waits meanwhile for whoever reads it.
   *
   * Throws the utterance's failure, the session's, or what the iterator of its text threw.
   */
  async wait(options: WaitOptions = {}): Promise<UtteranceEnd> {
    const outcome = await this.#session.outcomeOf(this, options.signal);
    this.#throwIfFailed();
    if (outcome.case === "utteranceFailed") {
      throw failureOf(outcome.value);
    }
    return outcome;
  }

  /** Barge-in, of this utterance alone; see `SynthesisSession.cancel`. Where it is over already, nothing is done. */
  async cancel(options: CancelOptions = {}): Promise<void> {
    if (!this.#session.isOver && this.state.outcome === undefined) {
      await this.#session.cancel(this.utteranceId, options);
    }
  }

  #throwIfFailed(): void {
    const { textError, outcome } = this.state;
    if (textError !== undefined) {
      this.#session.seen(this.utteranceId);
      throw textError.error;
    }
    if (outcome?.case === "utteranceFailed") {
      throw failureOf(outcome.value);
    }
  }
}

function failureOf(failed: UtteranceFailed): WavegateError {
  return failed.error === undefined
    ? new WavegateError("the utterance failed without a reason")
    : errorFromStatus(failed.error);
}

/**
 * A session of speech synthesis; `Client.synthesize` opens it.
 *
 * Sending and reading may go on side by side. Every text carries its utterance's id, so that a late piece of a cancelled
 * utterance is never spoken.
 *
 * A session whose gateway shuts down moves to another one between two utterances: the one that is being heard is
 * finished where it is, those behind it are spoken by the other gateway. One that its gateway cannot finish in its time
 * ends with `utteranceFailed`.
 */
export class SynthesisSession extends BaseSession<
  typeof SynthesizeStreamRequestSchema,
  (typeof SynthesisService.method.synthesizeStream)["output"],
  SynthesisEvent
> {
  /** @internal */
  protected readonly method = SynthesisService.method.synthesizeStream;
  /** @internal */
  protected readonly settingsSchema = SynthesisSettingsSchema;
  /** @internal */
  protected readonly startSchema = StartSynthesisSchema;
  /** @internal */
  protected readonly startMessage: StartSynthesis;
  readonly #utterances = new Map<string, Utterance>();
  #openId: string | undefined;
  // Ids of our own never meet the caller's, nor those of a session that this one continues.
  readonly #prefix = randomBytes(4).toString("hex");
  #lastId = 0;
  /** One utterance's text at a time: the next one's would end it. */
  #textQueue: Promise<void> = Promise.resolve();
  #textsUnderWay = 0;
  readonly #unseenTextErrors = new Map<string, unknown>();

  /** @internal */
  constructor(
    channels: Channels,
    settings: MessageInitShape<typeof SynthesisSettingsSchema>,
    options: SynthesisOptions,
  ) {
    super(channels, options, BUFFER_LIMIT_BYTES);
    const { resumeWindowMs = 30_000, maxAudioLeadMs } = options;
    this.startMessage = message(StartSynthesisSchema, {
      settings: message(SynthesisSettingsSchema, settings),
      ...(options.audioFormat === undefined ? {} : { audioFormat: options.audioFormat }),
      clientSessionId: options.clientSessionId ?? "",
      labels: { ...options.labels },
      ...(resumeWindowMs > 0 ? { resumeWindow: durationFromMs(resumeWindowMs) } : {}),
      ...(maxAudioLeadMs === undefined ? {} : { maxAudioLead: durationFromMs(maxAudioLeadMs) }),
    });
  }

  // --- text ------------------------------------------------------------------------------------

  /**
   * Speaks one utterance, after those before it.
   *
   * A string is sent whole, and the promise resolves once it has gone. An iterator, such as a language model's tokens, is
   * read by the session as its pieces come; the handle is there at once, and `Utterance.cancel` stops the iterator (its
   * `return` is called). What is said meanwhile waits until the iterator has ended. What the iterator throws cancels the
   * utterance and comes out of the handle, or of `close` if nobody asked. Throws a `TypeError` for the id of an utterance
   * that is over.
   */
  async say(text: Text, options: SayOptions = {}): Promise<Utterance> {
    checkText(text);
    this.checkOpen();
    const utterance = this.#unspoken(options.utteranceId);
    if (typeof text === "string" && this.#textsUnderWay === 0) {
      await this.#inTurn(() => this.#sendAll(utterance, text, undefined), options.signal);
    } else {
      const abort = new AbortController();
      const done = this.#sendLater(utterance, text, abort.signal);
      utterance.state.text = { abort, done };
    }
    return utterance;
  }

  /**
   * Sends a piece of text: of the named utterance, else of the open one, else of a new one.
   *
   * A new id ends the utterance before it. Pieces are joined as they are, without a blank between them. A lone surrogate,
   * which UTF-8 cannot carry, is sent as U+FFFD.
   */
  async sendText(text: string, options: SendTextOptions = {}): Promise<Utterance> {
    if (typeof text !== "string") {
      throw new TypeError(`a text is a string, not ${typeof text}`);
    }
    this.checkOpen();
    const utterance = this.#utterance(options.utteranceId ?? this.#openId);
    const { state, utteranceId } = utterance;
    if (isOver(utterance) && state.sessionNumber !== this.moves) {
      // The gateway's session of now has never heard that it is over, and would speak it.
      const value = create(WarningSchema, {
        reason: "STALE_TEXT",
        message: "text for an utterance that is over was dropped",
        utteranceId,
      });
      this.deliver({ case: "warning", value });
      this.notify();
      return utterance;
    }
    state.sessionNumber ??= this.moves;
    const endUtterance = options.endUtterance ?? false;
    this.#openId = endUtterance ? undefined : utteranceId;
    const limit = this.started.limits?.maxTextMessageChars ?? 0;
    const texts = split(text.toWellFormed(), limit);
    const sent = texts.map((piece, index) =>
      this.send(
        {
          case: "text",
          value: create(TextInputSchema, {
            text: piece,
            utteranceId,
            endUtterance: endUtterance && index === texts.length - 1,
          }),
        },
        options.signal,
      ),
    );
    await Promise.all(sent);
    return utterance;
  }

  /** Speaks now what is buffered of the utterance (without an id: the open one), and keeps it open. */
  async flush(utteranceId?: string, options: WaitOptions = {}): Promise<void> {
    const value = create(FlushSchema, { utteranceId: utteranceId ?? this.#openId ?? "" });
    await this.send({ case: "flush", value }, options.signal);
  }

  /** No more text for the utterance (without an id: the open one). */
  async endUtterance(utteranceId?: string, options: WaitOptions = {}): Promise<void> {
    const ended = utteranceId ?? this.#openId ?? "";
    if (ended === this.#openId) {
      this.#openId = undefined;
    }
    const value = create(EndUtteranceSchema, { utteranceId: ended });
    await this.send({ case: "endUtterance", value }, options.signal);
  }

  /** Says that no text follows, once every iterator handed to `say` has ended. All of it is still spoken. */
  override async end(options: WaitOptions = {}): Promise<void> {
    for (let tasks = this.#textTasks(); tasks.length > 0; tasks = this.#textTasks()) {
      await orAborted(Promise.all(tasks), options.signal);
    }
    await super.end(options);
  }

  /** Ends the session now: what is not spoken yet is dropped. `sessionEnded` still follows. */
  override async discard(options: WaitOptions = {}): Promise<void> {
    this.#stopText();
    await super.discard(options);
  }

  /**
   * Finishes the session: waits for every iterator handed to `say`, and until all of it is spoken; throws the session's
   * failure, or what such an iterator threw, if nothing has thrown it before. Audio that is not read yet is thrown away.
   * Closing twice does nothing more.
   */
  override async close(options: WaitOptions = {}): Promise<void> {
    await super.close(options);
    const unseen = [...this.#unseenTextErrors.values()];
    this.#unseenTextErrors.clear();
    if (unseen.length > 0) {
      throw unseen[0];
    }
  }

  /**
   * Leaves a scope of `await using`: finishes what was said, as `close`, but does not wait for iterators that have not
   * ended: the scope may have been left by an exception, and what they wait for may never come. They are stopped, and
   * their utterances cancelled. Whoever wants out at once calls `abort`, or opens the session with a `signal`.
   */
  override async [Symbol.asyncDispose](): Promise<void> {
    for (const utterance of this.#utterances.values()) {
      if (utterance.state.text !== undefined) {
        await utterance.cancel().catch(() => undefined); // `close` says what is wrong with the session
      }
    }
    await this.close();
  }

  // --- barge-in --------------------------------------------------------------------------------

  /**
   * Barge-in: stops the utterance, or without an id every one that is not complete, and keeps the session.
   *
   * From the call on no audio of it is delivered: what is buffered here is dropped, and what arrives late too. Resolves
   * when the request is sent; `utteranceCancelled`, or `Utterance.wait`, tells what was spoken. Cancelling twice does no
   * harm.
   */
  async cancel(utteranceId?: string, options: CancelOptions = {}): Promise<void> {
    this.checkOpen();
    const meant = [...this.#utterances.values()].filter(
      (utterance) =>
        utterance.state.outcome === undefined && (utteranceId === undefined || utterance.utteranceId === utteranceId),
    );
    for (const utterance of meant) {
      const { state } = utterance;
      state.cancelled = true;
      state.text?.abort.abort();
      if (state.sessionNumber === undefined) {
        this.#deliverNoted(neverSent(utterance.utteranceId));
      }
    }
    const [first] = meant;
    if (utteranceId !== undefined && first !== undefined && first.state.sessionNumber === undefined) {
      return;
    }
    if (utteranceId === undefined || utteranceId === this.#openId) {
      this.#openId = undefined;
    }
    this.drop(
      (event) =>
        (event.case === "audio" || event.case === "wordTimings") &&
        (utteranceId === undefined || event.value.utteranceId === utteranceId),
    );
    this.notify(); // whoever waits for audio of it has waited long enough
    const { playbackOffsetMs } = options;
    const value = create(CancelUtteranceSchema, {
      utteranceId: utteranceId ?? "",
      ...(playbackOffsetMs === undefined ? {} : { playbackOffset: durationFromMs(playbackOffsetMs) }),
    });
    await this.send({ case: "cancel", value }, options.signal);
  }

  /** Tells how much of an utterance has been played, in milliseconds, for metrics and for exact cancels. */
  async reportPlayback(utteranceId: string, playbackOffsetMs: number, options: WaitOptions = {}): Promise<void> {
    const value = create(PlaybackReportSchema, { utteranceId, playbackOffset: durationFromMs(playbackOffsetMs) });
    await this.send({ case: "playback", value }, options.signal);
  }

  // --- settings --------------------------------------------------------------------------------

  /** The settings in force, as far as acks have told; changes from outside included. */
  get settings(): SynthesisSettings {
    const settings = this.settingsMessage?.settings;
    return settings?.case === "synthesis" ? settings.value : create(SynthesisSettingsSchema);
  }

  /**
   * Changes settings from here on in the text; resolves once that is applied, superseded or validated.
   *
   * Settings not named stay; `reset` names those to put back to their defaults. Utterances that start later use them, with
   * `apply: "IMMEDIATE"` the rest of the open one too. Throws what the gateway says against it, and then nothing has
   * changed.
   */
  async updateSettings(
    settings: MessageInitShape<typeof SynthesisSettingsSchema>,
    options: UpdateOptions = {},
  ): Promise<SettingsAck> {
    const wanted = message(SynthesisSettingsSchema, settings);
    return this.update((fields) => create(UpdateSynthesisSettingsSchema, { ...fields, settings: wanted }), options);
  }

  // --- audio -----------------------------------------------------------------------------------

  /**
   * The audio of all utterances, to the end of the session; other events are passed over.
   *
   * Throws an utterance's failure; another `audio` goes on behind it. One consumer at a time.
   */
  async *audio(options: WaitOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const event of this.events(options)) {
      if (event.case === "audio") {
        yield event.value.audio;
      } else if (event.case === "utteranceFailed") {
        throw failureOf(event.value);
      }
    }
  }

  // --- inside ----------------------------------------------------------------------------------

  /** @internal */
  get isOver(): boolean {
    return this.finished || this.inputEnded;
  }

  /** The next event, or undefined when nothing more of the utterance can come. @internal */
  async nextFor(utterance: Utterance, signal?: AbortSignal): Promise<SynthesisEvent | undefined> {
    while (this.buffer.length === 0 && !this.finished && !utterance.state.cancelled) {
      await this.changed(signal);
    }
    signal?.throwIfAborted();
    return utterance.state.cancelled ? undefined : this.take();
  }

  /** @internal */
  outcomeOf(utterance: Utterance, signal?: AbortSignal): Promise<Outcome> {
    return this.until(() => utterance.state.outcome, signal);
  }

  /** Somebody has been told what the iterator of an utterance threw. @internal */
  seen(utteranceId: string): void {
    this.#unseenTextErrors.delete(utteranceId);
  }

  #utterance(utteranceId: string | undefined): Utterance {
    const id = utteranceId ?? `${this.#prefix}-${String(++this.#lastId)}`;
    let utterance = this.#utterances.get(id);
    if (utterance === undefined) {
      this.#forgetOldUtterances();
      utterance = new Utterance(this, id);
      this.#utterances.set(id, utterance);
    }
    return utterance;
  }

  #unspoken(utteranceId: string | undefined): Utterance {
    const utterance = this.#utterance(utteranceId);
    if (isOver(utterance)) {
      throw new TypeError(`utterance "${utterance.utteranceId}" is over; what is new needs an id of its own, or none`);
    }
    return utterance;
  }

  #forgetOldUtterances(): void {
    // The ended ones are kept for a while: late text must find that its utterance is over.
    let excess = this.#utterances.size - REMEMBERED_UTTERANCES;
    if (excess <= 0) {
      return;
    }
    for (const [utteranceId, { state }] of this.#utterances) {
      if (state.outcome !== undefined && excess-- > 0) {
        this.#utterances.delete(utteranceId);
      }
    }
  }

  #textTasks(): Promise<void>[] {
    return [...this.#utterances.values()].flatMap(({ state }) => (state.text === undefined ? [] : [state.text.done]));
  }

  #stopText(): void {
    for (const { state } of this.#utterances.values()) {
      state.text?.abort.abort();
    }
  }

  /** Runs work behind all that was said before. */
  async #inTurn(work: () => Promise<void>, signal?: AbortSignal): Promise<void> {
    const before = this.#textQueue;
    this.#textsUnderWay++;
    const mine = (async (): Promise<void> => {
      await before;
      await work();
    })();
    this.#textQueue = mine.then(
      () => undefined,
      () => undefined,
    );
    void this.#textQueue.then(() => {
      this.#textsUnderWay--;
    });
    await orAborted(mine, signal);
  }

  /** Never rejects. */
  async #sendLater(utterance: Utterance, text: Text, signal: AbortSignal): Promise<void> {
    const { state, utteranceId } = utterance;
    try {
      await this.#inTurn(() => this.#sendAll(utterance, text, signal));
    } catch (error) {
      if (!(error instanceof CallersError)) {
        return; // the session's own failure: whoever waits for the session hears of it
      }
      state.textError = { error: error.cause };
      this.#unseenTextErrors.set(utteranceId, error.cause);
      if (!this.isOver) {
        await this.cancel(utteranceId).catch(() => undefined);
      }
    } finally {
      state.text = undefined;
    }
  }

  async #sendAll(utterance: Utterance, text: Text, signal: AbortSignal | undefined): Promise<void> {
    const { utteranceId } = utterance;
    let begun = false;
    let whole = "";
    if (typeof text === "string") {
      whole = text;
    } else {
      let carried = "";
      for await (const piece of untilAborted(text, signal)) {
        if (isOver(utterance)) {
          return;
        }
        // A pair of surrogates that was cut between two pieces is one character.
        const joined = carried + piece;
        const isCut = /[\ud800-\udbff]$/.test(joined);
        carried = isCut ? joined.slice(-1) : "";
        const sent = isCut ? joined.slice(0, -1) : joined;
        if (sent !== "") {
          begun = true;
          await this.sendText(sent, { utteranceId });
        }
      }
      if (signal?.aborted) {
        return;
      }
      if (carried !== "" && !isOver(utterance)) {
        begun = true;
        await this.sendText(carried, { utteranceId });
      }
    }
    if (isOver(utterance)) {
      return;
    }
    if (begun) {
      await this.endUtterance(utteranceId);
    } else {
      // A whole text in one message; none at all ends like any other.
      await this.sendText(whole, { utteranceId, endUtterance: true });
    }
  }

  /** @internal */
  protected override finish(failure: WavegateError | undefined): void {
    super.finish(failure);
    this.#stopText();
  }

  /** @internal */
  protected override async stopWork(): Promise<void> {
    this.#stopText();
    await Promise.all(this.#textTasks());
  }

  #deliverNoted(event: SynthesisEvent): void {
    const seen = this.note(event);
    if (seen !== undefined) {
      this.deliver(seen);
    }
    this.notify();
  }

  /** @internal */
  protected override take(): SynthesisEvent | undefined {
    const event = super.take();
    if (event !== undefined && isOutcome(event)) {
      const utterance = this.#utterances.get(event.value.utteranceId);
      if (utterance !== undefined) {
        utterance.state.consumed = true;
      }
    }
    return event;
  }

  /** @internal */
  protected note(event: SynthesisEvent): SynthesisEvent | undefined {
    switch (event.case) {
      case "utteranceCompleted":
      case "utteranceCancelled":
      case "utteranceFailed": {
        const state = this.#utterances.get(event.value.utteranceId)?.state;
        if (state === undefined) {
          return event;
        }
        const isUnheard = !(state.heard || state.cancelled);
        if (event.case === "utteranceFailed" && isUnheard && failureOf(event.value).reason === "GATEWAY_DRAINING") {
          return undefined; // it is spoken elsewhere
        }
        this.settle(event.value.utteranceId);
        state.outcome = event;
        state.text?.abort.abort(); // a failed utterance takes no more text
        return event;
      }
      case "audio":
      case "wordTimings": {
        const state = this.#utterances.get(event.value.utteranceId)?.state;
        if (state === undefined) {
          return event;
        }
        state.heard = true;
        if (event.case === "audio") {
          state.heardMs = msOf(event.value) + this.#playingMs(event.value.audio);
        }
        return state.cancelled ? undefined : event;
      }
      case "utteranceStarted": {
        const state = this.#utterances.get(event.value.utteranceId)?.state;
        const isRepeated = state?.started ?? false;
        if (state !== undefined) {
          state.started = true;
        }
        return isRepeated ? undefined : event;
      }
      default:
        return event;
    }
  }

  // --- moving ----------------------------------------------------------------------------------

  /** @internal */
  protected keep(input: Input): void {
    const { utteranceId } = input.value as { utteranceId?: string };
    const utterance = this.#utterances.get(utteranceId ?? "");
    if (utterance === undefined || utterance.state.outcome !== undefined) {
      return;
    }
    const key = utterance.utteranceId;
    const isMore = input.case === "flush" || input.case === "endUtterance";
    if (input.case === "text" || (isMore && this.unfinished.some((item) => item.key === key))) {
      this.unfinished.push({ key, input, start: 0, end: 0 });
    }
  }

  /** What was sent and has not ended, in order. */
  #pending(): Utterance[] {
    const ids = new Set(this.unfinished.filter((item) => item.input.case === "text").map((item) => item.key));
    return [...ids].flatMap((id) => this.#utterances.get(id) ?? []);
  }

  /** @internal */
  protected isIdle(): boolean {
    return !this.#pending().some(({ state }) => state.heard || state.cancelled);
  }

  /** @internal */
  protected isMovable(): boolean {
    return true;
  }

  /** @internal */
  protected startElsewhere(): StartSynthesis {
    const start = clone(StartSynthesisSchema, this.startMessage);
    const settings = this.settingsMessage?.settings;
    if (settings?.case === "synthesis") {
      start.settings = settings.value;
    }
    return start;
  }

  /** @internal */
  protected carryOver(): number {
    for (const utterance of this.#pending()) {
      const { state, utteranceId } = utterance;
      state.sessionNumber = this.moves + 1;
      if (state.heard || state.cancelled) {
        // Its gateway is gone: it would have ended there.
        const { event, failure } = this.lastWords ?? {};
        const message = failure?.message ?? "the gateway has gone";
        const value = create(UtteranceFailedSchema, {
          utteranceId,
          error: event?.status ?? create(StatusSchema, { code: Code.Unavailable, message }),
          retryable: true,
          audioSentDuration: durationFromMs(state.heardMs),
        });
        this.#deliverNoted({ case: "utteranceFailed", value });
      }
    }
    return 0;
  }

  /** @internal */
  protected whatIsLost(): string {
    return this.#pending()
      .map(({ state, utteranceId }) =>
        state.heard ? `the rest of utterance ${utteranceId}` : `utterance ${utteranceId}`,
      )
      .join(", ");
  }

  #playingMs(content: Uint8Array): number {
    const { audioFormat } = this;
    if (sampleBytes(audioFormat) === undefined || audioFormat.sampleRateHertz === 0) {
      return 0;
    }
    return (content.length / bytesPerSecond(audioFormat)) * 1000;
  }

  /** @internal */
  protected makeRequest(sequence: bigint, input: Input): SynthesizeStreamRequest {
    return create(SynthesizeStreamRequestSchema, {
      inputSequence: sequence,
      input: input as SynthesizeStreamRequest["input"],
    });
  }

  /** @internal */
  protected startToResume(sessionId: string, lastReceived: bigint): StartSynthesis {
    return create(StartSynthesisSchema, { resumeSessionId: sessionId, lastReceivedSequence: lastReceived });
  }

  /** @internal */
  protected override sizeBytes(event: SynthesisEvent): number {
    return event.case === "audio" ? event.value.audio.length : 0;
  }
}

function isOutcome(event: SynthesisEvent): event is Outcome {
  return (
    event.case === "utteranceCompleted" || event.case === "utteranceCancelled" || event.case === "utteranceFailed"
  );
}

function isOver({ state }: Utterance): boolean {
  return state.cancelled || state.outcome !== undefined;
}

function msOf(chunk: AudioChunk): number {
  const { startOffset } = chunk;
  return startOffset === undefined ? 0 : Number(startOffset.seconds) * 1000 + startOffset.nanos / 1e6;
}

/** The end of an utterance of which the gateway has never heard. */
function neverSent(utteranceId: string): SynthesisEvent {
  const value = create(UtteranceCancelledSchema, { utteranceId, method: UtteranceCancelled_Method.NOT_SENT });
  return { case: "utteranceCancelled", value };
}

function checkText(text: unknown): asserts text is Text {
  const isIterable =
    typeof text === "object" && text !== null && (Symbol.asyncIterator in text || Symbol.iterator in text);
  if (typeof text !== "string" && !isIterable) {
    throw new TypeError(`a text is a string or an iterable of strings, not ${typeof text}`);
  }
}

/** What the caller's own iterator threw. */
class CallersError extends Error {}

/** The items in order, until the signal is aborted: then the source is told to stop, and not waited for. */
async function* untilAborted(
  source: AsyncIterable<string> | Iterable<string>,
  signal: AbortSignal | undefined,
): AsyncGenerator<string, void, undefined> {
  let iterator: AsyncIterator<string> | Iterator<string>;
  let isDone = false;
  try {
    iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  } catch (cause) {
    throw new CallersError("the iterator failed", { cause });
  }
  try {
    for (;;) {
      let result: IteratorResult<string>;
      try {
        result = await orAborted(Promise.resolve(iterator.next()), signal);
      } catch (cause) {
        isDone = !signal?.aborted;
        if (signal?.aborted) {
          return;
        }
        throw new CallersError("the iterator failed", { cause });
      }
      if (result.done === true) {
        isDone = true;
        return;
      }
      if (typeof result.value !== "string") {
        throw new CallersError("the iterator failed", {
          cause: new TypeError(`a piece of text is a string, not ${typeof result.value}`),
        });
      }
      yield result.value;
    }
  } finally {
    if (!isDone) {
      // A generator that is waiting itself ends only when that wait does.
      void (async (): Promise<void> => {
        await iterator.return?.();
      })().catch(() => undefined);
    }
  }
}

/** The text in pieces of at most `limit` code points (0: no limit), cut behind a blank where there is one. */
function split(text: string, limit: number): string[] {
  if (limit === 0 || text.length <= limit) {
    return [text];
  }
  let rest = Array.from(text);
  const texts: string[] = [];
  while (rest.length > limit) {
    const blank = rest.lastIndexOf(" ", limit - 1);
    const cut = blank > 0 ? blank + 1 : limit;
    texts.push(rest.slice(0, cut).join(""));
    rest = rest.slice(cut);
  }
  return [...texts, rest.join("")];
}
