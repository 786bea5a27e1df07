package wavegate;

import java.util.List;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.UtteranceCompleted;
import wavegate.speech.v1.Warning;
import wavegate.speech.v1.WordTimings;

/** A spoken text, as {@link Client#synthesizeOnce(String, SynthesisOptions)} gives it. */
public final class Speech {
  private final byte[] audio;
  private final SessionStarted started;
  private final UtteranceCompleted completed;
  private final List<WordTimings.Word> words;
  private final List<Warning> warnings;

  Speech(
      byte[] audio,
      SessionStarted started,
      UtteranceCompleted completed,
      List<WordTimings.Word> words,
      List<Warning> warnings) {
    this.audio = audio;
    this.started = started;
    this.completed = completed;
    this.words = List.copyOf(words);
    this.warnings = List.copyOf(warnings);
  }

  /**
   * All of the audio.
   *
   * @return bytes in the format that {@link #started()} names; the same array each time
   */
  public byte[] audio() {
    return audio;
  }

  /**
   * The gateway's first answer.
   *
   * @return audio format, settings and trace id
   */
  public SessionStarted started() {
    return started;
  }

  /**
   * The gateway's last answer.
   *
   * @return what was measured
   */
  public UtteranceCompleted completed() {
    return completed;
  }

  /**
   * The words and their times.
   *
   * @return the words in order; none unless the settings ask for them and the voice has them
   */
  public List<WordTimings.Word> words() {
    return words;
  }

  /**
   * What there is to know.
   *
   * @return the warnings in order
   */
  public List<Warning> warnings() {
    return warnings;
  }
}
