package wavegate;

import wavegate.speech.v1.ConnectionEvent;
import wavegate.speech.v1.GoAway;
import wavegate.speech.v1.SessionEnded;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.Warning;

/**
 * Something that a session reports. What it holds is a message of the contract, or one of the client's own records.
 *
 * <p>Decide by {@link #kind()}, and take what that kind holds by the method of its name. Newer clients may know more
 * kinds, so a {@code switch} needs a {@code default}.
 */
public abstract sealed class SessionEvent permits SynthesisEvent, TranscriptionEvent {
  /** What an event is about. */
  public enum Kind {
    /** The session is open: {@link SessionEvent#sessionStarted()}. */
    SESSION_STARTED,
    /** An utterance went upstream: {@link SynthesisEvent#utteranceStarted()}. */
    UTTERANCE_STARTED,
    /** A piece of audio: {@link SynthesisEvent#audio()}. */
    AUDIO,
    /** Words and their times: {@link SynthesisEvent#wordTimings()}. */
    WORD_TIMINGS,
    /** An utterance was spoken to its end: {@link SynthesisEvent#utteranceCompleted()}. */
    UTTERANCE_COMPLETED,
    /** An utterance was cancelled: {@link SynthesisEvent#utteranceCancelled()}. */
    UTTERANCE_CANCELLED,
    /** An utterance failed: {@link SynthesisEvent#utteranceFailed()}. */
    UTTERANCE_FAILED,
    /** What was said, so far or for good: {@link TranscriptionEvent#transcript()}. */
    TRANSCRIPT,
    /** A voice began: {@link TranscriptionEvent#speechStarted()}. */
    SPEECH_STARTED,
    /** A voice stopped: {@link TranscriptionEvent#speechEnded()}. */
    SPEECH_ENDED,
    /** How far the audio has come: {@link TranscriptionEvent#progress()}. */
    PROGRESS,
    /** What became of a settings delta: {@link SessionEvent#settingsAck()}. */
    SETTINGS_ACK,
    /** Something happened to the upstream connection: {@link SessionEvent#connection()}. */
    CONNECTION,
    /** Something to know: {@link SessionEvent#warning()}. */
    WARNING,
    /** The session will have to end soon: {@link SessionEvent#goAway()}. */
    GO_AWAY,
    /** The session has ended; the last event: {@link SessionEvent#sessionEnded()}. */
    SESSION_ENDED,
    /** A lost connection was made again: {@link SessionEvent#sessionResumed()}. */
    SESSION_RESUMED,
    /** The session went on at another gateway: {@link SessionEvent#sessionMoved()}. */
    SESSION_MOVED
  }

  private final Kind kind;
  private final Object value;

  SessionEvent(Kind kind, Object value) {
    this.kind = kind;
    this.value = value;
  }

  /**
   * What the event is about.
   *
   * @return the kind
   */
  public final Kind kind() {
    return kind;
  }

  /**
   * What the event holds, for {@code instanceof}.
   *
   * @return the contract's message, or a {@link SessionResumed} or {@link SessionMoved}
   */
  public final Object value() {
    return value;
  }

  /**
   * The first answer of the session.
   *
   * @return what a {@link Kind#SESSION_STARTED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final SessionStarted sessionStarted() {
    return get(Kind.SESSION_STARTED, SessionStarted.class);
  }

  /**
   * What became of a settings delta.
   *
   * @return what a {@link Kind#SETTINGS_ACK} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final SettingsAck settingsAck() {
    return get(Kind.SETTINGS_ACK, SettingsAck.class);
  }

  /**
   * What happened to the upstream connection.
   *
   * @return what a {@link Kind#CONNECTION} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final ConnectionEvent connection() {
    return get(Kind.CONNECTION, ConnectionEvent.class);
  }

  /**
   * Something to know.
   *
   * @return what a {@link Kind#WARNING} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final Warning warning() {
    return get(Kind.WARNING, Warning.class);
  }

  /**
   * The gateway's notice that the session will have to end.
   *
   * @return what a {@link Kind#GO_AWAY} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final GoAway goAway() {
    return get(Kind.GO_AWAY, GoAway.class);
  }

  /**
   * How the session ended.
   *
   * @return what a {@link Kind#SESSION_ENDED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final SessionEnded sessionEnded() {
    return get(Kind.SESSION_ENDED, SessionEnded.class);
  }

  /**
   * How a lost connection was made again.
   *
   * @return what a {@link Kind#SESSION_RESUMED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final SessionResumed sessionResumed() {
    return get(Kind.SESSION_RESUMED, SessionResumed.class);
  }

  /**
   * Where the session has gone.
   *
   * @return what a {@link Kind#SESSION_MOVED} holds
   * @throws IllegalStateException for an event of another kind
   */
  public final SessionMoved sessionMoved() {
    return get(Kind.SESSION_MOVED, SessionMoved.class);
  }

  final <T> T get(Kind wanted, Class<T> type) {
    if (kind != wanted) {
      throw new IllegalStateException("the event is " + kind + ", not " + wanted);
    }
    return type.cast(value);
  }

  @Override
  public String toString() {
    return kind + " " + value.toString().strip();
  }
}
