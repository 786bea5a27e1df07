package wavegate;

import wavegate.speech.v1.AudioProgress;
import wavegate.speech.v1.SpeechEnded;
import wavegate.speech.v1.SpeechStarted;
import wavegate.speech.v1.Transcript;

/** Something that a {@link TranscriptionSession} reports; see {@link SessionEvent}. */
public final class TranscriptionEvent extends SessionEvent {
  TranscriptionEvent(Kind kind, Object value) {
    super(kind, value);
  }

  /**
   * What was said, so far or for good.
   *
   * @return what a {@link SessionEvent.Kind#TRANSCRIPT} holds
   * @throws IllegalStateException for an event of another kind
   */
  public Transcript transcript() {
    return get(Kind.TRANSCRIPT, Transcript.class);
  }

  /**
   * Where a voice began.
   *
   * @return what a {@link SessionEvent.Kind#SPEECH_STARTED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public SpeechStarted speechStarted() {
    return get(Kind.SPEECH_STARTED, SpeechStarted.class);
  }

  /**
   * Where a voice stopped.
   *
   * @return what a {@link SessionEvent.Kind#SPEECH_ENDED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public SpeechEnded speechEnded() {
    return get(Kind.SPEECH_ENDED, SpeechEnded.class);
  }

  /**
   * How far the audio has come.
   *
   * @return what a {@link SessionEvent.Kind#PROGRESS} holds
   * @throws IllegalStateException for an event of another kind
   */
  public AudioProgress progress() {
    return get(Kind.PROGRESS, AudioProgress.class);
  }
}
