import { isIP } from "node:net";

/** Where a gateway is unless the caller says otherwise. */
export const DEFAULT_TARGET = "127.0.0.1:50051";

const DEFAULT_PORT = DEFAULT_TARGET.slice(DEFAULT_TARGET.lastIndexOf(":") + 1);

/** How the calls of one target spread over the addresses of its name. */
export type LoadBalancing = "pick_first" | "round_robin";

/** An address of a gateway, taken apart. */
export interface Address {
  /** As the caller wrote it. */
  readonly target: string;
  /** A name or an address, without brackets; empty for a Unix socket. */
  readonly host: string;
  readonly port: number;
  /** The file of a Unix socket, where it is one. */
  readonly path?: string;
}

/** Reads `HOST:PORT` or `unix:PATH`; throws a `TypeError` that says what to write instead. */
export function parseTarget(target: string, tls: boolean): Address {
  if (typeof target !== "string" || target.trim() === "") {
    throw new TypeError("the target is empty: write HOST:PORT");
  }
  if (/^unix:/i.test(target)) {
    const path = target.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (path === "") {
      throw new TypeError(`"${target}" names no socket: write unix:/run/wavegate.sock`);
    }
    return { target, host: "", port: 0, path };
  }
  if (target.includes("://")) {
    throw new TypeError(withoutScheme(target));
  }
  const [host, port] = splitHostPort(target.replace(/^dns:(?=[^/])/i, ""));
  if (host === "" || /[\s/@?#]/.test(target)) {
    throw new TypeError(`"${target}" is no HOST:PORT`);
  }
  if (host.includes(":") && !target.includes("[")) {
    throw new TypeError(`an IPv6 address stands in brackets: write [${target}]:PORT, not "${target}"`);
  }
  if (port === undefined) {
    if (tls) {
      return { target, host, port: 443 };
    }
    throw new TypeError(`"${target}" names no port: write ${target}:${DEFAULT_PORT}, or wherever it listens`);
  }
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65535) {
    throw new TypeError(`"${port}" is no port: write a number from 1 to 65535, as in ${host}:${DEFAULT_PORT}`);
  }
  return { target, host, port: Number(port) };
}

/** The origin that HTTP/2 takes requests to an address for. */
export function originOf(address: Address, tls: boolean): string {
  const host = address.path === undefined ? address.host : "localhost";
  const shown = isIP(host) === 6 ? `[${host}]` : host;
  const port = address.path === undefined ? `:${String(address.port)}` : "";
  return new URL(`${tls ? "https" : "http"}://${shown}${port}`).origin;
}

function withoutScheme(target: string): string {
  const [scheme = "", rest = ""] = target.split("://", 2);
  const afterSlash = rest.split("/", 1)[0] ?? "";
  let address = afterSlash.slice(afterSlash.lastIndexOf("@") + 1);
  if (address !== "" && splitHostPort(address)[1] === undefined) {
    address += scheme === "https" ? ":443" : `:${DEFAULT_PORT}`;
  }
  const encrypted =
    scheme === "https" || scheme === "grpcs" ? ", and tls: true for an encrypted connection" : "";
  return `a target has no ${scheme}:// in front: write ${address || "HOST:PORT"}${encrypted}`;
}

/** Host and port; no port where there is none. An IPv6 address without brackets is all host. */
function splitHostPort(address: string): [string, string | undefined] {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(address);
  if (bracketed) {
    return [bracketed[1] ?? "", bracketed[2]];
  }
  const colon = address.lastIndexOf(":");
  if (colon < 0 || address.slice(0, colon).includes(":")) {
    return [address.startsWith("[") ? "" : address, undefined];
  }
  return [address.slice(0, colon), address.slice(colon + 1)];
}
