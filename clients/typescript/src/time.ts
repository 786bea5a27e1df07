import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";

/** A time of the contract from milliseconds, to the nanosecond. */
export function durationFromMs(ms: number): Duration {
  if (!Number.isFinite(ms)) {
    throw new TypeError(`${String(ms)} is no length of time in milliseconds`);
  }
  const nanos = Math.round(ms * 1e6);
  const seconds = Math.trunc(nanos / 1e9);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: nanos - seconds * 1e9 });
}

/** Milliseconds from a time of the contract; 0 for one that is not set. */
export function msFromDuration(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** Now, on a clock that only goes forward. */
export function nowMs(): number {
  return performance.now();
}

/** Waits; rejects with the signal's reason when that is aborted first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(abortReason(signal));
      return;
    }
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(abortReason(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, Math.max(0, ms));
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** What a promise gives, or the signal's reason where that is aborted first. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) {
    return promise;
  }
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      reject(abortReason(signal));
    };
    if (signal.aborted) {
      promise.catch(() => undefined);
      onAbort();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => {
      signal.removeEventListener("abort", onAbort);
    });
  });
}

/** Waits for a promise, at most so long; whether it was settled in time. The timer ends with the wait. */
export function settledWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      resolve(false);
    }, ms);
    const settled = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    promise.then(settled, settled);
  });
}

/** Why a signal was aborted, as an error. */
export function abortReason(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof Error ? reason : new DOMException(typeof reason === "string" ? reason : "aborted", "AbortError");
}

/** A promise with its two ends. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly settled: boolean;
  resolve(value: T): void;
  reject(reason: Error): void;
}

/** Makes a promise that is settled from outside. */
export function deferred<T>(): Deferred<T> {
  let settle: { resolve: (value: T) => void; reject: (reason: Error) => void } | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  promise.catch(() => undefined); // whoever waits hears of it; nobody need be waiting
  let settled = false;
  return {
    promise,
    get settled() {
      return settled;
    },
    resolve(value) {
      settled = true;
      settle?.resolve(value);
    },
    reject(reason) {
      settled = true;
      settle?.reject(reason);
    },
  };
}

/**
 * A signal of its own that is aborted with another one, and by a timer; `end` lets go of both.
 *
 * `AbortSignal.any` would keep every derived signal on a long-lived one.
 */
export class Scope {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #timer: NodeJS.Timeout | undefined;
  /** Whether the timer was what ended it. */
  timedOut = false;

  constructor(outer: AbortSignal | undefined, timeoutMs?: number) {
    this.#outer = outer;
    this.#onAbort = () => {
      this.#controller.abort(abortReason(outer));
    };
    if (outer?.aborted) {
      this.#onAbort();
    } else {
      outer?.addEventListener("abort", this.#onAbort, { once: true });
    }
    if (timeoutMs !== undefined && Number.isFinite(timeoutMs)) {
      this.#timer = setTimeout(() => {
        this.timedOut = !this.signal.aborted;
        this.#controller.abort(new DOMException("the time is up", "TimeoutError"));
      }, Math.max(0, Math.min(timeoutMs, 0x7fffffff)));
    }
  }

  /** Aborted when the scope is over. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends what runs in the scope. */
  abort(reason: Error): void {
    this.#controller.abort(reason);
  }

  /** Lets go of the other signal and of the timer. */
  end(): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#onAbort);
  }
}
