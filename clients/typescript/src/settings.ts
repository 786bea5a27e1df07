import {
  create,
  type DescMessage,
  isMessage,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { type FieldMask, FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { sessionClosed, errorFromStatus, WavegateError } from "./errors.js";
import { ApplyPolicy, type SettingsAck, SettingsAck_State } from "./gen/wavegate/speech/v1/types_pb.js";

/** How much disruption a change of settings may cause. */
export type Apply = "NEXT_BOUNDARY" | "IMMEDIATE" | "NO_RECONNECT";

/** What goes with a change of settings, beside the settings themselves. */
export interface UpdateOptions {
  /** Names of settings to put back to their defaults: `speed`, `voiceId` or `voice_id`. */
  readonly reset?: readonly string[] | undefined;
  /** When to apply it, and at what cost; `NEXT_BOUNDARY` where it is not given. */
  readonly apply?: Apply | undefined;
  /** Refuse the change unless the settings are at this revision. */
  readonly expectedRevision?: bigint | number | undefined;
  /** Change nothing; the ack says what would happen. */
  readonly validateOnly?: boolean | undefined;
  /** An id of the caller's own; a repeated one is applied once. */
  readonly updateId?: string | undefined;
  /** Ends the wait for the ack, but does not take the change back. */
  readonly signal?: AbortSignal | undefined;
}

/** A message of the contract from what the caller wrote; throws a `TypeError` for what does not belong there. */
export function message<Desc extends DescMessage>(schema: Desc, init: MessageInitShape<Desc> | undefined): MessageShape<Desc> {
  const given: unknown = init;
  if (given !== undefined && (typeof given !== "object" || given === null)) {
    throw new TypeError(`${schema.name} is an object, not ${typeof given}`);
  }
  if (init !== undefined && !isMessage(init, schema)) {
    const names = schema.members.map((member) => member.localName);
    for (const name of Object.keys(init)) {
      if (!name.startsWith("$") && !names.includes(name)) {
        throw new TypeError(`there is no ${name} in ${schema.name}: there are ${names.join(", ")}`);
      }
    }
  }
  const made = create(schema, init);
  try {
    // Setting checks the type of a value, writing alone would make a number of a word.
    const fields = reflect(schema, made);
    for (const field of schema.fields) {
      if (fields.isSet(field) && field.fieldKind !== "message") {
        fields.set(field, fields.get(field));
      }
    }
    toBinary(schema, made);
  } catch (error) {
    throw new TypeError(`${schema.name} cannot be written: ${error instanceof Error ? error.message : String(error)}`);
  }
  return made;
}

/** The other fields of a change, as on the wire. */
export function updateFields(
  schema: DescMessage,
  options: UpdateOptions,
  updateId: string,
): {
  updateId: string;
  resetMask: FieldMask;
  applyPolicy: ApplyPolicy;
  expectedRevision?: bigint;
  validateOnly: boolean;
} {
  const apply = options.apply ?? "NEXT_BOUNDARY";
  const policies: Readonly<Record<string, ApplyPolicy>> = {
    NEXT_BOUNDARY: ApplyPolicy.NEXT_BOUNDARY,
    IMMEDIATE: ApplyPolicy.IMMEDIATE,
    NO_RECONNECT: ApplyPolicy.NO_RECONNECT,
  };
  const applyPolicy = policies[apply];
  if (applyPolicy === undefined) {
    throw new TypeError(`apply is one of ${Object.keys(policies).join(", ")}, not "${apply}"`);
  }
  const { expectedRevision } = options;
  return {
    updateId: options.updateId || updateId,
    resetMask: create(FieldMaskSchema, { paths: (options.reset ?? []).map((name) => fieldPath(schema, name)) }),
    applyPolicy,
    ...(expectedRevision === undefined ? {} : { expectedRevision: BigInt(expectedRevision) }),
    validateOnly: options.validateOnly ?? false,
  };
}

function fieldPath(schema: DescMessage, name: string): string {
  const field = schema.fields.find((each) => each.name === name || each.localName === name);
  if (field === undefined) {
    const names = schema.fields.map((each) => each.localName).join(", ");
    throw new TypeError(`there is no setting "${name}": there are ${names}`);
  }
  return field.name;
}

/** The terminal ack of a change that was not refused; throws what the gateway says of one that was. */
export function checkAck(ack: SettingsAck): SettingsAck {
  if (ack.state === SettingsAck_State.REJECTED) {
    throw ack.error ? errorFromStatus(ack.error) : new WavegateError("the settings were refused without a reason");
  }
  if (ack.state === SettingsAck_State.SESSION_ENDED) {
    throw sessionClosed("the session ended before the settings were applied");
  }
  return ack;
}
