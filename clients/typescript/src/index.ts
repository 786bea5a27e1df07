/**
 * Client of the wavegate speech gateway: text to speech and speech to text over gRPC.
 *
 * @packageDocumentation
 */

export { wavHeader } from "./audio.js";
export {
  type CallOptions,
  Client,
  type ClientOptions,
  type Recording,
  type TlsOptions,
  type TranscribeOnceOptions,
} from "./client.js";
export { type ControlOptions, type SessionChange, SettingsStream } from "./control.js";
export type { WaitOptions } from "./duplex.js";
export {
  type ErrorKind,
  errorFromStatus,
  type FieldViolation,
  type QuotaViolation,
  type StatusCode,
  WavegateError,
  type WavegateErrorInit,
} from "./errors.js";
export * from "./gen/wavegate/speech/v1/session_service_pb.js";
export * from "./gen/wavegate/speech/v1/synthesis_service_pb.js";
export * from "./gen/wavegate/speech/v1/transcription_service_pb.js";
export * from "./gen/wavegate/speech/v1/types_pb.js";
export type { Speech, SpeechEvent, SynthesizeOnceOptions } from "./once.js";
export type { OwnEvent, SessionMoved, SessionOptions, SessionResumed } from "./session.js";
export type { Apply, UpdateOptions } from "./settings.js";
export {
  type CancelOptions,
  type SayOptions,
  type SendTextOptions,
  type SynthesisEvent,
  type SynthesisOptions,
  SynthesisSession,
  type Text,
  Utterance,
  type UtteranceEnd,
} from "./synthesis.js";
export type { LoadBalancing } from "./target.js";
export { durationFromMs, msFromDuration } from "./time.js";
export {
  type SendAudioOptions,
  type StreamAudioOptions,
  type TranscriptionEvent,
  type TranscriptionOptions,
  TranscriptionSession,
} from "./transcription.js";
