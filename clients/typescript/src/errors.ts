import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, decodeBinaryHeader } from "@connectrpc/connect";
import { type Status, StatusSchema } from "./gen/wavegate/speech/v1/types_pb.js";
import { msFromDuration } from "./time.js";

/**
 * What went wrong, as a program tells it apart:
 *
 * - `GATEWAY_UNAVAILABLE`: no gateway there, or it takes nothing new on
 * - `CONNECTION_LOST`: it was there, and went away in mid-call
 * - `INVALID_REQUEST`: a field, a text, a size or an order of messages that is not allowed
 * - `ACCESS_DENIED`: the caller's credential is missing, wrong or not enough
 * - `SESSION_NOT_FOUND`: no session of this caller has that id, or no trace
 * - `CONFLICT`: somebody else was quicker: another revision, another owner
 * - `CAPACITY`: a limit is reached: of the caller, the gateway or the account
 * - `UPSTREAM`: the speech service behind the gateway failed, or refused the gateway
 * - `DEADLINE`: something took too long
 * - `SESSION_CLOSED`: this session has ended; nothing more goes in
 * - `OTHER`: none of these; see `code`
 */
export type ErrorKind =
  | "GATEWAY_UNAVAILABLE"
  | "CONNECTION_LOST"
  | "INVALID_REQUEST"
  | "ACCESS_DENIED"
  | "SESSION_NOT_FOUND"
  | "CONFLICT"
  | "CAPACITY"
  | "UPSTREAM"
  | "DEADLINE"
  | "SESSION_CLOSED"
  | "OTHER";

const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** A gRPC status code, by name. */
export type StatusCode = (typeof CODES)[number];

function codeName(code: number): StatusCode {
  return CODES[code] ?? "UNKNOWN";
}

/** One field that the gateway refused. */
export interface FieldViolation {
  /** Path from the request message, such as `start.settings.speed`. */
  readonly field: string;
  /** What is wrong with it. */
  readonly description: string;
}

/** One limit that was reached. */
export interface QuotaViolation {
  /** Whose limit it is: `caller`, `gateway` or `upstream-account`. */
  readonly subject: string;
  /** What the limit is. */
  readonly description: string;
}

/** What a `WavegateError` is made of. */
export interface WavegateErrorInit {
  /** What went wrong; by `reason` and `code` where it is not given. */
  readonly kind?: ErrorKind;
  /** The gRPC status code; `UNKNOWN` where it is not given. */
  readonly code?: StatusCode;
  /** Stable name of what happened. */
  readonly reason?: string;
  /** How long to wait before trying again, in milliseconds. */
  readonly retryDelayMs?: number | undefined;
  /** Every field that was refused. */
  readonly fieldViolations?: readonly FieldViolation[];
  /** Every limit that was reached. */
  readonly quotaViolations?: readonly QuotaViolation[];
  /** Particulars, by name. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** What made it happen. */
  readonly cause?: unknown;
}

const BRAND = Symbol.for("wavegate.WavegateError");

/**
 * A call or a session failed; `message` says what happened and what to do.
 *
 * Decide by `kind`, or by `reason`, the stable name of what happened (`FIELD_INVALID`, `UPSTREAM_CAPACITY`, ...).
 */
export class WavegateError extends Error {
  /** What went wrong, as a program tells it apart. */
  readonly kind: ErrorKind;
  /** The gRPC status code. */
  readonly code: StatusCode;
  /** Stable name of what happened; empty where no gateway gave one. */
  readonly reason: string;
  /** Wait this long before trying again; undefined where the gateway gave no such advice. */
  readonly retryDelayMs: number | undefined;
  /** Every field that was refused. */
  readonly fieldViolations: readonly FieldViolation[];
  /** Every limit that was reached. */
  readonly quotaViolations: readonly QuotaViolation[];
  /** Particulars that the gateway gave, by name. */
  readonly metadata: Readonly<Record<string, string>>;

