import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Call, type Channel, ROUTE_HEADER, routed } from "./channel.js";
import type { Connection } from "./connection.js";
import { WavegateError } from "./errors.js";
import { settledWithin } from "./time.js";

/** How long the gateway may take to end the call after its last message; it gives our side 1 s to stop writing. */
export const GOODBYE_MS = 2_000;
/** How long a call that nobody wants any more may take for its last request, */
const LAST_WRITE_MS = 500;
/** and its other end for ending it. */
const LAST_ANSWER_MS = 1_000;

/** Who is told what happens on a line. */
export interface LineOwner<I extends DescMessage, O extends DescMessage> {
  /** A response came; true if it is the last one. */
  onResponse(line: Line<I, O>, response: MessageShape<O>): boolean;
  /** The call is over: after a failure, or in good order, or because this side cancelled it. */
  onOver(line: Line<I, O>, failure: WavegateError | undefined): void;
  /** Something else changed. */
  notify(): void;
}

/**
 * One bidirectional call: its input is written from an outbox as fast as the transport takes it, its output read as
 * long as `flow` is on.
 *
 * Reading stops while nobody takes what came, so that audio piles up in the gateway and not here.
 *
 * It refers to its owner weakly, save while somebody waits for something there (`pin`): a session that its program
 * has dropped can be collected, and its call ended then.
 */
export class Line<I extends DescMessage, O extends DescMessage> implements Call {
  readonly channel: Channel;
  /** How many requests were put. */
  queued = 0;
  /** How many of them the transport has sent. */
  written = 0;
  /** What the gateway named the session, which it does before the upstream has accepted it. */
  sessionId: string;
  /** What leads a balancer to the same gateway again; empty where there is none, or it does not say. */
  route: string;
  over = false;
  /** Whether this side ended the call. */
  cancelled = false;
  /** Why it is over, unless it ended in good order. */
  failure: WavegateError | undefined;
  /** Settles once everything is at its end, the goodbye included; never rejects. */
  readonly done: Promise<void>;
  /** The connection that the call is on, once it is. */
  connection: Connection | undefined;

  #owner: WeakRef<LineOwner<I, O>> | undefined;
  #pinned: LineOwner<I, O> | undefined;
  readonly #abort = new AbortController();
  readonly #outbox: MessageShape<I>[] = [];
  #halfClose = false;
  #wake: (() => void) | undefined;
  #flowing = true;
  #resume: (() => void) | undefined;
  #inputDone: (() => void) | undefined;
  readonly #inputEnded: Promise<void>;

