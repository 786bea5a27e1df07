import type { MessageInitShape } from "@bufbuild/protobuf";
import { concatenated } from "./audio.js";
import type { Channel } from "./channel.js";
import type { WaitOptions } from "./duplex.js";
import { connectionLost } from "./errors.js";
import {
  SynthesisService,
  SynthesizeRequestSchema,
  type SynthesizeResponse,
  type UtteranceCompleted,
  type WordTimings_Word,
} from "./gen/wavegate/speech/v1/synthesis_service_pb.js";
import {
  type AudioFormatSchema,
  type SessionStarted,
  SynthesisSettingsSchema,
  type Warning,
} from "./gen/wavegate/speech/v1/types_pb.js";
import { message } from "./settings.js";

/** What may go with a text that is spoken whole. */
export interface SynthesizeOnceOptions extends WaitOptions {
  /** The audio wanted; 16-bit samples at 24000 Hz where it is not given. */
  readonly audioFormat?: MessageInitShape<typeof AudioFormatSchema> | undefined;
  /** An id of the caller's own, for traces and logs. */
  readonly requestId?: string | undefined;
}

/** What comes of a text that is spoken whole, as it comes. */
export type SpeechEvent = Exclude<SynthesizeResponse["event"], { case: undefined }>;

/** A spoken text. */
export interface Speech {
  /** All of its audio. */
  readonly audio: Uint8Array;
  /** Says what `audio` is, by its `audioFormat`. */
  readonly started: SessionStarted;
  /** What was measured, and how its end was known. */
  readonly completed: UtteranceCompleted;
  /** Its words and their times, with `wordTimings`. */
  readonly words: readonly WordTimings_Word[];
  /** What to know that did not stop it. */
  readonly warnings: readonly Warning[];
}

/** The events of a text that is spoken whole. Leaving early cancels it. @internal */
export async function* speechEvents(
  channel: Channel,
  text: string,
  settings: MessageInitShape<typeof SynthesisSettingsSchema>,
  options: SynthesizeOnceOptions,
): AsyncGenerator<SpeechEvent, void, undefined> {
  if (typeof text !== "string") {
    throw new TypeError(`a text is a string, not ${typeof text}`);
  }
  const request = message(SynthesizeRequestSchema, {
    text: text.toWellFormed(),
    settings: message(SynthesisSettingsSchema, settings),
    ...(options.audioFormat === undefined ? {} : { audioFormat: options.audioFormat }),
    requestId: options.requestId ?? "",
  });
  let completed = false;
  const { synthesize } = SynthesisService.method;
  for await (const { event } of channel.serverStream(synthesize, request, undefined, options.signal)) {
    if (event.case !== undefined) {
      completed ||= event.case === "utteranceCompleted";
      yield event;
    }
  }
  if (!completed) {
    throw connectionLost(`the gateway at ${channel.target} ended the speech before it was complete; ask again`);
  }
}

/** All of it in one piece. @internal */
export async function speech(channel: Channel, events: AsyncIterable<SpeechEvent>): Promise<Speech> {
  const audio: Uint8Array[] = [];
  const words: WordTimings_Word[] = [];
  const warnings: Warning[] = [];
  let started: SessionStarted | undefined;
  let completed: UtteranceCompleted | undefined;
  for await (const event of events) {
    switch (event.case) {
      case "sessionStarted":
        started = event.value;
        break;
      case "audio":
        audio.push(event.value.audio);
        break;
      case "wordTimings":
        words.push(...event.value.words);
        break;
      case "warning":
        warnings.push(event.value);
        break;
      case "utteranceCompleted":
        completed = event.value;
        break;
    }
  }
  if (started === undefined || completed === undefined) {
    throw connectionLost(`the gateway at ${channel.target} did not say what it sends`);
  }
  return { audio: concatenated(audio), started, completed, words, warnings };
}
