import { create, type DescMessage, type DescMethodBiDiStreaming, equals, type MessageShape } from "@bufbuild/protobuf";
import type { Channel, Channels } from "./channel.js";
import { Duplex, type WaitOptions } from "./duplex.js";
import { connectionLost, errorFromStatus, isRefused, isUnavailable, sessionClosed, WavegateError } from "./errors.js";
import {
  CloseSessionRequestSchema,
  SessionService,
} from "./gen/wavegate/speech/v1/session_service_pb.js";
import {
  type AudioFormat,
  AudioFormatSchema,
  type EffectiveSettings,
  type EndSession,
  EndSessionSchema,
  type GoAway,
  type SessionEnded,
  SessionEnded_Reason,
  type SessionStarted,
  type SettingsAck,
  SettingsAck_State,
} from "./gen/wavegate/speech/v1/types_pb.js";
import { Line } from "./line.js";
import { checkAck, updateFields, type UpdateOptions } from "./settings.js";
import { type Deferred, deferred, msFromDuration, nowMs, orAborted, Scope, sleep } from "./time.js";

/** How long a session outlives the loss of its call, unless the caller says otherwise or the gateway grants less. */
export const RESUME_WINDOW_MS = 30_000;
/** How long opening a session may take, unless the caller says otherwise. */
export const OPEN_TIMEOUT_MS = 30_000;
/** Input that is taken while there is no call: half a minute of 16-bit samples at 16000 Hz. Then senders wait. */
const KEPT_BYTES = 1024 * 1024;
/** How long to wait before asking again where every gateway that answered shuts down. */
const DRAINING_DELAYS_MS = [100, 300, 1_000] as const;
/** How long a session that was told to go away looks for another gateway, beyond the time that it was given. */
const MOVE_PATIENCE_MS = 30_000;
/** How long one try for that may take. */
const OPEN_ELSEWHERE_MS = 5_000;
/** How long a lost call is tried again where another session is about to take over anyway. */
const MOVING_RESUME_MS = 2_000;
/** How long one try to resume may take. */
const RESUME_TRY_MS = 5_000;
/** For ending a session from outside, where its own call does not let us. */
const CLOSE_TIMEOUT_MS = 1_000;
/** What an input takes beside its content, about. */
const INPUT_OVERHEAD_BYTES = 64;

/** A lost call was taken up again. Nothing is lost, nothing comes twice. */
export interface SessionResumed {
  /** The session, which is the same as before. */
  readonly sessionId: string;
  /** How long there was no call, in milliseconds. */
  readonly outageMs: number;
  /** How many tries it took. */
  readonly attempts: number;
  /** How the call was lost. */
  readonly cause: WavegateError;
}

/** The gateway shut down, and another session goes on where this one stood. */
export interface SessionMoved {
  /** The new session's first answer. */
  readonly sessionStarted: SessionStarted;
  /** What the session was called before. */
  readonly previousSessionId: string;
  /** Where the session is now. */
  readonly target: string;
  /** How much audio could not be sent again, in milliseconds of playing time. */
  readonly lostAudioMs: number;
}

/** What the client adds to the gateway's own events. */
export type OwnEvent =
  | { readonly case: "sessionResumed"; readonly value: SessionResumed }
  | { readonly case: "sessionMoved"; readonly value: SessionMoved };

/** What is said when a session is opened, beside its settings. */
export interface SessionOptions {
  /** An id of the caller's own, sent upstream for correlation. */
  readonly clientSessionId?: string | undefined;
  /** Marks that show in `listSessions`. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /**
   * How long the session outlives the loss of its call, in milliseconds, as far as the gateway grants it: 30 000 where
   * it is not given. With 0 it ends with its call.
   */
  readonly resumeWindowMs?: number | undefined;
  /** Whether the session goes on elsewhere when its gateway shuts down; true where it is not given. */
  readonly move?: boolean | undefined;
  /**
   * How long opening may take, in milliseconds: 30 000 where it is not given, `Infinity` for as long as it takes. The
   * session itself has no deadline.
   */
  readonly openTimeoutMs?: number | undefined;
  /** Ends the session at once when it is aborted, also while it is being opened. */
  readonly signal?: AbortSignal | undefined;
}

/** An input of a session, by its name in the request. */
export interface Input {
  readonly case: string;
  readonly value: object;
}

/** An input that another session would need, until it has come to its end. */
export interface Unfinished {
  /** What it belongs to, such as an utterance. */
  readonly key: string;
  readonly input: Input;
  /** Where in the audio it begins, */
  readonly start: number;
  /** and ends. */
  readonly end: number;
}

/** What a session's response has to have. */
interface NumberedResponse {
  readonly sequence: bigint;
  readonly acknowledgedInputSequence: bigint;
  readonly event: { readonly case: string | undefined; readonly value?: unknown };
}