  /** `lost` is the call that this one follows, to the same gateway if that can be had. */
  constructor(
    owner: LineOwner<I, O>,
    channel: Channel,
    method: DescMethodBiDiStreaming<I, O>,
    headers: Headers,
    lost?: Line<I, O>,
  ) {
    this.#owner = new WeakRef(owner);
    this.channel = channel;
    this.sessionId = "";
    this.route = lost?.route ?? "";
    this.#inputEnded = new Promise((resolve) => {
      this.#inputDone = resolve;
    });
    channel.calls.add(this);
    this.done = this.#run(method, routed(headers, this.route), lost?.connection);
  }

  /** Holds on to the owner, or lets go of it. */
  pin(owner: LineOwner<I, O> | undefined): void {
    if (this.#pinned !== owner) {
      this.#pinned = owner;
    }
  }

  /** Sends a request after those before it; `written` reaches the number given back once it has gone. */
  put(request: MessageShape<I>): number {
    this.#outbox.push(request);
    this.#wake?.();
    return ++this.queued;
  }

  /** Half-closes the call once everything queued is written. */
  end(): void {
    this.#halfClose = true;
    this.#wake?.();
  }

  /** While it is off, nothing is handed on. */
  set flow(on: boolean) {
    this.#flowing = on;
    if (on) {
      this.#resume?.();
    }
  }

  /** Ends the call at once. */
  cancel(): void {
    if (!this.over) {
      this.cancelled = true;
    }
    this.#abort.abort(new ConnectError("cancelled by the caller", Code.Canceled));
    this.#resume?.();
  }

  /**
   * Sends `last` instead of what is not sent yet, and waits for the end, of which nobody is told any more.
   *
   * False if that did not come in time.
   */
  async discard(last: MessageShape<I>): Promise<boolean> {
    this.#forgetOwner();
    this.flow = true;
    this.#outbox.length = 0;
    this.put(last);
    this.end();
    await settledWithin(this.#inputEnded, LAST_WRITE_MS);
    if (this.written !== this.queued || this.over) {
      return false;
    }
    // A message that is sent may still wait for the gateway to read what came before it.
    return settledWithin(this.done, LAST_ANSWER_MS);
  }

  /** Ends the call, if it lives. Takes no longer than the goodbye. */
  async stop(): Promise<void> {
    if (!this.over) {
      this.cancel();
    }
    await this.done;
  }

  #forgetOwner(): void {
    this.#owner = undefined;
    this.#pinned = undefined;
  }

  get #listener(): LineOwner<I, O> | undefined {
    return this.#owner?.deref();
  }

  async *#input(): AsyncGenerator<MessageShape<I>, void, undefined> {
    for (;;) {
      for (let request = this.#outbox.shift(); request !== undefined; request = this.#outbox.shift()) {
        yield request; // comes back once the transport has sent it
        this.written = this.queued - this.#outbox.length;
        this.#listener?.notify();
      }
      if (this.#halfClose) {
        this.#inputDone?.();
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }

  async #run(method: DescMethodBiDiStreaming<I, O>, headers: Headers, prefer: Connection | undefined): Promise<void> {
    let failure: WavegateError | undefined;
    let answered = false;
    let last = false;
    let responses: AsyncIterator<MessageShape<O>> | undefined;
    try {
      const opened = await this.channel.stream(method, this.#input(), headers, this.#abort.signal, prefer);
      this.connection = opened.connection;
      this.sessionId ||= opened.response.header.get("wavegate-session-id") ?? "";
      this.route = opened.response.header.get(ROUTE_HEADER) ?? this.route;
      responses = opened.response.message[Symbol.asyncIterator]();
      while (!last && !this.cancelled) {
        const result = await responses.next();
        if (result.done === true) {
          break;
        }
        answered = true;
        await this.#untilFlowing();
        // A method call of its own: a local would hold the owner during the next read.
        last = this.#hand(result.value);
      }
    } catch (error) {
      if (error instanceof HandlingFailed) {
        failure = new WavegateError(`an answer of the gateway cannot be read: ${String(error.cause)}`, {
          code: "INTERNAL",
          cause: error.cause,
        });
        this.#abort.abort(new ConnectError("cannot go on", Code.Canceled));
      } else if (!this.cancelled) {
        failure = this.channel.error(error, answered || this.sessionId !== "");
      }
    }
    this.over = true;
    this.failure = failure;
    this.channel.calls.delete(this);
    this.#listener?.onOver(this, failure);
    if (last && responses !== undefined) {
      await this.#goodbye(responses);
    }
    this.#abort.abort(new ConnectError("over", Code.Canceled));
    this.#inputDone?.();
    this.#forgetOwner();
  }

  #hand(response: MessageShape<O>): boolean {
    try {
      return !this.cancelled && (this.#listener?.onResponse(this, response) ?? false);
    } catch (cause) {
      throw new HandlingFailed("", { cause });
    }
  }

  async #untilFlowing(): Promise<void> {
    while (!this.#flowing && !this.cancelled) {
      await new Promise<void>((resolve) => {
        this.#resume = resolve;
      });
      this.#resume = undefined;
    }
  }

  /** Lets the gateway end the call itself, so that both sides see the same status. */
  async #goodbye(responses: AsyncIterator<MessageShape<O>>): Promise<void> {
    this.#outbox.length = 0;
    this.end();
    const ended = (async (): Promise<void> => {
      while ((await responses.next()).done !== true);
    })();
    await settledWithin(ended, GOODBYE_MS);
  }
}

class HandlingFailed extends Error {}
