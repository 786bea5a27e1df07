/**
 * Interrupts a story, tells what the listener has heard of it, and answers.
 *
 *     node run.mjs barge_in
 */

import { Client, EstimateSource, UtteranceCancelled_Method, WavegateError } from "@wavegate/client";

try {
  await using client = new Client();
  await using session = await client.synthesize({ voiceId: "magnus" });
  const { sampleRateHertz: rate } = session.audioFormat;

  const story = await session.say("Once upon a time there was a very long story. ".repeat(20));
  let heardMs = 0;
  for await (const audio of story.audio()) {
    // Here a program plays it. What it has not read yet waits in the gateway, where the interruption drops it.
    heardMs += (audio.length / 2 / rate) * 1000;
    if (heardMs >= 1000) {
      await story.cancel({ playbackOffsetMs: heardMs });
    }
  }
  const outcome = await story.wait();
  if (outcome.case === "utteranceCancelled") {
    const { spokenText, remainingText, method, estimateSource } = outcome.value;
    console.log(`interrupted after ${(heardMs / 1000).toFixed(2)} s (${UtteranceCancelled_Method[method]})`);
    console.log(`heard:     "${spokenText}" (${EstimateSource[estimateSource]})`);
    console.log(`not heard: ${String(remainingText.length)} characters`);
  }

  const answer = await session.say("Yes? What can I do for you?");
  const audio = await answer.read();
  console.log(`answer:    ${(audio.length / 2 / rate).toFixed(2)} s of audio`);
} catch (error) {
  console.error(error instanceof WavegateError ? error.message : error);
  process.exitCode = 1;
}
