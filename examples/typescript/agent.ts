/**
 * A voice agent without a microphone: it listens to a caller, answers each turn with a toy reply while that is still
 * being written, and stops when the caller speaks over it.
 *
 *     node run.mjs agent
 *
 * The caller is played by the gateway's own voice: a question, and an interruption while the answer is spoken. A real
 * agent has a microphone in the place of `speakAsCaller`, a loudspeaker in the place of the clock in `play`, and a language
 * model in the place of `reply`.
 */

import { setTimeout as sleep } from "node:timers/promises";
import {
  AudioEncoding,
  Client,
  type SynthesisSession,
  type TranscriptionSession,
  type Utterance,
  WavegateError,
} from "@wavegate/client";

const LISTENING = { encoding: AudioEncoding.LINEAR16, sampleRateHertz: 16000 };

/** Words of an answer, one after the other. */
async function* reply(heard: string): AsyncGenerator<string, void, undefined> {
  const story = "Here is a story, of which nobody wants to hear the end. ".repeat(4);
  const answer = /^stop\b/i.test(heard) ? "All right." : `You said: ${heard} ${story}`;
  for (const word of answer.split(/(?<=\s)/)) {
    await sleep(20);
    yield word;
  }
}

class Agent {
  readonly #mouth: SynthesisSession;
  #answer: { readonly utterance: Utterance; playedMs: number } | undefined;
  readonly #playing: Promise<void>[] = [];
  #onSpeaking: (() => void) | undefined;
  /** Settles once a second of an answer was heard. */
  readonly speaking = new Promise<void>((resolve) => {
    this.#onSpeaking = resolve;
  });

  constructor(mouth: SynthesisSession) {
    this.#mouth = mouth;
  }

  /** Hears the caller to the end. */
  async listen(ears: TranscriptionSession): Promise<void> {
    for await (const event of ears) {
      if (event.case === "speechStarted") {
        await this.#interrupt();
      } else if (event.case === "transcript" && event.value.isFinal && event.value.text.trim() !== "") {
        console.log(`caller: ${event.value.text}`);
        await this.#interrupt();
        const utterance = await this.#mouth.say(reply(event.value.text));
        this.#answer = { utterance, playedMs: 0 };
        this.#playing.push(this.#play(this.#answer));
      }
    }
  }

  /** Waits until everything was played or interrupted. */
  async finish(): Promise<void> {
    await Promise.all(this.#playing);
  }

  async #interrupt(): Promise<void> {
    const answer = this.#answer;
    if (answer !== undefined) {
      this.#answer = undefined;
      await answer.utterance.cancel({ playbackOffsetMs: answer.playedMs });
    }
  }

  /** Plays an answer: a clock stands for the loudspeaker. */
  async #play(answer: { readonly utterance: Utterance; playedMs: number }): Promise<void> {
    const { sampleRateHertz: rate } = this.#mouth.audioFormat;
    for await (const audio of answer.utterance.audio()) {
      const ms = (audio.length / 2 / rate) * 1000;
      await sleep(ms);
      answer.playedMs += ms;
      if (answer.playedMs >= 1000) {
        this.#onSpeaking?.();
      }
    }
    const outcome = await answer.utterance.wait();
    if (outcome.case === "utteranceCancelled") {
      console.log(`agent:  ${outcome.value.spokenText} [interrupted after ${(answer.playedMs / 1000).toFixed(1)} s]`);
    } else {
      console.log(`agent:  [spoke for ${(answer.playedMs / 1000).toFixed(1)} s]`);
    }
    if (this.#answer === answer) {
      this.#answer = undefined;
    }
  }
}

async function speakAsCaller(client: Client, ears: TranscriptionSession, text: string): Promise<void> {
  const { audio } = await client.synthesizeOnce(text, { voiceId: "magnus" }, { audioFormat: LISTENING });
  await ears.streamAudio([audio, new Uint8Array(16_000)], { paced: true }); // and half a second of silence
  await ears.finalize(); // which a real agent leaves to the pauses of its caller
}

try {
  await using client = new Client();
  await using mouth = await client.synthesize({ voiceId: "avery", wordTimings: true });
  await using ears = await client.transcribe(
    { languageCode: "en", voiceActivityEvents: true },
    { audioFormat: LISTENING },
  );
  const agent = new Agent(mouth);
  const listening = agent.listen(ears);
  await speakAsCaller(client, ears, "Hello there. How are you today?");
  await Promise.race([agent.speaking, sleep(10_000)]);
  await speakAsCaller(client, ears, "Stop.");
  await ears.end();
  await listening;
  await agent.finish();
} catch (error) {
  console.error(error instanceof WavegateError ? error.message : error);
  process.exitCode = 1;
}
