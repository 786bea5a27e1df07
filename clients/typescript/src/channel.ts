import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type StreamResponse } from "@connectrpc/connect";
import { Connection, type ConnectionOptions } from "./connection.js";
import { errorFromCall, isRefused, type WavegateError } from "./errors.js";
import { type Address, type LoadBalancing, parseTarget } from "./target.js";
import { orAborted, Scope } from "./time.js";
import { traceHeaders } from "./trace.js";

/** A gateway's own limit for a whole recording in one request. */
export const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;

/** What a balancer puts into the first headers of an answer, and what leads a later call to the same gateway. */
export const ROUTE_HEADER = "wavegate-route";

/** How long the addresses of a name are used before they are looked up again. */
const RESOLVED_FOR_MS = 30_000;

/** What a channel is made with. */
export interface ChannelOptions extends Omit<ConnectionOptions, "address" | "resolved"> {
  readonly target: string;
  readonly token?: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly loadBalancing: LoadBalancing;
}

/** What can be ended with its channel. */
export interface Call {
  cancel(): void;
}

/** A call that the gateway has begun to answer. */
export interface OpenedCall<I extends DescMessage, O extends DescMessage> {
  readonly response: StreamResponse<I, O>;
  readonly connection: Connection;
}

/** Returns the token as given if it can go in a header; throws a `TypeError`, which does not repeat it, otherwise. */
function checkToken(token: string): string {
  if (/[\r\n]/.test(token)) {
    throw new TypeError("the token holds a line break");
  }
  const at = token.search(/[^\x20-\x7e]/);
  if (at >= 0) {
    throw new TypeError(`the token holds a character that is not printable ASCII (at character ${String(at)})`);
  }
  return token;
}

/** The connections to one target, with what every call of it carries. */
export class Channel {
  readonly target: string;
  /** The calls that are open on it. */
  readonly calls = new Set<Call>();
  readonly #options: ChannelOptions;
  readonly #address: Address;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #connections = new Map<string, Connection>();
  #resolved: { readonly addresses: readonly string[]; readonly atMs: number } | undefined;
  #next = 0;