/** The events that every kind of session has. */
type CommonEvent =
  | { readonly case: "sessionStarted"; readonly value: SessionStarted }
  | { readonly case: "settingsAck"; readonly value: SettingsAck }
  | { readonly case: "goAway"; readonly value: GoAway }
  | { readonly case: "sessionEnded"; readonly value: SessionEnded };

/**
 * Numbers a session's input, and keeps what the gateway has not acknowledged yet.
 *
 * Only a session that may be resumed needs the latter, and the gateway says in its first answer whether it may.
 */
class InputLog<Req> {
  lastSequence = 0n;
  keptBytes = 0;
  #kept: { readonly sequence: bigint; readonly request: Req; readonly bytes: number }[] | undefined = [];

  /** The start has number 1, and is never sent again: who resumes sends another one. */
  countStart(): void {
    this.lastSequence = 1n;
  }

  add(make: (sequence: bigint) => Req, bytes: number): Req {
    const sequence = this.lastSequence + 1n;
    const request = make(sequence);
    this.lastSequence = sequence;
    if (this.#kept !== undefined) {
      this.keptBytes += bytes;
      this.#kept.push({ sequence, request, bytes });
    }
    return request;
  }

  acknowledge(sequence: bigint): void {
    let count = 0;
    for (const entry of this.#kept ?? []) {
      if (entry.sequence > sequence) {
        break;
      }
      this.keptBytes -= entry.bytes;
      count++;
    }
    if (count > 0) {
      this.#kept?.splice(0, count);
    }
  }

  keepNothing(): void {
    this.#kept = undefined;
    this.keptBytes = 0;
  }

  get isKept(): boolean {
    return this.#kept !== undefined;
  }

