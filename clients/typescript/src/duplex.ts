import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { sessionClosed, type WavegateError } from "./errors.js";
import type { Line } from "./line.js";
import { abortReason } from "./time.js";

/** What every wait takes. */
export interface WaitOptions {
  /** Ends the wait, which rejects with the signal's reason. It loses nothing, and takes nothing back that was sent. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Base of the streams: a line, a buffer of events, and waiting.
 *
 * Reading stops at a full buffer; but it goes on while anybody waits for an answer or for room to write, because what
 * they wait for may lie behind that audio.
 */
export abstract class Duplex<I extends DescMessage, O extends DescMessage, Event> {
  /** @internal */
  protected line: Line<I, O> | undefined;
  /** @internal */
  protected inputEnded = false;
  /** @internal */
  protected buffer: Event[] = [];
  /** @internal */
  protected paused = false;
  /** @internal */
  protected finished = false;
  /** @internal */
  protected failureRaised = false;
  readonly #bufferLimitBytes: number;
  #bufferedBytes = 0;
  #discarding = false;
  #waiting = 0;
  readonly #waiters = new Set<() => void>();
  #failure: WavegateError | undefined;

  /** @internal */
  protected constructor(bufferLimitBytes: number) {
    this.#bufferLimitBytes = bufferLimitBytes;
  }

  /** Takes note of a response; returns what the caller shall see of it. @internal */
  protected abstract receive(response: MessageShape<O>): Event | undefined;

  /** How much of the buffer an event takes. @internal */
  protected sizeBytes(_event: Event): number {
    return 0;
  }

  /** Whether whoever sent request `number` of the line need not wait any longer. @internal */
  protected isTaken(line: Line<I, O>, number: number): boolean {
    return line.written >= number;
  }

  // --- sending ---------------------------------------------------------------------------------

  /** @internal */
  protected checkOpen(): void {
    if (this.finished) {
      throw this.closedError();
    }
    if (this.inputEnded) {
      throw sessionClosed("the session's input has ended; open another session to send more");
    }
  }

  /** Waits until the transport has taken a request. @internal */
  protected async taken(line: Line<I, O>, number: number, signal?: AbortSignal): Promise<void> {
    await this.until(() => this.isTaken(line, number) || undefined, signal);
  }

  // --- receiving -------------------------------------------------------------------------------

  /** @internal */
  onResponse(_line: Line<I, O>, response: MessageShape<O>): boolean {
    const event = this.receive(response);
    if (event !== undefined) {
      this.deliver(event);
    }
    this.notify();
    return false;
  }

  /** @internal */
  onOver(_line: Line<I, O>, failure: WavegateError | undefined): void {
    this.finish(failure);
  }

  /** @internal */
  protected finish(failure: WavegateError | undefined): void {
    this.finished = true;
    this.#failure = failure;
    this.notify();
  }

  /** @internal */
  protected get failure(): WavegateError | undefined {
    return this.#failure;
  }

  /** @internal */
  protected deliver(event: Event): void {
    if (!this.#discarding) {
      this.buffer.push(event);
      this.#bufferedBytes += this.sizeBytes(event);
      this.updateFlow();
    }
  }

  /** The next event; at the end throws the failure if there is one, or gives undefined. @internal */
  protected take(): Event | undefined {
    const event = this.buffer.shift();
    if (event === undefined) {
      if (this.#failure !== undefined) {
        this.failureRaised = true;
        throw this.#failure;
      }
      return undefined;
    }
    this.#bufferedBytes -= this.sizeBytes(event);
    this.updateFlow();
    return event;
  }

  /** Waits for the next event; undefined at the end. @internal */
  protected async next(signal?: AbortSignal): Promise<Event | undefined> {
    while (this.buffer.length === 0 && !this.finished) {
      await this.changed(signal);
    }
    signal?.throwIfAborted();
    return this.take();
  }

  /** Takes events out of the buffer. @internal */
  protected drop(unwanted: (event: Event) => boolean): void {
    this.buffer = this.buffer.filter((event) => !unwanted(event));
    this.#bufferedBytes = this.buffer.reduce((sum, event) => sum + this.sizeBytes(event), 0);
    this.updateFlow();
  }

  /** @internal */
  protected updateFlow(): void {
    if (this.line !== undefined) {
      const room = this.#bufferedBytes < this.#bufferLimitBytes || this.#waiting > 0;
      this.line.flow = room && !this.paused;
      // Whoever waits here has to be woken, so the call must not lose us. Others may drop us.
      this.line.pin(this.#waiters.size > 0 ? this : undefined);
    }
  }

  // --- waiting ---------------------------------------------------------------------------------

  /** @internal */
  notify(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    this.updateFlow();
    for (const wake of waiters) {
      wake();
    }
  }

  /** Waits for the next `notify`. @internal */
  protected changed(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(abortReason(signal));
        return;
      }
      const onAbort = (): void => {
        this.#waiters.delete(wake);
        this.updateFlow();
        reject(abortReason(signal));
      };
      const wake = (): void => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(wake);
      this.updateFlow();
    });
  }

  /** Waits until `ready` answers; throws the stream's failure, or that it is closed, if it never will. @internal */
  protected async until<T>(ready: () => T | undefined, signal?: AbortSignal): Promise<T> {
    this.#waiting++;
    this.updateFlow();
    try {
      for (;;) {
        const answer = ready();
        if (answer !== undefined) {
          return answer;
        }
        if (this.finished) {
          throw this.closedError();
        }
        await this.changed(signal);
      }
    } finally {
      this.#waiting--;
      this.updateFlow();
    }
  }

  /** @internal */
  protected closedError(): WavegateError {
    if (this.#failure === undefined) {
      return sessionClosed();
    }
    this.failureRaised = true;
    return this.#failure;
  }

  // --- leaving ---------------------------------------------------------------------------------

  /** Reads to the end and throws it away; throws the stream's failure if nobody has seen it yet. @internal */
  protected async drain(signal?: AbortSignal): Promise<void> {
    this.#discarding = true;
    this.drop(() => true);
    await this.until(() => this.finished || undefined, signal);
    if (this.#failure !== undefined && !this.failureRaised) {
      throw this.closedError();
    }
  }
}