  /** Opens nothing yet. Throws a `TypeError` for a target that is written wrong or a token that no header takes. */
  constructor(options: ChannelOptions) {
    this.#options = options;
    this.#address = parseTarget(options.target, options.tls);
    this.target = options.target;
    this.#headers = {
      ...options.metadata,
      ...(options.token ? { authorization: `Bearer ${checkToken(options.token)}` } : {}),
    };
    try {
      new Headers(this.#headers);
    } catch (error) {
      throw new TypeError(`the metadata cannot be sent: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** The largest message, in bytes, that goes out here. */
  get maxMessageBytes(): number {
    return this.#options.maxMessageBytes;
  }

  /** The same with connections of its own, which may lead to another process behind the same address. */
  fresh(): Channel {
    const other = new Channel(this.#options);
    other.#next = this.#next;
    return other;
  }

  /** What goes with a call: the caller's own metadata, the token, and the active trace context. */
  async headers(): Promise<Headers> {
    return new Headers({ ...this.#headers, ...(await traceHeaders()) });
  }

  /**
   * Begins a streaming call; resolves with the first headers of its answer.
   *
   * `prefer` is the connection to use where there are several, as for a session that lives at the gateway behind it.
   */
  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    input: AsyncIterable<MessageShape<I>>,
    headers: Headers,
    signal: AbortSignal,
    prefer?: Connection,
    timeoutMs?: number,
  ): Promise<OpenedCall<I, O>> {
    const connection = prefer ?? (await orAborted(this.#pick(), signal));
    const response = await connection.transport.stream(method, signal, timeoutMs, headers, input as AsyncIterable<never>);
    return { response, connection };
  }

  /**
   * One request, one answer; rejects with a `WavegateError`, or with the signal's reason.
   *
   * `route` is what a balancer said of the gateway that has to answer; empty for any.
   */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    timeoutMs: number | undefined,
    signal?: AbortSignal,
    route = "",
  ): Promise<MessageShape<O>> {
    const headers = routed(await this.headers(), route);
    for (let tries = 1; ; tries++) {
      const scope = new Scope(signal);
      const call = cancelling(scope);
      this.calls.add(call);
      try {
        const connection = await orAborted(this.#pick(), scope.signal);
        const response = await connection.transport.unary(method, scope.signal, timeoutMs, headers, request as never);
        return response.message;
      } catch (reason) {
        signal?.throwIfAborted();
        const error = this.error(reason, false, timeoutMs);
        if (tries > 1 || !isRefused(error)) {
          throw error;
        }
      } finally {
        this.calls.delete(call);
        scope.end();
      }
    }
  }

  /** One request, many answers; throws as `unary`. Leaving early cancels the call. */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    request: MessageShape<I>,
    timeoutMs: number | undefined,
    signal?: AbortSignal,
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const headers = await this.headers();
    for (let tries = 1; ; tries++) {
      const scope = new Scope(signal);
      const call = cancelling(scope);
      this.calls.add(call);
      let answered = false;
      try {
        const { response } = await this.stream(method, once(request), headers, scope.signal, undefined, timeoutMs);
        for await (const message of response.message) {
          answered = true;
          yield message;
        }
        return;
      } catch (reason) {
        signal?.throwIfAborted();
        const error = this.error(reason, answered, timeoutMs);
        if (tries > 1 || !isRefused(error)) {
          throw error;
        }
      } finally {
        this.calls.delete(call);
        scope.abort(new ConnectError("the caller left", Code.Canceled));
        scope.end();
      }
    }
  }

  /** The error for how a call of this channel ended. */
  error(reason: unknown, answered: boolean, timeoutMs?: number): WavegateError {
    return errorFromCall(reason, { target: this.target, answered, timeoutMs });
  }

  /** Ends every call and the connections. Another call connects again. */
  close(): void {
    for (const call of this.calls) {
      call.cancel();
    }
    for (const connection of this.#connections.values()) {
      connection.close();
    }
    this.#connections.clear();
  }

  async #pick(): Promise<Connection> {
    const { host, path } = this.#address;
    if (this.#options.loadBalancing === "pick_first" || path !== undefined || isIP(host) !== 0) {
      return this.#connection("");
    }
    const addresses = await this.#addresses();
    let failure: unknown;
    for (const _ of addresses) {
      const connection = this.#connection(addresses[this.#next++ % addresses.length] ?? "");
      try {
        await connection.ready();
        return connection;
      } catch (error) {
        failure = error;
        this.#resolved = undefined; // the name may have other addresses by now
      }
    }
    throw failure;
  }

  async #addresses(): Promise<readonly string[]> {
    const known = this.#resolved;
    if (known !== undefined && performance.now() - known.atMs < RESOLVED_FOR_MS) {
      return known.addresses;
    }
    try {
      const found = await lookup(this.#address.host, { all: true });
      const addresses = [...new Set(found.map((entry) => entry.address))];
      this.#resolved = { addresses, atMs: performance.now() };
      return addresses;
    } catch {
      return [""]; // the connection fails by the same cause and says why
    }
  }

  #connection(resolved: string): Connection {
    let connection = this.#connections.get(resolved);
    if (connection === undefined) {
      connection = new Connection({
        ...this.#options,
        address: this.#address,
        resolved: resolved === "" ? undefined : { address: resolved, family: isIP(resolved) },
      });
      this.#connections.set(resolved, connection);
    }
    return connection;
  }
}

/** The same headers, with what leads a balancer to one gateway where that is known. */
export function routed(headers: Headers, route: string): Headers {
  const all = new Headers(headers);
  if (route !== "") {
    all.set(ROUTE_HEADER, route);
  }
  return all;
}

function cancelling(scope: Scope): Call {
  return {
    cancel: () => {
      scope.abort(new ConnectError("the client was closed", Code.Canceled));
    },
  };
}

async function* once<T>(message: T): AsyncGenerator<T, void, undefined> {
  yield await Promise.resolve(message);
}

/** The channels of a client: one a target, the one in use first. */
export class Channels {
  #channels: Channel[];
  #replaced: Channel[] = [];
  /** What goes on between calls and ends with the client. */
  readonly work = new Set<Call>();

  constructor(channels: readonly Channel[]) {
    this.#channels = [...channels];
  }

  /** Where new calls go. */
  get current(): Channel {
    const [first] = this.#channels;
    if (first === undefined) {
      throw new TypeError("there is no target");
    }
    return first;
  }

  /** Where a session may be opened, in the order of preference. */
  candidates(): Channel[] {
    return [...this.#channels];
  }

  /** This one works: what comes next goes there first. */
  prefer(channel: Channel): void {
    const at = this.#channels.indexOf(channel);
    if (at > 0) {
      this.#channels = [...this.#channels.slice(at), ...this.#channels.slice(0, at)];
    }
  }

  /**
   * The gateway there shuts down: the other targets come first, and a fresh connection to this one last.
   *
   * The old connection stays as long as calls use it. Gives the fresh one; undefined where it was left before.
   */
  leave(channel: Channel): Channel | undefined {
    let fresh: Channel | undefined;
    const at = this.#channels.indexOf(channel);
    if (at >= 0) {
      fresh = channel.fresh();
      this.#channels.splice(at, 1);
      this.#channels.push(fresh);
      this.#replaced.push(channel);
    }
    const unused = this.#replaced.filter((replaced) => replaced.calls.size === 0);
    this.#replaced = this.#replaced.filter((replaced) => replaced.calls.size > 0);
    for (const channelUnused of unused) {
      channelUnused.close();
    }
    return fresh;
  }

  /** Ends every call and closes every connection. */
  close(): void {
    for (const work of this.work) {
      work.cancel();
    }
    for (const channel of [...this.#channels, ...this.#replaced]) {
      channel.close();
    }
  }
}