  unacknowledged(): Req[] {
    return (this.#kept ?? []).map((entry) => entry.request);
  }
}

/** How long to wait before each try. */
function* retryDelaysMs(): Generator<number, never, undefined> {
  const spread = (ms: number): number => ms * (0.8 + 0.4 * Math.random()); // so that clients do not come all at once
  for (const ms of [0, 100, 300, 1000]) {
    yield spread(ms);
  }
  for (;;) {
    yield spread(2000);
  }
}

/** What is left of a session that nobody refers to any more: the call to end. It must not refer to the session. */
interface Remains {
  end: (() => void) | undefined;
}

const dropped = new FinalizationRegistry<Remains>((remains) => {
  remains.end?.();
});

/**
 * A session of either kind.
 *
 * A lost connection is made again within the granted resume window: what was sent arrives once, what was said is
 * delivered once, in order, with a `sessionResumed` in between. Meanwhile up to 1 MiB of input is taken. When it cannot
 * be resumed, the error of kind `CONNECTION_LOST` says what was lost. A gateway that shuts down is left for another one,
 * at a point where nothing is lost or repeated, with a `sessionMoved`; the session has another `sessionId` from there on.
 *
 * What is dropped without being closed is ended once it is collected; `close` it, or open it with `await using`.
 */
export abstract class BaseSession<
  I extends DescMessage,
  O extends DescMessage,
  Event extends { readonly case: string; readonly value: unknown },
> extends Duplex<I, O, Event> {
  /** How it ended, with its totals (since the last move); undefined until then. */
  ended: SessionEnded | undefined;
  /** The gateway's notice that it will shut down; undefined until then, and again once the session has moved. */
  goAway: GoAway | undefined;
  /** Counts the changes of settings, this session's own and others'; 1 at the start, and again after a move. */
  settingsRevision = 0n;

  /** @internal */
  protected unfinished: Unfinished[] = [];
  /** @internal */
  protected settingsMessage: EffectiveSettings | undefined;
  /** @internal */
  protected givenUp = false;
  /** @internal */
  protected moves = 0;
  /** What the gateway says of a session that is over before its work is done. @internal */
  protected lastWords: { readonly event?: SessionEnded | undefined; readonly failure?: WavegateError | undefined } | undefined;

  readonly #channels: Channels;
  readonly #options: SessionOptions;
  /** Asked for; then, what was granted. */
  #resumeWindowMs: number;
  #headers: Headers | undefined;
  readonly #openings = new Map<Line<I, O>, Deferred<MessageShape<O>>>();
  #log = new InputLog<MessageShape<I>>();
  #lastReceived = 0n;
  #started: SessionStarted | undefined;
  readonly #acks = new Map<string, SettingsAck | undefined>();
  #updateNumber = 0;
  // Survival.
  #resuming: AbortController | undefined;
  /** Since when nothing has come, over any number of calls, and when to try again. */
  #outage: { readonly sinceMs: number; readonly delaysMs: Iterator<number> } | undefined;
  #moving: AbortController | undefined;
  /** A session that is open elsewhere, and the start that it was opened with. */
  #successor: { readonly line: Line<I, O>; readonly response: MessageShape<O>; readonly start: object } | undefined;
  readonly #tasks = new Set<Promise<void>>();
  readonly #remains: Remains = { end: undefined };
  #closing: Promise<void> | undefined;
  #unlisten: (() => void) | undefined;

  /** @internal */
  protected constructor(channels: Channels, options: SessionOptions, bufferLimitBytes: number) {
    super(bufferLimitBytes);
    this.#channels = channels;
    this.#options = options;
    this.#resumeWindowMs = options.resumeWindowMs ?? RESUME_WINDOW_MS;
    dropped.register(this, this.#remains, this.#remains);
  }

  // --- what a kind of session says -------------------------------------------------------------

  /** @internal */
  protected abstract readonly method: DescMethodBiDiStreaming<I, O>;
  /** The start of the session, as the caller wants it. @internal */
  protected abstract readonly startMessage: object;
  /** @internal */
  protected abstract makeRequest(sequence: bigint, input: Input): MessageShape<I>;
  /** @internal */
  protected abstract startToResume(sessionId: string, lastReceived: bigint): object;
  /** Takes note of an event of this kind of session; gives what the caller shall see of it. @internal */
  protected abstract note(event: Event): Event | undefined;
  /** Puts an input among the unfinished, if another session would need it. @internal */
  protected abstract keep(input: Input): void;
  /** Whether another session can go on from here. @internal */
  protected abstract isIdle(): boolean;
  /** Whether it can at all. @internal */
  protected abstract isMovable(): boolean;
  /** The start of a session that goes on where this one stands. @internal */
  protected abstract startElsewhere(): object;
  /** Prepares the unfinished input for another session; how much audio is lost, in milliseconds. @internal */
  protected abstract carryOver(): number;
  /** What will not come where this session is lost; empty for nothing. @internal */
  protected abstract whatIsLost(): string;
  /** The schema of the settings of this kind. @internal */
  protected abstract readonly settingsSchema: DescMessage;
  /** The schema of the start of this kind. @internal */
  protected abstract readonly startSchema: DescMessage;

  /** @internal */
  protected canMove(): boolean {
    return (this.#options.move ?? true) && this.isMovable();
  }

  // --- beginning and end -----------------------------------------------------------------------

  /** Opens the session; resolves once the upstream has accepted it. @internal */
  async open(headers: Headers): Promise<void> {
    this.#headers = headers;
    const { signal } = this.#options;
    const openTimeoutMs = this.#options.openTimeoutMs ?? OPEN_TIMEOUT_MS;
    const scope = new Scope(signal, openTimeoutMs);
    try {
      const opened = await this.#openPatiently(this.startMessage, scope.signal);
      this.#log.countStart();
      const event = this.receive(opened.response);
      if (event !== undefined) {
        this.deliver(event);
      }
      this.#attach(opened.line);
    } catch (error) {
      await this.#stop();
      signal?.throwIfAborted();
      if (scope.timedOut) {
        throw new WavegateError(
          `the gateway at ${this.#channels.current.target} did not open the session in ${String(openTimeoutMs / 1000)} s`,
          { code: "DEADLINE_EXCEEDED" },
        );
      }
      throw error;
    } finally {
      scope.end();
    }
    this.#listenTo(signal);
  }

  #listenTo(signal: AbortSignal | undefined): void {
    if (signal === undefined) {
      return;
    }
    const self = new WeakRef(this);
    const onAbort = (): void => {
      void self.deref()?.abort();
    };
    if (signal.aborted) {
      onAbort();
    } else if (!this.finished) {
      signal.addEventListener("abort", onAbort, { once: true });
      this.#unlisten = () => {
        signal.removeEventListener("abort", onAbort);
      };
    }
  }

  /**
   * Finishes the session: ends the input, waits until the gateway has finished everything that was sent, and throws the
   * session's failure if nothing has thrown it before. What is not read yet is thrown away. Closing twice does nothing
   * more. With an aborted `signal` the session is ended at once.
   */
  close(options: WaitOptions = {}): Promise<void> {
    if (this.#closing !== undefined) {
      return this.#closing.catch(() => undefined);
    }
    this.#closing = this.#close(options.signal);
    return this.#closing;
  }

  async #close(signal: AbortSignal | undefined): Promise<void> {
    try {
      if (!this.finished && !this.inputEnded) {
        try {
          await this.end({ signal });
        } catch (error) {
          // It may have ended by itself meanwhile.
          if (!(error instanceof WavegateError && error.kind === "SESSION_CLOSED")) {
            throw error;
          }
        }
      }
      await this.drain(signal);
    } finally {
      await this.#stop();
    }
  }

  /** Ends the session at once, at the gateway too, whatever is under way. Never throws; doing it twice does no more. */
  async abort(): Promise<void> {
    await this.#stop();
  }

