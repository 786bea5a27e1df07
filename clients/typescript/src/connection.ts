import * as http2 from "node:http2";
import * as net from "node:net";
import type { LookupFunction } from "node:net";
import * as tls from "node:tls";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Unreachable } from "./errors.js";
import { type Address, originOf } from "./target.js";

/** Bytes that a stream may receive ahead of its reader: audio waits in the gateway, where a cancel can drop it. */
const STREAM_WINDOW_BYTES = 64 * 1024;
/** Bytes that all streams of a connection may receive ahead together, so that they do not wait for each other. */
const CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024;
/** Node refuses new streams while more than so much waits to be sent; a recording alone may be 32 MB. */
const MAX_MEMORY_MB = 512;
/** How long one attempt to connect may take. */
const CONNECT_TIMEOUT_MS = 5_000;
/** A peer that vanished is noticed within half a minute, also in a long silence. */
const PING_INTERVAL_MS = 20_000;
const PING_TIMEOUT_MS = 10_000;

/** How to reach a gateway, and what may be said to it. */
export interface ConnectionOptions {
  readonly address: Address;
  readonly tls: boolean;
  /** PEM texts. */
  readonly rootCertificates?: string | Uint8Array | undefined;
  readonly privateKey?: string | Uint8Array | undefined;
  readonly certificateChain?: string | Uint8Array | undefined;
  readonly maxMessageBytes: number;
  /** One address of the host's name, where the caller of this has looked it up. */
  readonly resolved?: { readonly address: string; readonly family: number } | undefined;
}

/**
 * One HTTP/2 connection to a gateway, made with the first request and made again after a loss.
 *
 * It takes the place of connect-node's own `Http2SessionManager`, which has no way to set the window of a connection,
 * to bound the time of an attempt, or to wait until the other side has proved to speak HTTP/2.
 */
export class Connection {
  readonly authority: string;
  /** Calls over this connection. */
  readonly transport: Transport;
  readonly #options: ConnectionOptions;
  #session: http2.ClientHttp2Session | undefined;
  #connecting: Promise<http2.ClientHttp2Session> | undefined;
  /** Also those that take no new streams any more. */
  readonly #sessions = new Set<http2.ClientHttp2Session>();
  readonly #streams = new Map<http2.ClientHttp2Session, number>();

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.authority = originOf(options.address, options.tls);
    this.transport = createGrpcTransport({
      baseUrl: this.authority,
      sessionManager: this,
      acceptCompression: [],
      readMaxBytes: options.maxMessageBytes,
      writeMaxBytes: 0xffffffff, // the gateway says what it takes; what is certain to be too much is refused earlier
    });
  }

  /** Opens a stream; rejects with a `ConnectError` whose cause says why there is no connection. */
  async request(
    method: string,
    path: string,
    headers: http2.OutgoingHttpHeaders,
    options: Omit<http2.ClientSessionRequestOptions, "signal">,
  ): Promise<http2.ClientHttp2Stream> {
    for (let attempt = 0; ; attempt++) {
      const session = await this.ready();
      try {
        const stream = session.request({ ...headers, ":method": method, ":path": path }, options);
        this.#count(session, stream);
        return stream;
      } catch (error) {
        // It ended between the two, as by a GOAWAY.
        if (attempt > 2 || !(session.closed || session.destroyed)) {
          throw error;
        }
      }
    }
  }

  /** Nothing to do: bytes are seen on the socket. */
  notifyResponseByteRead(): void {
    return;
  }

  /** Resolves once there is a connection over which the gateway has spoken HTTP/2. */
  async ready(): Promise<http2.ClientHttp2Session> {
    const session = this.#session;
    if (session !== undefined && !session.closed && !session.destroyed) {
      return session;
    }
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  /** Ends the connection and every stream on it. */
  close(): void {
    for (const session of this.#sessions) {
      session.destroy();
    }
    this.#session = undefined;
  }

  async #connect(): Promise<http2.ClientHttp2Session> {
    const { address } = this.#options;
    // A socket of our own: its events say more of a failed handshake than those of the session do.
    const socket = this.#socket();
    const session = http2.connect(this.authority, {
      maxSessionMemory: MAX_MEMORY_MB,
      settings: { initialWindowSize: STREAM_WINDOW_BYTES, enablePush: false },
      createConnection: () => socket,
    });
    this.#sessions.add(session);
    session.once("close", () => {
      this.#sessions.delete(session);
      this.#streams.delete(session);
      stopKeepAlive(session);
    });
    // The streams of a connection that fails are told; nobody else need be.
    session.on("error", () => undefined);
    try {
      await spoken(session, socket);
    } catch (error) {
      session.destroy();
      socket.destroy();
      this.#sessions.delete(session);
      throw unreachable(address, this.#options.tls, this.#options.privateKey !== undefined, error);
    }
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    session.unref();
    this.#session = session;
    return session;
  }

  #socket(): net.Socket {
    const { address, rootCertificates, privateKey, certificateChain, resolved } = this.#options;
    const { host, port, path } = address;
    const lookup: LookupFunction | undefined =
      resolved &&
      ((_host, options, callback) => {
        if (options.all) {
          callback(null, [resolved]);
        } else {
          callback(null, resolved.address, resolved.family);
        }
      });
    const where = path === undefined ? { host, port, ...(lookup && { lookup }) } : { path };
    if (!this.#options.tls) {
      const socket = net.connect(where);
      socket.setNoDelay(true);
      return socket;
    }
    const socket = tls.connect({
      ...where,
      ALPNProtocols: ["h2"],
      ...(path === undefined && net.isIP(host) === 0 ? { servername: host } : {}),
      ...(rootCertificates === undefined ? {} : { ca: Buffer.from(rootCertificates) }),
      ...(privateKey === undefined ? {} : { key: Buffer.from(privateKey) }),
      ...(certificateChain === undefined ? {} : { cert: Buffer.from(certificateChain) }),
    });
    socket.setNoDelay(true);
    return socket;
  }

  #count(session: http2.ClientHttp2Session, stream: http2.ClientHttp2Stream): void {
    const open = (this.#streams.get(session) ?? 0) + 1;
    this.#streams.set(session, open);
    if (open === 1) {
      session.ref(); // a program with a call does not end
      keepAlive(session);
    }
    stream.once("close", () => {
      const left = (this.#streams.get(session) ?? 1) - 1;
      this.#streams.set(session, left);
      if (left === 0 && !session.destroyed) {
        session.unref();
        stopKeepAlive(session);
      }
    });
  }
}

