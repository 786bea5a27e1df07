/** Certificates for tests: X.509 (RFC 5280) in DER, as little of it as TLS needs. */

import { createSign, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";

/** A certificate and its key, in PEM. */
export interface Certificate {
  readonly certificate: string;
  readonly key: string;
}

interface Authority extends Certificate {
  readonly name: string;
  readonly privateKey: KeyObject;
}

function tlv(tag: number, ...contents: Uint8Array[]): Uint8Array {
  const content = Buffer.concat(contents);
  const { length } = content;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...items: Uint8Array[]): Uint8Array => tlv(0x30, ...items);
const oid = (hex: string): Uint8Array => tlv(0x06, Buffer.from(hex, "hex"));
const ECDSA_SHA256 = sequence(oid("2a8648ce3d040302"));

function distinguishedName(name: string): Uint8Array {
  return sequence(tlv(0x31, sequence(oid("550403"), tlv(0x0c, Buffer.from(name)))));
}

function extension(hex: string, isCritical: boolean, value: Uint8Array): Uint8Array {
  const critical = isCritical ? [tlv(0x01, Buffer.from([0xff]))] : [];
  return sequence(oid(hex), ...critical, tlv(0x04, value));
}

function pem(kind: string, der: Uint8Array): string {
  const lines = Buffer.from(der).toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${kind}-----\n${lines.join("\n")}\n-----END ${kind}-----\n`;
}

function make(name: string, options: { isAuthority: boolean; by?: Authority }): Authority {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const extensions = sequence(
    extension("551d13", true, sequence(...(options.isAuthority ? [tlv(0x01, Buffer.from([0xff]))] : []))),
    // subjectAltName: a DNS name, and the loopback address.
    extension(
      "551d11",
      false,
      sequence(tlv(0x82, Buffer.from(name)), ...(name === "localhost" ? [tlv(0x87, Buffer.from([127, 0, 0, 1]))] : [])),
    ),
  );
  const validity = sequence(
    tlv(0x17, Buffer.from("200101000000Z")),
    tlv(0x17, Buffer.from("491231235959Z")),
  );
  const body = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ECDSA_SHA256,
    distinguishedName(options.by?.name ?? name),
    validity,
    distinguishedName(name),
    publicKey.export({ type: "spki", format: "der" }),
    tlv(0xa3, extensions),
  );
  const signature = createSign("sha256")
    .update(body)
    .sign(options.by?.privateKey ?? privateKey);
  const der = sequence(body, ECDSA_SHA256, tlv(0x03, Buffer.from([0]), signature));
  return {
    name,
    privateKey,
    certificate: pem("CERTIFICATE", der),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

/** An authority that signs what a test needs. */
export class TestAuthority {
  readonly #own = make("wavegate test authority", { isAuthority: true });

  get certificate(): string {
    return this.#own.certificate;
  }

  /** A certificate for a name; `localhost` is good for 127.0.0.1, too. */
  sign(name: string): Certificate {
    return make(name, { isAuthority: false, by: this.#own });
  }
}