  /** Says that no input follows. What was sent is finished; the events go on until `sessionEnded`. */
  async end(options: WaitOptions = {}): Promise<void> {
    await this.send({ case: "endSession", value: create(EndSessionSchema) }, options.signal);
  }

  /** Ends the session now: what is not finished is dropped. `sessionEnded` still follows. */
  async discard(options: WaitOptions = {}): Promise<void> {
    await this.send({ case: "endSession", value: create(EndSessionSchema, { discard: true }) }, options.signal);
  }

  /** Leaves a scope of `await using`: as `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The gateway's first answer: limits, audio format, trace id. */
  get started(): SessionStarted {
    if (this.#started === undefined) {
      throw new TypeError("the session is not open yet");
    }
    return this.#started;
  }

  /** The audio format in force, every default filled in. */
  get audioFormat(): AudioFormat {
    return this.started.audioFormat ?? create(AudioFormatSchema);
  }

  /** What `settingsStream`, `getSession` and the gateway's logs call this session. */
  get sessionId(): string {
    return this.started.sessionId;
  }

  // --- events ----------------------------------------------------------------------------------

  /**
   * Every event in order, `sessionEnded` last; then the session's failure is thrown if there is one.
   *
   * One consumer at a time: two share the events between them. Leaving the loop keeps the rest for the next.
   */
  async *events(options: WaitOptions = {}): AsyncGenerator<Event, void, undefined> {
    for (let event = await this.next(options.signal); event !== undefined; event = await this.next(options.signal)) {
      yield event;
    }
  }

  /** As `events`. */
  [Symbol.asyncIterator](): AsyncIterator<Event, void, undefined> {
    return this.events();
  }

  /** @internal */
  override onResponse(line: Line<I, O>, response: MessageShape<O>): boolean {
    if (this.#openings.has(line)) {
      return this.#onOpening(line, response);
    }
    if (line !== this.line || (response as unknown as NumberedResponse).sequence <= this.#lastReceived) {
      return false;
    }
    const event = this.receive(response);
    if (event !== undefined) {
      this.deliver(event);
    }
    this.notify();
    if (this.#successor !== undefined && this.isIdle()) {
      this.#moveOver();
    }
    return this.ended !== undefined || this.lastWords?.event !== undefined;
  }

  /** @internal */
  protected override receive(message: MessageShape<O>): Event | undefined {
    const response = message as unknown as NumberedResponse;
    this.#lastReceived = response.sequence;
    this.#outage = undefined;
    this.#log.acknowledge(response.acknowledgedInputSequence);
    if (response.event.case === undefined) {
      return undefined; // of a newer gateway
    }
    const common = response.event as CommonEvent;
    switch (common.case) {
      case "sessionStarted":
        this.#started = common.value;
        this.#adopt(common.value);
        this.#resumeWindowMs = msFromDuration(common.value.limits?.resumeWindow);
        if (this.#resumeWindowMs === 0) {
          this.#log.keepNothing();
        }
        break;
      case "settingsAck":
        if (common.value.state === SettingsAck_State.APPLIED && common.value.settings !== undefined) {
          this.#adopt(common.value);
        }
        if (common.value.state !== SettingsAck_State.QUEUED) {
          this.settle(`update ${common.value.updateId}`);
          if (this.#acks.has(common.value.updateId)) {
            this.#acks.set(common.value.updateId, common.value);
          }
        }
        break;
      case "goAway":
        this.goAway = common.value;
        if (!common.value.resumable) {
          this.#beginMoving(msFromDuration(common.value.timeLeft));
        }
        break;
      case "sessionEnded":
        if (common.value.reason === SessionEnded_Reason.DRAIN && this.canMove()) {
          // Its time is up. What it has not brought to an end goes on elsewhere.
          this.lastWords = { event: common.value, failure: failureOf(common.value) };
          this.#beginMoving(0);
          return undefined;
        }
        this.ended = common.value;
        break;
    }
    return this.note(response.event as Event);
  }

