import { create, createFileRegistry, createRegistry, type Registry } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
  file_google_protobuf_duration,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

function field(name: string, number: number, typeName?: string): {
  name: string;
  number: number;
  type: Type;
  typeName?: string;
  label: Label;
} {
  const kind = typeName === undefined ? { type: Type.STRING } : { type: Type.MESSAGE, typeName };
  return { name, number, label: Label.OPTIONAL, ...kind };
}

function list(name: string, number: number, typeName: string): ReturnType<typeof field> {
  return { ...field(name, number, typeName), label: Label.REPEATED };
}

/** google.rpc's details of errors, which ProtoJSON writes out, as far as the contract uses them. */
export function detailTypes(): Registry {
  const file = create(FileDescriptorProtoSchema, {
    name: "google/rpc/error_details.proto",
    package: "google.rpc",
    syntax: "proto3",
    dependency: ["google/protobuf/duration.proto"],
    messageType: [
      {
        name: "ErrorInfo",
        field: [
          field("reason", 1),
          field("domain", 2),
          list("metadata", 3, ".google.rpc.ErrorInfo.MetadataEntry"),
        ],
        nestedType: [{ name: "MetadataEntry", field: [field("key", 1), field("value", 2)], options: { mapEntry: true } }],
      },
      { name: "RetryInfo", field: [field("retry_delay", 1, ".google.protobuf.Duration")] },
      {
        name: "QuotaFailure",
        field: [list("violations", 1, ".google.rpc.QuotaFailure.Violation")],
        nestedType: [{ name: "Violation", field: [field("subject", 1), field("description", 2)] }],
      },
      {
        name: "BadRequest",
        field: [list("field_violations", 1, ".google.rpc.BadRequest.FieldViolation")],
        nestedType: [{ name: "FieldViolation", field: [field("field", 1), field("description", 2)] }],
      },
    ],
  });
  const files = createFileRegistry(
    create(FileDescriptorSetSchema, { file: [file_google_protobuf_duration.proto, file] }),
  );
  return createRegistry(...files);
}