/** Waits for the other side's first frame, which HTTP/2 lets it send at once. */
function spoken(session: http2.ClientHttp2Session, socket: net.Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      settle();
      reject(error);
    };
    const hungUp = (): void => {
      failed(new Error("hung up"));
    };
    const wentAway = (code: number): void => {
      failed(new Error(`GOAWAY, error code ${String(code)}`));
    };
    const timer = setTimeout(() => {
      failed(new Error(`no answer in ${String(CONNECT_TIMEOUT_MS / 1000)} s`));
    }, CONNECT_TIMEOUT_MS);
    const settle = (): void => {
      clearTimeout(timer);
      socket.off("error", failed);
      socket.off("close", hungUp);
      session.off("error", failed);
      session.off("close", hungUp);
      session.off("goaway", wentAway);
    };
    socket.once("error", failed);
    socket.once("close", hungUp);
    session.once("error", failed);
    session.once("close", hungUp);
    session.once("goaway", wentAway);
    session.once("remoteSettings", () => {
      settle();
      resolve();
    });
  });
}

const keptAlive = new WeakMap<http2.ClientHttp2Session, NodeJS.Timeout>();

/** Pings while there are calls and nothing comes; a peer that does not answer is given up. */
function keepAlive(session: http2.ClientHttp2Session): void {
  let seen = -1;
  const timer = setInterval(() => {
    if (session.destroyed) {
      stopKeepAlive(session);
      return;
    }
    const { bytesRead } = session.socket;
    if (bytesRead !== seen) {
      seen = bytesRead;
      return;
    }
    let answered = false;
    session.ping(() => {
      answered = true;
    });
    setTimeout(() => {
      // A process that stood still sees its timers first and what has come meanwhile after them.
      setImmediate(() => {
        if (!answered && !session.destroyed) {
          session.destroy(new ConnectError("the gateway does not answer pings", Code.Unavailable));
        }
      });
    }, PING_TIMEOUT_MS).unref();
  }, PING_INTERVAL_MS / 2); // of which every other one finds the answer to the ping before
  timer.unref();
  keptAlive.set(session, timer);
}

function stopKeepAlive(session: http2.ClientHttp2Session): void {
  clearInterval(keptAlive.get(session));
  keptAlive.delete(session);
}

function unreachable(address: Address, tls: boolean, hasCertificate: boolean, reason: unknown): ConnectError {
  const cause = reason instanceof Error ? reason : new Error(String(reason));
  const why = `no gateway at ${address.target}${sentence(cause, tls, hasCertificate)}`;
  return new ConnectError(why, Code.Unavailable, undefined, undefined, new Unreachable(why, { cause }));
}

function sentence(cause: Error, tls: boolean, hasCertificate: boolean): string {
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : "";
  const said = `${code} ${cause.message}`;
  if (code === "ECONNREFUSED" || code === "ENOENT") {
    return "; start one with `make run` or `wavegate-server`";
  }
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") {
    return `: its name cannot be resolved (${cause.message})`;
  }
  if (cause.message.startsWith("no answer in")) {
    return ` (${cause.message})`;
  }
  if (tls) {
    const short = code.startsWith("ERR_SSL") ? code : cause.message; // OpenSSL's own sentences name source files
    if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
      return ": the certificate there is for another name; connect by the name that it holds";
    }
    if (/CERT_HAS_EXPIRED|CERT_NOT_YET_VALID/.test(code)) {
      return `: the certificate there is not valid now (${short})`;
    }
    if (/alert|hung up|ECONNRESET|GOAWAY/i.test(said)) {
      const advice = hasCertificate
        ? "the certificate of this client may not be one that it takes"
        : "as a gateway that asks for its callers' certificates does to one without (privateKey, certificateChain)";
      return `: what answers there hangs up on an encrypted connection, ${advice} (${short})`;
    }
    if (/UNABLE_TO|SELF_SIGNED|CERT_/i.test(code)) {
      return `: the certificate there comes from an authority that is not trusted here; name the authority with rootCertificates (${short})`;
    }
    if (/ERR_SSL|EPROTO|SSL routines/.test(said)) {
      return ": what answers there does not speak TLS; connect with tls: false";
    }
    return ` (${cause.message})`;
  }
  if (/ECONNRESET|EPIPE|hung up|GOAWAY|ERR_HTTP2/i.test(said)) {
    return (
      ": what answers there does not speak HTTP/2 in clear text; if it serves TLS, connect with tls: true, and if " +
      `it speaks HTTP/1, it may be the port of its metrics (${cause.message})`
    );
  }
  return ` (${cause.message})`;
}
