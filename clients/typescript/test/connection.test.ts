import assert from "node:assert/strict";
import dns from "node:dns/promises";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import * as http2 from "node:http2";
import { syncBuiltinESMExports } from "node:module";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Client, type ClientOptions, GetSessionResponseSchema, WavegateError } from "@wavegate/client";
import { create } from "@bufbuild/protobuf";
import { TestAuthority } from "./certificate.js";
import { FakeGateway, HANG_MS, soon, status } from "./fake.js";

const authority = new TestAuthority();
const forLocalhost = authority.sign("localhost");
const stop: (() => Promise<void>)[] = [];

after(async () => {
  for (const end of stop) {
    await end();
  }
});

async function start(options: Parameters<typeof FakeGateway.start>[0] = {}): Promise<FakeGateway> {
  const gateway = await FakeGateway.start(options);
  stop.push(() => gateway.stop());
  return gateway;
}

/** Asks for a session; what is said against it. */
async function failure(options: ClientOptions): Promise<WavegateError> {
  const client = new Client(options);
  try {
    await soon(client.getSession("x", { timeoutMs: HANG_MS }));
  } catch (error) {
    assert(error instanceof WavegateError, String(error));
    return error;
  } finally {
    client.close();
  }
  throw new Error("it did not fail");
}

/** Asks a gateway for a session, and has it answered. */
async function ask(gateway: FakeGateway, client: Client): Promise<void> {
  const asking = client.getSession("x");
  const call = await gateway.call("GetSession");
  call.write(create(GetSessionResponseSchema, { session: { sessionId: "x" } }));
  call.end();
  assert.equal((await soon(asking)).sessionId, "x");
}

describe("a target", () => {
  for (const [target, words] of [
    ["", /empty/],
    ["localhost", /names no port: write localhost:50051/],
    ["http://localhost:50051", /has no http:\/\/ in front: write localhost:50051/],
    ["https://gateway.example", /write gateway.example:443, and tls: true/],
    ["::1:50051", /stands in brackets/],
    ["localhost:0", /is no port/],
    ["localhost:port", /is no port/],
    ["localhost:70000", /is no port/],
    ["local host:1", /is no HOST:PORT/],
    ["[::1:50051", /is no HOST:PORT/],
    ["unix:", /names no socket/],
  ] as const) {
    it(`is refused where it is written wrong: "${target}"`, () => {
      assert.throws(() => new Client({ target }), words);
    });
  }

  it("is taken where it is written right", () => {
    for (const target of ["localhost:1", "[::1]:50051", "dns:gateway:1", "unix:/run/x.sock", "a.b:65535"]) {
      assert.equal(new Client({ target }).target, target);
    }
    assert.equal(new Client({ target: "gateway.example", tls: true }).target, "gateway.example");
  });

  it("comes from the environment where none is given", () => {
    const before = process.env["WAVEGATE_TARGET"];
    try {
      process.env["WAVEGATE_TARGET"] = "gateway:1";
      assert.equal(new Client().target, "gateway:1");
      delete process.env["WAVEGATE_TARGET"];
      assert.equal(new Client().target, "127.0.0.1:50051");
    } finally {
      if (before !== undefined) {
        process.env["WAVEGATE_TARGET"] = before;
      }
    }
  });

  it("is one, or several", () => {
    assert.throws(() => new Client({ target: "a:1", targets: ["b:1"] }), TypeError);
    assert.throws(() => new Client({ targets: [] }), TypeError);
  });
});

