import { randomBytes } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Channel } from "./channel.js";
import { Duplex, type WaitOptions } from "./duplex.js";
import {
  SessionService,
  type UpdateSettingsRequest,
  UpdateSettingsRequestSchema,
  type UpdateSettingsResponse,
} from "./gen/wavegate/speech/v1/session_service_pb.js";
import {
  type SettingsAck,
  SettingsAck_State,
  SynthesisSettingsSchema,
  TranscriptionSettingsSchema,
} from "./gen/wavegate/speech/v1/types_pb.js";
import { GOODBYE_MS, Line } from "./line.js";
import { checkAck, message, updateFields, type UpdateOptions } from "./settings.js";
import { Scope } from "./time.js";

/** What goes with a change from outside, beside the settings themselves. */
export interface ControlOptions extends UpdateOptions {
  /** Apply it right after this input of the session. */
  readonly afterInputSequence?: bigint | number | undefined;
  /** From now on, also report everything else that changes on this session. */
  readonly watch?: boolean | undefined;
}

/** Something that happened to a session: an ack, or with `watch` anything that it reports. */
export interface SessionChange {
  /** The session, as the change of it named it. */
  readonly sessionId: string;
  /** What happened, told apart by its `case`. */
  readonly event: Exclude<UpdateSettingsResponse["event"], { case: undefined }>;
}

/**
 * One stream that changes the settings of any of the caller's sessions; `Client.settingsStream` opens it.
 *
 * Iterate over it for every ack as it comes and, with `watch: true` in an update, for whatever else happens to that
 * session from then on. Closing it ends the stream; the sessions go on.
 */
export class SettingsStream extends Duplex<
  typeof UpdateSettingsRequestSchema,
  (typeof SessionService.method.updateSettings)["output"],
  SessionChange
> {
  readonly #acks = new Map<string, SettingsAck | undefined>();
  // Ids must not meet those of the session's own updates, nor of other callers' streams.
  readonly #prefix = randomBytes(4).toString("hex");
  #lastId = 0;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(channel: Channel, headers: Headers) {
    super(Infinity);
    this.line = new Line(this, channel, SessionService.method.updateSettings, headers);
    dropped.register(this, this.line, this);
  }

  /**
   * Changes a synthesis session; resolves once that is applied, superseded or validated.
   *
   * Throws an error of kind `SESSION_NOT_FOUND`, or whatever else the gateway says against it; the stream goes on.
   * `afterInputSequence` waits for that input of the session. Aborting the wait does not take it back.
   */
  async updateSynthesis(
    sessionId: string,
    settings: MessageInitShape<typeof SynthesisSettingsSchema>,
    options: ControlOptions = {},
  ): Promise<SettingsAck> {
    const value = message(SynthesisSettingsSchema, settings);
    const fields = updateFields(SynthesisSettingsSchema, options, this.#nextId());
    return this.#update(sessionId, { case: "synthesis", value }, fields, options);
  }

  /** Changes a transcription session; see `updateSynthesis`. */
  async updateTranscription(
    sessionId: string,
    settings: MessageInitShape<typeof TranscriptionSettingsSchema>,
    options: ControlOptions = {},
  ): Promise<SettingsAck> {
    const value = message(TranscriptionSettingsSchema, settings);
    const fields = updateFields(TranscriptionSettingsSchema, options, this.#nextId());
    return this.#update(sessionId, { case: "transcription", value }, fields, options);
  }

  /** Every report in order; one consumer at a time. */
  async *events(options: WaitOptions = {}): AsyncGenerator<SessionChange, void, undefined> {
    for (let change = await this.next(options.signal); change !== undefined; change = await this.next(options.signal)) {
      yield change;
    }
  }

  /** As `events`. */
  [Symbol.asyncIterator](): AsyncIterator<SessionChange, void, undefined> {
    return this.events();
  }

  /** Ends the stream, once the acks that are still owed have come (2 s at most). Closing twice does nothing more. */
  close(): Promise<void> {
    if (this.#closing !== undefined) {
      return this.#closing.catch(() => undefined);
    }
    this.#closing = this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      if (!this.finished) {
        this.inputEnded = true;
        this.line?.end();
        const scope = new Scope(undefined, GOODBYE_MS);
        try {
          await this.drain(scope.signal);
        } catch (error) {
          if (!scope.timedOut) {
            throw error; // a watched session may outlive our interest
          }
        } finally {
          scope.end();
        }
      }
    } finally {
      await this.abort();
    }
  }

  /** Ends the stream without waiting for acks. */
  async abort(): Promise<void> {
    if (!this.finished) {
      this.finish(undefined);
    }
    dropped.unregister(this);
    await this.line?.stop();
  }

  /** Leaves a scope of `await using`: as `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #nextId(): string {
    return `${this.#prefix}-${String(++this.#lastId)}`;
  }

  async #update(
    sessionId: string,
    settings: UpdateSettingsRequest["settings"],
    fields: ReturnType<typeof updateFields>,
    options: ControlOptions,
  ): Promise<SettingsAck> {
    const { afterInputSequence, signal } = options;
    const { updateId } = fields;
    if (this.#acks.has(updateId)) {
      throw new TypeError(`update "${updateId}" of this stream is still under way`);
    }
    this.checkOpen();
    const { line } = this;
    if (line === undefined) {
      throw new TypeError("the stream is not open");
    }
    this.#acks.set(updateId, undefined);
    try {
      const request = create(UpdateSettingsRequestSchema, {
        ...fields,
        sessionId,
        settings,
        ...(afterInputSequence === undefined ? {} : { afterInputSequence: BigInt(afterInputSequence) }),
        watch: options.watch ?? false,
      });
      await this.taken(line, line.put(request), signal);
      return checkAck(await this.until(() => this.#acks.get(updateId), signal));
    } finally {
      this.#acks.delete(updateId);
    }
  }

  /** @internal */
  protected receive(response: UpdateSettingsResponse): SessionChange | undefined {
    const { event } = response;
    if (event.case === undefined) {
      return undefined; // of a newer gateway
    }
    if (
      event.case === "ack" &&
      this.#acks.has(event.value.updateId) &&
      event.value.state !== SettingsAck_State.QUEUED
    ) {
      this.#acks.set(event.value.updateId, event.value);
    }
    return { sessionId: response.sessionId, event };
  }
}

const dropped = new FinalizationRegistry<{ cancel(): void }>((line) => {
  line.cancel();
});