  /** Takes note of the settings in force. */
  #adopt(message: SessionStarted | SettingsAck): void {
    this.settingsMessage = message.settings;
    this.settingsRevision = message.settingsRevision;
  }

  /** @internal */
  protected override finish(failure: WavegateError | undefined): void {
    this.#resuming?.abort();
    this.#moving?.abort();
    if (this.#successor !== undefined) {
      this.#spawn(this.#retire(this.#successor.line));
      this.#successor = undefined;
    }
    this.#unlisten?.();
    this.#remains.end = undefined;
    dropped.unregister(this.#remains);
    // What `session_ended` says counts: the call's own status is lost where the gateway ends it while we write.
    super.finish(this.ended === undefined ? failure : failureOf(this.ended));
  }

  // --- input -----------------------------------------------------------------------------------

  /** Sends one input; resolves once it has gone or, while there is no call, is kept. @internal */
  protected async send(input: Input, signal?: AbortSignal): Promise<void> {
    this.checkOpen();
    signal?.throwIfAborted();
    const { line } = this;
    if (line === undefined) {
      throw new TypeError("the session is not open yet");
    }
    const request = this.#log.add((sequence) => this.makeRequest(sequence, input), sizeOf(input));
    if (input.case === "endSession") {
      this.inputEnded = true;
      this.unfinished.push({ key: "end", input, start: 0, end: 0 });
    } else if (input.case === "updateSettings") {
      const { updateId } = input.value as { updateId: string };
      this.unfinished.push({ key: `update ${updateId}`, input, start: 0, end: 0 });
    } else {
      this.keep(input);
    }
    await this.taken(line, line.put(request), signal);
  }

  /** @internal */
  protected override isTaken(line: Line<I, O>, number: number): boolean {
    // What another call has to send again is in good hands as soon as there is one.
    const isKept = line.over && this.#log.keptBytes < KEPT_BYTES;
    return line.written >= number || line !== this.line || isKept;
  }

  /** What belongs to `key` has come to its end. @internal */
  protected settle(key: string): void {
    this.unfinished = this.unfinished.filter((item) => item.key !== key);
  }

  /** @internal */
  protected async update(make: (fields: ReturnType<typeof updateFields>) => object, options: UpdateOptions): Promise<SettingsAck> {
    const fields = updateFields(this.settingsSchema, options, `update-${String(++this.#updateNumber)}`);
    const { updateId } = fields;
    if (this.#acks.has(updateId)) {
      throw new TypeError(`update "${updateId}" of this session is still under way`);
    }
    const value = make(fields);
    this.#acks.set(updateId, undefined);
    try {
      await this.send({ case: "updateSettings", value }, options.signal);
      return checkAck(await this.until(() => this.#acks.get(updateId), options.signal));
    } finally {
      this.#acks.delete(updateId);
    }
  }

  // --- opening ---------------------------------------------------------------------------------

  /**
   * Opens a session on the first target that takes it; throws what the last one says against it.
   *
   * Where that is a gateway that shuts down, all are asked again a few times: a balancer may need a second until it leads
   * elsewhere.
   */
  async #openPatiently(start: object, signal: AbortSignal): Promise<{ line: Line<I, O>; response: MessageShape<O> }> {
    for (const delayMs of DRAINING_DELAYS_MS) {
      try {
        return await this.#openSomewhere(start, signal);
      } catch (error) {
        if (!isUnavailable(error) || error.reason !== "GATEWAY_DRAINING" || signal.aborted) {
          throw error;
        }
      }
      await this.#sleepUntilClosed(delayMs * (0.8 + 0.4 * Math.random()), signal); // not all at once
    }
    return this.#openSomewhere(start, signal);
  }

  /** Waits; rejects where the client is closed meanwhile, and with the signal's reason. */
  async #sleepUntilClosed(ms: number, signal: AbortSignal): Promise<void> {
    const scope = new Scope(signal);
    const work = {
      cancel: (): void => {
        scope.abort(sessionClosed("the client was closed"));
      },
    };
    this.#channels.work.add(work);
    try {
      await sleep(ms, scope.signal);
    } finally {
      this.#channels.work.delete(work);
      scope.end();
    }
  }

  /** Asks each target once; throws what the last one says against it. */
  async #openSomewhere(start: object, signal: AbortSignal): Promise<{ line: Line<I, O>; response: MessageShape<O> }> {
    const channels = this.#channels.candidates();
    let freshOnes = 0;
    for (;;) {
      const channel = channels.shift();
      if (channel === undefined) {
        throw new TypeError("there is no target");
      }
      try {
        const opened = await this.#open(channel, start, signal);
        this.#channels.prefer(channel);
        return opened;
      } catch (error) {
        if (!isUnavailable(error) || signal.aborted) {
          throw error;
        }
        if (error.reason === "GATEWAY_DRAINING") {
          const fresh = this.#channels.leave(channel);
          // Behind the same address there may be another process; one look is enough.
          if (fresh !== undefined && ++freshOnes <= this.#channels.candidates().length) {
            channels.push(fresh);
          }
        }
        if (channels.length === 0) {
          throw error;
        }
      }
    }
  }

  /** Opens a session. One whose call is lost before the upstream has accepted it is resumed. */
  async #open(
    channel: Channel,
    start: object,
    signal: AbortSignal,
  ): Promise<{ line: Line<I, O>; response: MessageShape<O> }> {
    let line = this.#begin(channel, start);
    try {
      try {
        return { line, response: await this.#opened(line, signal) };
      } catch (error) {
        if (!isRefused(error) || signal.aborted) {
          throw error;
        }
        line = this.#begin(channel, start);
        return { line, response: await this.#opened(line, signal) };
      }
    } catch (error) {
      const isLost = error instanceof WavegateError && error.kind === "CONNECTION_LOST";
      if (!isLost || line.sessionId === "" || this.#resumeWindowMs === 0 || signal.aborted) {
        throw error;
      }
      return this.#takeUp(line, line.sessionId, 0n, this.#resumeWindowMs, retryDelaysMs(), signal);
    }
  }

  /** Resumes a session; gives also how many tries it took. Throws what made the last one fail. */
  async #takeUp(
    lost: Line<I, O>,
    sessionId: string,
    lastReceived: bigint,
    windowMs: number,
    delaysMs: Iterator<number>,
    signal: AbortSignal,
  ): Promise<{ line: Line<I, O>; response: MessageShape<O>; attempts: number }> {
    const start = this.startToResume(sessionId, lastReceived);
    let failure = new WavegateError(`the gateway at ${lost.channel.target} does not answer`, { code: "UNAVAILABLE" });
    const scope = new Scope(signal, windowMs);
    const work = {
      cancel: (): void => {
        scope.abort(sessionClosed("the client was closed"));
      },
    };
    this.#channels.work.add(work);
    try {
      for (let attempts = 1; ; attempts++) {
        await sleep(Number(delaysMs.next().value), scope.signal);
        const line = this.#begin(lost.channel, start, lost);
        try {
          return { line, response: await this.#opened(line, scope.signal, RESUME_TRY_MS), attempts };
        } catch (error) {
          if (scope.signal.aborted) {
            throw error;
          }
          if (isUnavailable(error)) {
            failure = error;
          } else if (!(error instanceof NoAnswer)) {
            throw error;
          }
        }
      }
    } catch (error) {
      throw scope.timedOut ? failure : error;
    } finally {
      this.#channels.work.delete(work);
      scope.end();
    }
  }

  #begin(channel: Channel, start: object, lost?: Line<I, O>): Line<I, O> {
    const line = new Line<I, O>(this, channel, this.method, this.#headers ?? new Headers(), lost);
    line.pin(this);
    this.#openings.set(line, deferred());
    line.put(this.makeRequest(1n, { case: "start", value: start }));
    return line;
  }

  /**
   * Waits for the first answer; nothing more is read until the line is attached.
   *
   * Throws `NoAnswer` where none comes in time, and leaves the session to another call then.
   */
  async #opened(line: Line<I, O>, signal: AbortSignal, patienceMs?: number): Promise<MessageShape<O>> {
    const opening = this.#openings.get(line);
    const scope = new Scope(signal, patienceMs);
    try {
      if (opening === undefined) {
        throw new TypeError("the call is none that is being opened");
      }
      return await orAborted(opening.promise, scope.signal);
    } catch (error) {
      if (scope.timedOut) {
        this.#spawn(line.stop());
        throw new NoAnswer(line.channel.target);
      }
      this.#spawn(error instanceof WavegateError ? line.stop() : this.#retire(line));
      throw error;
    } finally {
      scope.end();
      this.#openings.delete(line);
      line.pin(undefined);
    }
  }

  #onOpening(line: Line<I, O>, message: MessageShape<O>): boolean {
    const opening = this.#openings.get(line);
    const { sequence, event } = message as unknown as NumberedResponse;
    if (opening === undefined || opening.settled) {
      return false;
    }
    if (event.case === "sessionEnded") {
      opening.reject(failureOf(event.value as SessionEnded) ?? sessionClosed("the session ended before it was open"));
      return true;
    }
    // Of a session that is resumed before it was open the first answer, number 0, says little.
    if (event.case === "sessionStarted" && sequence > 0n) {
      line.sessionId = (event.value as SessionStarted).sessionId;
      line.flow = false;
      opening.resolve(message);
    }
    return false;
  }

  #attach(line: Line<I, O>): void {
    this.line = line;
    this.#remember(line);
    this.updateFlow();
    this.notify();
    if (line.over) {
      this.onOver(line, line.failure);
    }
  }

  /** Notes what there is to end where nobody refers to this session any more. */
  #remember(line: Line<I, O>): void {
    const last = this.#discardRequest();
    const isKept = this.#resumeWindowMs > 0;
    this.#remains.end = () => void retire(line, last, isKept);
  }

  // --- surviving -------------------------------------------------------------------------------

  /** @internal */
  override onOver(line: Line<I, O>, failure: WavegateError | undefined): void {
    const why =
      failure === undefined && !line.cancelled
        ? connectionLost(
            `the gateway at ${line.channel.target} ended the call without a last word; open a new session`,
          )
        : failure;
    const opening = this.#openings.get(line);
    if (opening !== undefined) {
      if (!opening.settled) {
        opening.reject(why ?? sessionClosed("the client was closed"));
      }
    } else if (line !== this.line || this.finished) {
      return;
    } else if (this.ended !== undefined || line.cancelled) {
      this.finish(why);
    } else if (this.lastWords?.event !== undefined) {
      this.#giveUp(this.lastWords.event, this.lastWords.failure);
    } else if (why?.kind !== "CONNECTION_LOST") {
      this.finish(why);
    } else if (this.#log.isKept && !(this.#moving !== undefined && this.isIdle())) {
      this.#resuming = new AbortController();
      this.#spawn(this.#resume(line, why, this.#resuming.signal));
      this.notify(); // whose input was not written yet need not wait: the next call sends it again
    } else {
      this.#giveUp(undefined, this.#toldWhatIsLost(why, undefined));
    }
  }

  async #resume(lost: Line<I, O>, failure: WavegateError, signal: AbortSignal): Promise<void> {
    const beganMs = nowMs();
    this.#outage ??= { sinceMs: beganMs, delaysMs: retryDelaysMs() };
    const { sinceMs, delaysMs } = this.#outage;
    const windowMs = this.#moving === undefined ? this.#resumeWindowMs : MOVING_RESUME_MS;
    let taken: { line: Line<I, O>; response: MessageShape<O>; attempts: number };
    try {
      const leftMs = sinceMs + windowMs - beganMs;
      taken = await this.#takeUp(lost, this.sessionId, this.#lastReceived, leftMs, delaysMs, signal);
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      this.#resuming = undefined;
      const why = error instanceof WavegateError ? error : new WavegateError(String(error), { code: "INTERNAL" });
      this.#giveUp(undefined, this.#toldWhatIsLost(failure, why));
      return;
    }
    if (signal.aborted) {
      await this.#retire(taken.line);
      return;
    }
    this.#resuming = undefined;
    this.#spawn(lost.stop());
    const { event } = taken.response as unknown as NumberedResponse;
    this.#log.acknowledge((event.value as SessionStarted).inputSequenceAcknowledged);
    for (const request of this.#log.unacknowledged()) {
      taken.line.put(request);
    }
    const resumed: SessionResumed = {
      sessionId: this.sessionId,
      outageMs: nowMs() - beganMs,
      attempts: taken.attempts,
      cause: failure,
    };
    this.deliver({ case: "sessionResumed", value: resumed } as unknown as Event);
    this.#attach(taken.line);
  }

  /** The session at the gateway is over. If another one can be had, that goes on; else this is the end. */
  #giveUp(event: SessionEnded | undefined, failure: WavegateError | undefined): void {
    this.givenUp = true;
    this.lastWords = { event, failure };
    if (this.#moving === undefined) {
      this.#sayLastWords();
    } else if (this.#successor !== undefined) {
      this.#moveOver();
    }
    this.notify();
  }

  #sayLastWords(): void {
    const { event, failure } = this.lastWords ?? {};
    if (event !== undefined) {
      this.ended = event;
      const seen = this.note({ case: "sessionEnded", value: event } as unknown as Event);
      if (seen !== undefined) {
        this.deliver(seen);
      }
    }
    this.finish(failure);
  }

  #toldWhatIsLost(failure: WavegateError, why: WavegateError | undefined): WavegateError {
    const lost = this.whatIsLost();
    const lines = [
      failure.message,
      ...(why === undefined ? [] : [`  it could not be resumed: ${why.message}`]),
      ...(lost === "" ? [] : [`  lost: ${lost}`]),
    ];
    return connectionLost(lines.join("\n"), { reason: why?.reason ?? "", cause: why ?? failure });
  }

  #beginMoving(timeLeftMs: number): void {
    if (this.#moving === undefined && this.canMove()) {
      this.#moving = new AbortController();
      this.#spawn(this.#move(timeLeftMs, this.#moving));
    }
  }

  /** Opens a session elsewhere, and waits until it may follow this one. */
  async #move(timeLeftMs: number, moving: AbortController): Promise<void> {
    const { signal } = moving;
    const deadlineMs = nowMs() + timeLeftMs + MOVE_PATIENCE_MS;
    try {
      if (this.line !== undefined) {
        this.#channels.leave(this.line.channel);
      }
      for (const delayMs of retryDelaysMs()) {
        await sleep(delayMs, signal);
        if (nowMs() >= deadlineMs) {
          break;
        }
        // Where it can follow at once, what it starts from must not change until it does.
        this.#pause(this.#isBetween());
        const start = this.startElsewhere();
        const scope = new Scope(signal, OPEN_ELSEWHERE_MS);
        try {
          const opened = await this.#openSomewhere(start, scope.signal);
          if (signal.aborted) {
            await this.#retire(opened.line);
            return;
          }
          this.#successor = { ...opened, start };
        } catch {
          // The next try may do better, and the session lives on meanwhile.
          if (signal.aborted) {
            return;
          }
          this.#pause(false);
          continue;
        } finally {
          scope.end();
        }
        if (this.#isBetween()) {
          this.#moveOver();
        }
        while (this.#isUnderWay(moving) && this.#hasSuccessor()) {
          await this.changed(signal);
        }
        if (!this.#isUnderWay(moving)) {
          return;
        }
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      throw error;
    }
    this.#moving = undefined;
    this.#pause(false);
    if (this.givenUp) {
      this.#sayLastWords();
    }
  }

  #hasSuccessor(): boolean {
    return this.#successor !== undefined;
  }

  #isUnderWay(moving: AbortController): boolean {
    return this.#moving === moving;
  }

  #isBetween(): boolean {
    return this.givenUp || this.isIdle();
  }

  #pause(paused: boolean): void {
    this.paused = paused;
    this.updateFlow();
  }

  /** Lets the session that was opened elsewhere follow this one. */
  #moveOver(): void {
    const successor = this.#successor;
    const left = this.line;
    if (successor === undefined || left === undefined) {
      return;
    }
    const { line, response, start } = successor;
    this.#successor = undefined;
    if (line.over || !equals(this.startSchema, start as never, this.startElsewhere() as never)) {
      // It was lost, or the settings have changed since: `#move` opens another one.
      this.#pause(true);
      this.#spawn(this.#retire(line));
      this.notify();
      return;
    }
    const previousSessionId = this.sessionId;
    const leftGranted = this.#resumeWindowMs > 0;
    const lostAudioMs = this.carryOver();
    this.#log = new InputLog();
    this.#log.countStart();
    this.receive(response);
    for (const item of this.unfinished) {
      line.put(this.#log.add((sequence) => this.makeRequest(sequence, item.input), sizeOf(item.input)));
    }
    this.#spawn(this.givenUp ? left.stop() : retire(left, this.#discardRequest(), leftGranted));
    this.#resuming?.abort();
    this.#resuming = undefined;
    this.#moving = undefined;
    this.goAway = undefined;
    this.givenUp = false;
    this.lastWords = undefined;
    this.moves++;
    this.paused = false;
    const moved: SessionMoved = {
      sessionStarted: this.started,
      previousSessionId,
      target: line.channel.target,
      lostAudioMs,
    };
    this.deliver({ case: "sessionMoved", value: moved } as unknown as Event);
    this.#attach(line);
  }

  // --- leaving ---------------------------------------------------------------------------------

  #spawn(work: Promise<void>): void {
    const task = work.catch(() => undefined).finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  #discardRequest(): MessageShape<I> {
    const value: EndSession = create(EndSessionSchema, { discard: true });
    return this.makeRequest(0n, { case: "endSession", value });
  }

  async #retire(line: Line<I, O>): Promise<void> {
    await retire(line, this.#discardRequest(), this.#resumeWindowMs > 0);
  }

  /** Ends what is not over yet, and all that runs for it, within a few seconds. @internal */
  protected stopWork(): Promise<void> {
    return Promise.resolve();
  }

  async #stop(): Promise<void> {
    const { line } = this;
    if (this.finished) {
      await line?.stop();
    } else {
      this.finish(undefined);
      if (line !== undefined) {
        await this.#retire(line);
      }
    }
    await this.stopWork();
    while (this.#tasks.size > 0) {
      await Promise.all(this.#tasks);
    }
  }
}