describe("what every call says", () => {
  it("is the token and the caller's metadata", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target, token: "secret", metadata: { "x-team": "a" } });
    await ask(gateway, client);
    const { headers } = gateway.calls[0] ?? {};
    assert.deepEqual([headers?.["authorization"], headers?.["x-team"]], ["Bearer secret", "a"]);
  });

  it("has a deadline for one answer, and none for a session", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target });
    await ask(gateway, client);
    const opening = client.synthesize();
    const call = await gateway.call();
    assert.equal(gateway.calls[0]?.headers["grpc-timeout"], "30000m");
    assert.equal(call.headers["grpc-timeout"], undefined);
    call.started("s", {}, { resumeWindowS: 0 });
    await (await soon(opening)).abort();
  });

  it("is refused where no header takes it, without repeating a secret", () => {
    for (const token of ["a\nb", "a\r", "s\u00e9cret", "tab\there"]) {
      assert.throws(
        () => new Client({ target: "a:1", token }),
        (error: unknown) => error instanceof TypeError && !error.message.includes(token),
      );
    }
    assert.throws(() => new Client({ target: "a:1", metadata: { "x y": "z" } }), TypeError);
    assert.throws(() => new Client({ target: "a:1", metadata: { x: "line\nbreak" } }), TypeError);
  });
});

describe("TLS", () => {
  const tls = { key: forLocalhost.key, cert: forLocalhost.certificate };

  it("encrypts, with an authority of the caller's", async () => {
    const gateway = await start({ tls });
    await using client = new Client({ target: gateway.target, tls: { rootCertificates: authority.certificate } });
    await ask(gateway, client);
  });

  it("shows the client's certificate", async () => {
    const gateway = await start({ tls: { ...tls, ca: authority.certificate, requestCert: true, rejectUnauthorized: true } });
    const own = authority.sign("caller");
    await using client = new Client({
      target: gateway.target,
      tls: {
        rootCertificates: authority.certificate,
        privateKey: own.key,
        certificateChain: new TextEncoder().encode(own.certificate),
      },
    });
    await ask(gateway, client);
    const error = await failure({ target: gateway.target, tls: { rootCertificates: authority.certificate } });
    assert.equal(error.kind, "GATEWAY_UNAVAILABLE");
    assert.match(error.message, /hangs up on an encrypted connection, .*certificateChain/);
  });

  it("says that an authority is not trusted", async () => {
    const gateway = await start({ tls });
    const error = await failure({ target: gateway.target, tls: true });
    assert.match(error.message, /not trusted here; name the authority with rootCertificates/);
  });

  it("says that a certificate is for another name", async () => {
    const other = authority.sign("elsewhere.example");
    const gateway = await start({ tls: { key: other.key, cert: other.certificate } });
    const error = await failure({ target: gateway.target, tls: { rootCertificates: authority.certificate } });
    assert.match(error.message, /is for another name/);
  });

  it("says that the other side speaks none", async () => {
    const gateway = await start();
    const error = await failure({ target: gateway.target, tls: true });
    assert.equal(error.kind, "GATEWAY_UNAVAILABLE");
    assert.match(error.message, /does not speak TLS; connect with tls: false/);
  });

  it("says in clear text that the other side wants it", async () => {
    const gateway = await start({ tls });
    const error = await failure({ target: gateway.target });
    assert.equal(error.kind, "GATEWAY_UNAVAILABLE");
    assert.match(error.message, /if it serves TLS, connect with tls: true/);
  });

  it("refuses half a certificate, and what is none", () => {
    assert.throws(() => new Client({ target: "a:1", tls: { privateKey: forLocalhost.key } }), /go together/);
    assert.throws(() => new Client({ target: "a:1", tls: { rootCertificates: "" } }), /holds no certificate/);
  });
});

