package wavegate;

import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.Flow;

/**
 * A piece of speech that is being made, as {@link SynthesisSession#say(String)} gives it.
 *
 * <p>Its audio can be read in one of four ways, and once: as an {@linkplain #audio() iterator}, an {@linkplain
 * #audioStream() input stream}, a {@linkplain #audioPublisher() publisher}, or {@linkplain #read() whole}. Each passes over
 * events of other kinds and the audio of utterances before this one, so only one of a session's readers can be used at a
 * time. All of them, and {@link #await()}, raise the utterance's failure, the session's, or what the iterator of the text
 * raised; a thread that is interrupted gets a {@link CancellationException} and keeps its interrupted status.
 */
public final class Utterance {
  private final SynthesisSession session;
  private final SynthesisCore core;
  private final SynthesisCore.Spoken spoken;

  Utterance(SynthesisSession session, SynthesisCore core, SynthesisCore.Spoken spoken) {
    this.session = session;
    this.core = core;
    this.spoken = spoken;
  }

  /**
   * The id of the utterance, which its events carry.
   *
   * @return the caller's own, or the one that the client made
   */
  public String id() {
    return spoken.id;
  }

  /**
   * Whether this side has cancelled it. The gateway's word on it is {@link #await()}.
   *
   * @return true from the call of {@link #cancel()} on, and after the iterator of its text has failed
   */
  public boolean isCancelled() {
    return core.lockedGet(() -> spoken.cancelled);
  }

  /**
   * How it ended.
   *
   * @return empty while it is being made, and where it failed
   */
  public Optional<UtteranceOutcome> outcome() {
    return core.lockedGet(() -> Optional.ofNullable(core.outcome(spoken)));
  }

  /**
   * The audio as it comes, to the end of the utterance; it ends at once when it is cancelled. Waiting for audio blocks.
   *
   * @return pieces in the session's format, to be walked through once
   */
  public Iterable<byte[]> audio() {
    return core.audioReader(spoken).iterable(session);
  }

  /**
   * The audio as a stream of bytes. Closing it cancels nothing.
   *
   * @return a stream whose {@code read} blocks until there is audio, and throws {@link java.io.InterruptedIOException}
   *     where the thread is interrupted
   */
  public InputStream audioStream() {
    return Reader.inputStream(core.audioReader(spoken), session);
  }

  /**
   * The audio for a subscriber, who is called on a thread of the client's executor.
   *
   * @return a publisher that takes one subscriber; what is not asked for waits in the gateway
   */
  public Flow.Publisher<byte[]> audioPublisher() {
    return core.audioReader(spoken).publisher(core.background, session);
  }

  /**
   * All of its audio in one piece.
   *
   * @return the audio that came until the end of the utterance, or until it was cancelled
   */
  public byte[] read() {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    for (byte[] piece : audio()) {
      all.writeBytes(piece);
    }
    return all.toByteArray();
  }

  /**
   * Waits for the end of the utterance; its audio waits meanwhile for whoever reads it. Python calls it {@code wait}.
   *
   * @return how it ended
   */
  public UtteranceOutcome await() {
    return Forgotten.holding(this, () -> core.await(spoken));
  }

  /** Barge-in, of this utterance alone; see {@link SynthesisSession#cancel(String, Duration)}. */
  public void cancel() {
    core.cancel(spoken.id, null);
  }

  /**
   * Barge-in, of this utterance alone; see {@link SynthesisSession#cancel(String, Duration)}.
   *
   * @param playbackOffset how much of its audio the listener has heard
   */
  public void cancel(Duration playbackOffset) {
    core.cancel(spoken.id, playbackOffset);
  }

  @Override
  public String toString() {
    SynthesisEvent outcome = core.lockedGet(() -> spoken.outcome);
    return "Utterance[" + spoken.id + " " + (outcome == null ? "open" : outcome.kind()) + "]";
  }
}