/** Ends a session that is not wanted any more, at the gateway too, which would keep it for its window. */
async function retire<I extends DescMessage, O extends DescMessage>(
  line: Line<I, O>,
  last: MessageShape<I>,
  isKept: boolean,
): Promise<void> {
  try {
    if (isKept && line.connection !== undefined && !(await line.discard(last)) && line.sessionId !== "") {
      // It takes no more input, or has no call: it is ended from outside.
      const request = create(CloseSessionRequestSchema, { sessionId: line.sessionId, discard: true });
      await line.channel.unary(SessionService.method.closeSession, request, CLOSE_TIMEOUT_MS, undefined, line.route);
    }
  } catch {
    // The gateway ends it by itself when its window is over.
  } finally {
    await line.stop();
  }
}

/** The gateway did not answer a try; the next one may do better. */
class NoAnswer extends WavegateError {
  constructor(target: string) {
    super(`the gateway at ${target} does not answer`, { code: "DEADLINE_EXCEEDED" });
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return value instanceof Error && Object.getPrototypeOf(value) === NoAnswer.prototype;
  }
}

function failureOf(ended: SessionEnded): WavegateError | undefined {
  return ended.status === undefined || ended.status.code === 0 ? undefined : errorFromStatus(ended.status);
}

function sizeOf(input: Input): number {
  const { text, content } = input.value as { text?: unknown; content?: unknown };
  const size = typeof text === "string" ? text.length * 2 : content instanceof Uint8Array ? content.length : 0;
  return size + INPUT_OVERHEAD_BYTES;
}

