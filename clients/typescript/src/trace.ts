import type * as opentelemetry from "@opentelemetry/api";

type Api = typeof opentelemetry;

/** Where every copy of @opentelemetry/api of major version 1 registers what the program has set up. */
const REGISTERED = Symbol.for("opentelemetry.js.api.1");

let loading: Promise<Api | undefined> | undefined;

/**
 * The W3C trace context of the caller's active span as headers, where the program uses OpenTelemetry.
 *
 * The package is optional and looked for only in a program that has registered something with it.
 */
export async function traceHeaders(): Promise<Readonly<Record<string, string>>> {
  if (!(REGISTERED in globalThis)) {
    return {};
  }
  loading ??= import("@opentelemetry/api").then(
    (api) => api,
    () => undefined,
  );
  const api = await loading;
  const carrier: Record<string, string> = {};
  api?.propagation.inject(api.context.active(), carrier);
  return carrier;
}