  /** Makes an error; the gateway's own are made by the client. */
  constructor(message: string, init: WavegateErrorInit = {}) {
    const violations = init.fieldViolations ?? [];
    const missing = violations.filter((violation) => !message.includes(violation.description));
    super([message, ...missing.map((v) => `  ${v.field}: ${v.description}`)].join("\n"), {
      ...(init.cause === undefined ? {} : { cause: init.cause }),
    });
    this.name = "WavegateError";
    this.code = init.code ?? "UNKNOWN";
    this.reason = init.reason ?? "";
    this.kind = init.kind ?? kindOf(this.code, this.reason);
    this.retryDelayMs = init.retryDelayMs;
    this.fieldViolations = violations;
    this.quotaViolations = init.quotaViolations ?? [];
    this.metadata = init.metadata ?? {};
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** Whether the same call may well succeed later, with nothing changed. */
  get retryable(): boolean {
    return this.retryDelayMs !== undefined || this.code === "UNAVAILABLE" || this.code === "RESOURCE_EXHAUSTED";
  }

  /** True for an error of this package in either of its builds, ESM and CommonJS. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return value instanceof Error && BRAND in value;
  }
}

/** Whether no gateway could be reached, or the one that was there is gone. */
export function isUnavailable(error: unknown): error is WavegateError {
  return (
    error instanceof WavegateError && (error.kind === "GATEWAY_UNAVAILABLE" || error.kind === "CONNECTION_LOST")
  );
}

const KIND_BY_REASON: Readonly<Record<string, ErrorKind>> = {
  UPSTREAM_CREDENTIAL: "UPSTREAM",
  UPSTREAM_GONE: "UPSTREAM",
  UPSTREAM_UNAVAILABLE: "UPSTREAM",
  UPSTREAM_STALLED: "UPSTREAM",
  UPSTREAM_PROTOCOL: "UPSTREAM",
};

const KIND_BY_CODE: Readonly<Partial<Record<StatusCode, ErrorKind>>> = {
  UNAVAILABLE: "GATEWAY_UNAVAILABLE",
  INVALID_ARGUMENT: "INVALID_REQUEST",
  OUT_OF_RANGE: "INVALID_REQUEST",
  UNAUTHENTICATED: "ACCESS_DENIED",
  PERMISSION_DENIED: "ACCESS_DENIED",
  NOT_FOUND: "SESSION_NOT_FOUND",
  ABORTED: "CONFLICT",
  RESOURCE_EXHAUSTED: "CAPACITY",
  DEADLINE_EXCEEDED: "DEADLINE",
};

function kindOf(code: StatusCode, reason: string): ErrorKind {
  return KIND_BY_REASON[reason] ?? KIND_BY_CODE[code] ?? "OTHER";
}

/** The error of a status with a code other than OK; details of unknown type are passed over. */
export function errorFromStatus(status: Status): WavegateError {
  const code = codeName(status.code);
  let reason = "";
  let metadata: Record<string, string> = {};
  let retryDelayMs: number | undefined;
  let fieldViolations: FieldViolation[] = [];
  let quotaViolations: QuotaViolation[] = [];
  for (const detail of status.details) {
    const name = detail.typeUrl.slice(detail.typeUrl.lastIndexOf("/") + 1);
    try {
      switch (name) {
        case "google.rpc.ErrorInfo": {
          const fields = readFields(detail.value);
          reason = text(fields, 1);
          metadata = Object.fromEntries(
            (fields.get(3) ?? []).map((entry) => {
              const pair = readFields(entry);
              return [text(pair, 1), text(pair, 2)];
            }),
          );
          break;
        }
        case "google.rpc.RetryInfo": {
          const delay = readFields(detail.value).get(1)?.[0];
          retryDelayMs = msFromDuration(fromBinary(DurationSchema, delay ?? new Uint8Array()));
          break;
        }
        case "google.rpc.BadRequest":
          fieldViolations = readPairs(detail.value, (field, description) => ({ field, description }));
          break;
        case "google.rpc.QuotaFailure":
          quotaViolations = readPairs(detail.value, (subject, description) => ({ subject, description }));
          break;
      }
    } catch {
      continue; // a damaged detail must not hide the code and the message
    }
  }
  return new WavegateError(status.message || `the gateway answered ${code} without a message`, {
    code,
    reason,
    retryDelayMs,
    fieldViolations,
    quotaViolations,
    metadata,
  });
}

// google.rpc's messages are read by hand: their descriptors are in no package that comes with the runtime.

function readFields(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const reader = new BinaryReader(bytes);
  const fields = new Map<number, Uint8Array[]>();
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (wireType === WireType.LengthDelimited) {
      const values = fields.get(number) ?? [];
      values.push(reader.bytes());
      fields.set(number, values);
    } else {
      reader.skip(wireType, number);
    }
  }
  return fields;
}

function text(fields: Map<number, Uint8Array[]>, number: number): string {
  return new TextDecoder().decode(fields.get(number)?.at(-1) ?? new Uint8Array());
}

function readPairs<T>(bytes: Uint8Array, make: (first: string, second: string) => T): T[] {
  return (readFields(bytes).get(1) ?? []).map((entry) => {
    const pair = readFields(entry);
    return make(text(pair, 1), text(pair, 2));
  });
}

/** What a broken connection looks like through gRPC and the proxies in use: they do not agree on one code. */
const LOST: ReadonlySet<Code> = new Set([Code.Unavailable, Code.Internal, Code.Canceled, Code.Unknown]);

const STATUS_DETAILS = "grpc-status-details-bin";

/** The cause of a `ConnectError` where no connection could be made. */
export class Unreachable extends Error {}

const refusedCalls = new WeakSet<Error>();

/** Whether a call failed that its gateway has not begun to handle, as one that crosses a GOAWAY: another try is safe. */
export function isRefused(error: unknown): boolean {
  return error instanceof Error && refusedCalls.has(error);
}

/** What is known of a call that failed. */
export interface CallContext {
  /** Where the gateway is. */
  readonly target: string;
  /** Whether the gateway had sent anything in this call: it tells one that is not there from one that went away. */
  readonly answered: boolean;
  /** The deadline that the call had. */
  readonly timeoutMs?: number | undefined;
}

/** The error for how a call ended. */
export function errorFromCall(reason: unknown, context: CallContext): WavegateError {
  if (reason instanceof WavegateError) {
    return reason;
  }
  const failure = ConnectError.from(reason);
  const { target, answered } = context;
  if (failure.cause instanceof Unreachable) {
    return new WavegateError(failure.cause.message, { code: "UNAVAILABLE", cause: failure.cause.cause });
  }
  const details = failure.metadata.get(STATUS_DETAILS);
  if (details !== null) {
    try {
      return errorFromStatus(decodeBinaryHeader(details, StatusSchema));
    } catch {
      // the code and the message are there all the same
    }
  }
  const message = failure.rawMessage;
  const name = codeName(failure.code);
  const told = failure.metadata.has("grpc-status");
  if (failure.code === Code.ResourceExhausted) {
    const sent = /Received message larger than max \((\d+) vs\. (\d+)\)/.exec(message);
    if (sent !== null) {
      return requestTooLarge(Number(sent[1]), Number(sent[2]));
    }
    const got = /message size (\d+) is larger than configured readMaxBytes (\d+)/.exec(message);
    if (got !== null) {
      return new WavegateError(
        `the answer of the gateway at ${target} is too large: ${String(got[1])} bytes in one message, and this ` +
          `client takes ${String(got[2])}; ask for less, or raise maxMessageBytes`,
        { code: "INVALID_ARGUMENT" },
      );
    }
  }
  if (!told && failure.code === Code.DeadlineExceeded) {
    const time = context.timeoutMs === undefined ? "in time" : `in ${String(context.timeoutMs / 1000)} s`;
    return new WavegateError(`the gateway at ${target} did not answer ${time}`, {
      code: "DEADLINE_EXCEEDED",
      cause: reason,
    });
  }
  if (answered && (!told || LOST.has(failure.code))) {
    return new WavegateError(`the connection to the gateway at ${target} was lost (${message || name}); open a new session`, {
      kind: "CONNECTION_LOST",
      code: "UNAVAILABLE",
      cause: reason,
    });
  }
  if (!told) {
    const http = /^HTTP (\d+)$/.exec(message);
    if (http !== null && failure.code !== Code.Unavailable) {
      return new WavegateError(`what answers at ${target} is no gateway, or a proxy refused the call (${message})`, {
        code: name,
        cause: reason,
      });
    }
    if (message.startsWith("unsupported content type")) {
      return new WavegateError(`no gateway at ${target}: what answers there does not speak gRPC (${message})`, {
        code: "UNAVAILABLE",
        cause: reason,
      });
    }
    const error = new WavegateError(
      `no gateway at ${target}: the call was dropped before an answer came (${message || name})`,
      { code: "UNAVAILABLE", cause: reason },
    );
    if (message.includes("REFUSED_STREAM")) {
      refusedCalls.add(error);
    }
    return error;
  }
  if (failure.code === Code.Unavailable) {
    return new WavegateError(`no gateway at ${target}${message ? ` (${message})` : ""}`, { code: name, cause: reason });
  }
  if (failure.code === Code.Unimplemented) {
    return new WavegateError(
      `the gateway at ${target} does not know this call (${message}); it may be older than this client`,
      { code: name, cause: reason },
    );
  }
  return new WavegateError(message || `the gateway answered ${name} without a message`, { code: name, cause: reason });
}

/** The error for a request that no transport takes; `field` is to blame. */
export function requestTooLarge(sizeBytes: number, limitBytes: number, field = ""): WavegateError {
  const wrong =
    `at most ${String(limitBytes)} bytes with the rest of the request, got ${String(sizeBytes)}; ` +
    "stream a larger recording (`transcribe`), or give its `uri`";
  return new WavegateError(`the ${field === "content" ? "recording" : "request"} is too large: ${wrong}`, {
    code: "INVALID_ARGUMENT",
    fieldViolations: field === "" ? [] : [{ field, description: wrong }],
  });
}

/** The session has ended, so that nothing can be sent or awaited any more. */
export function sessionClosed(message = "the session has ended; open another one"): WavegateError {
  return new WavegateError(message, { kind: "SESSION_CLOSED" });
}

/** The connection to the gateway broke before the call had ended. */
export function connectionLost(message: string, init: Omit<WavegateErrorInit, "kind"> = {}): WavegateError {
  return new WavegateError(message, { code: "UNAVAILABLE", ...init, kind: "CONNECTION_LOST" });
}