describe("what is no gateway", () => {
  it("is said of a port where nothing listens", async () => {
    const gateway = await FakeGateway.start();
    await gateway.stop();
    const error = await failure({ target: gateway.target });
    assert.deepEqual([error.kind, error.code, error.retryable], ["GATEWAY_UNAVAILABLE", "UNAVAILABLE", true]);
    assert.match(error.message, /no gateway at 127\.0\.0\.1:\d+; start one with/);
  });

  it("is said of a name that there is not", async () => {
    const error = await failure({ target: "no-such-name.invalid:1" });
    assert.equal(error.kind, "GATEWAY_UNAVAILABLE");
    assert.match(error.message, /cannot be resolved/);
  });

  it("is said of HTTP/1", async () => {
    const server = createHttpServer((_request, response) => response.end("metrics"));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const error = await failure({ target: `127.0.0.1:${String((server.address() as AddressInfo).port)}` });
    server.close();
    assert.match(error.message, /if it speaks HTTP\/1, it may be the port of its metrics/);
  });

  it("is said of a port that answers nothing", async () => {
    const server = createServer((socket) => socket.on("error", () => undefined).resume());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const error = await failure({ target: `127.0.0.1:${String((server.address() as AddressInfo).port)}` });
    server.close();
    assert.match(error.message, /no answer in 5 s/);
  });

  it("is said of HTTP/2 that speaks no gRPC", async () => {
    const server = http2.createServer((_request, response) => {
      response.writeHead(404).end();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const error = await failure({ target: `127.0.0.1:${String((server.address() as AddressInfo).port)}` });
    server.close();
    assert.match(error.message, /no gateway, or a proxy refused the call \(HTTP 404\)/);
  });

  it("is retryable where a proxy has nobody behind it", async () => {
    const server = http2.createServer((_request, response) => {
      response.writeHead(503).end();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const error = await failure({ target: `127.0.0.1:${String((server.address() as AddressInfo).port)}` });
    server.close();
    assert.deepEqual([error.kind, error.retryable], ["GATEWAY_UNAVAILABLE", true]);
  });
});

describe("a failed call", () => {
  const kinds: readonly (readonly [number, string, string])[] = [
    [3, "FIELD_INVALID", "INVALID_REQUEST"],
    [4, "SESSION_IDLE", "DEADLINE"],
    [5, "TRACE_NOT_FOUND", "SESSION_NOT_FOUND"],
    [7, "CALLER_FORBIDDEN", "ACCESS_DENIED"],
    [8, "CALLER_QUOTA", "CAPACITY"],
    [9, "UPSTREAM_GONE", "UPSTREAM"],
    [9, "RECONNECT_REQUIRED", "OTHER"],
    [10, "REVISION_MISMATCH", "CONFLICT"],
    [11, "RESUME_GAP", "INVALID_REQUEST"],
    [12, "NOT_SUPPORTED", "OTHER"],
    [13, "GATEWAY_BUG", "OTHER"],
    [13, "UPSTREAM_PROTOCOL", "UPSTREAM"],
    [14, "GATEWAY_DRAINING", "GATEWAY_UNAVAILABLE"],
    [14, "UPSTREAM_STALLED", "UPSTREAM"],
    [16, "CALLER_UNAUTHENTICATED", "ACCESS_DENIED"],
  ];
  for (const [code, reason, kind] of kinds) {
    it(`is ${kind} for ${reason}`, async () => {
      const gateway = await start();
      await using client = new Client({ target: gateway.target });
      const asking = client.getSession("x");
      const call = await gateway.call("GetSession");
      call.end(status(code, reason, "so it is", { metadata: { a: "b" } }));
      await assert.rejects(soon(asking), (error: unknown) => {
        assert(error instanceof WavegateError);
        assert.deepEqual([error.kind, error.reason, error.message, error.metadata], [kind, reason, "so it is", { a: "b" }]);
        return true;
      });
    });
  }

  it("has a deadline of its own", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target });
    await assert.rejects(soon(client.getSession("x", { timeoutMs: 50 })), {
      kind: "DEADLINE",
      message: /did not answer in 0\.05 s/,
    });
  });

  it("ends by its signal", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target });
    const controller = new AbortController();
    const asking = client.getSession("x", { signal: controller.signal });
    const call = await gateway.call("GetSession");
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(soon(asking), reason);
    await soon(call.closed);
    await assert.rejects(soon(client.getSession("x", { signal: controller.signal })), reason);
  });

  it("is told from one whose message is too large", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target, maxMessageBytes: 1000 });
    await assert.rejects(client.transcribeOnce(new Uint8Array(1001)), {
      kind: "INVALID_REQUEST",
      fieldViolations: [{ field: "content", description: /at most 1000 bytes/ }] as never,
    }).catch((error: unknown) => {
      // `assert.rejects` compares deeply; the words are what matters.
      assert.match(String(error), /at most 1000 bytes/);
    });
    const asking = client.getSession("x");
    const call = await gateway.call("GetSession");
    call.write(create(GetSessionResponseSchema, { session: { sessionId: "x".repeat(2000) } }));
    await assert.rejects(soon(asking), { kind: "INVALID_REQUEST", message: /is too large: \d+ bytes in one message/ });
    const other = client.getSession("x");
    const refused = status(8, "", "SERVER: Received message larger than max (2000 vs. 1000)");
    (await gateway.call("GetSession")).end({ ...refused, details: [] });
    await assert.rejects(soon(other), { kind: "INVALID_REQUEST", retryable: false });
  });
});

