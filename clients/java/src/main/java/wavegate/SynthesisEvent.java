package wavegate;

import wavegate.speech.v1.AudioChunk;
import wavegate.speech.v1.UtteranceCancelled;
import wavegate.speech.v1.UtteranceCompleted;
import wavegate.speech.v1.UtteranceFailed;
import wavegate.speech.v1.UtteranceStarted;
import wavegate.speech.v1.WordTimings;

/** Something that a {@link SynthesisSession} reports; see {@link SessionEvent}. */
public final class SynthesisEvent extends SessionEvent {
  SynthesisEvent(Kind kind, Object value) {
    super(kind, value);
  }

  /**
   * An utterance that went upstream.
   *
   * @return what a {@link SessionEvent.Kind#UTTERANCE_STARTED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public UtteranceStarted utteranceStarted() {
    return get(Kind.UTTERANCE_STARTED, UtteranceStarted.class);
  }

  /**
   * A piece of audio.
   *
   * @return what a {@link SessionEvent.Kind#AUDIO} holds
   * @throws IllegalStateException for an event of another kind
   */
  public AudioChunk audio() {
    return get(Kind.AUDIO, AudioChunk.class);
  }

  /**
   * Words, and when they are spoken.
   *
   * @return what a {@link SessionEvent.Kind#WORD_TIMINGS} holds
   * @throws IllegalStateException for an event of another kind
   */
  public WordTimings wordTimings() {
    return get(Kind.WORD_TIMINGS, WordTimings.class);
  }

  /**
   * An utterance that was spoken to its end.
   *
   * @return what a {@link SessionEvent.Kind#UTTERANCE_COMPLETED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public UtteranceCompleted utteranceCompleted() {
    return get(Kind.UTTERANCE_COMPLETED, UtteranceCompleted.class);
  }

  /**
   * An utterance that was cancelled.
   *
   * @return what a {@link SessionEvent.Kind#UTTERANCE_CANCELLED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public UtteranceCancelled utteranceCancelled() {
    return get(Kind.UTTERANCE_CANCELLED, UtteranceCancelled.class);
  }

  /**
   * An utterance that failed.
   *
   * @return what a {@link SessionEvent.Kind#UTTERANCE_FAILED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public UtteranceFailed utteranceFailed() {
    return get(Kind.UTTERANCE_FAILED, UtteranceFailed.class);
  }
}