describe("connections", () => {
  it("are made again after a loss, and after a GOAWAY", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target });
    await ask(gateway, client);
    const [first] = gateway.calls;
    const session = first?.stream.session;
    session?.close();
    await ask(gateway, client);
    // The client may ask before it has heard of a loss; then the call is lost with the connection.
    const asking = client.getSession("x");
    (await gateway.call("GetSession")).disconnect();
    await assert.rejects(soon(asking), { kind: "GATEWAY_UNAVAILABLE" });
    await ask(gateway, client);
    client.close();
    await ask(gateway, client);
  });

  it("are tried again where a stream was refused, as by a GOAWAY that crosses it", async () => {
    const gateway = await start();
    await using client = new Client({ target: gateway.target });
    const asking = client.getSession("x");
    (await gateway.call("GetSession")).reset(http2.constants.NGHTTP2_REFUSED_STREAM);
    const again = await gateway.call("GetSession");
    again.write(create(GetSessionResponseSchema, {}));
    again.end();
    await soon(asking);
    const opening = client.synthesize();
    (await gateway.call()).reset(http2.constants.NGHTTP2_REFUSED_STREAM);
    const call = await gateway.call();
    call.started("s", {}, { resumeWindowS: 0 });
    await (await soon(opening)).abort();
  });

  it("go to every address of a name in turn", async (test) => {
    const here = await start();
    let there: FakeGateway;
    try {
      there = await FakeGateway.start({ host: "127.0.0.2", port: here.port });
    } catch {
      test.skip("this machine has one loopback address");
      return;
    }
    const { lookup } = dns;
    Object.assign(dns, {
      lookup: () =>
        Promise.resolve([
          { address: "127.0.0.1", family: 4 },
          { address: "127.0.0.2", family: 4 },
        ]),
    });
    syncBuiltinESMExports();
    const client = new Client({ target: `gateway.test:${String(here.port)}`, loadBalancing: "round_robin" });
    try {
      const asking = [client.getSession("a"), client.getSession("b")];
      for (const call of await Promise.all([here.call("GetSession"), there.call("GetSession")])) {
        call.write(create(GetSessionResponseSchema, {}));
        call.end();
      }
      await soon(Promise.all(asking));

      // A session stays with the gateway that it was opened at.
      for (let count = 0; count < 2; count++) {
        const opening = client.synthesize();
        const gateway = count === 0 ? here : there;
        const call = await gateway.call();
        call.started("s1");
        const session = await soon(opening);
        call.disconnect();
        const again = await gateway.call();
        again.started("s1", {}, { sequence: 1 });
        await again.input("start");
        const closing = session.close();
        await again.input("endSession");
        again.ended();
        await soon(closing);
      }

      // An address that nobody answers at is passed over.
      await there.stop();
      await ask(here, client);
      await ask(here, client);
    } finally {
      client.close();
      Object.assign(dns, { lookup });
      syncBuiltinESMExports();
    }
  });

  it("go to a Unix socket", async () => {
    const path = join(tmpdir(), `wavegate-test-${String(process.pid)}.sock`);
    const server = http2.createServer();
    server.on("stream", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "5", "grpc-message": "no" });
      stream.end();
    });
    server.listen(path);
    await once(server, "listening");
    const client = new Client({ target: `unix:${path}` });
    await assert.rejects(soon(client.getSession("x")), { kind: "SESSION_NOT_FOUND", message: "no" });
    client.close();
    server.close();
    rmSync(path, { force: true });
  });
});
