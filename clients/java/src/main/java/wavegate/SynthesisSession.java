package wavegate;

import java.io.InputStream;
import java.lang.ref.Cleaner;
import java.time.Duration;
import java.util.Iterator;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.Flow;
import java.util.function.Supplier;
import java.util.stream.Stream;
import wavegate.speech.v1.GoAway;
import wavegate.speech.v1.SessionEnded;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.SynthesisSettings;

/**
 * A session of speech synthesis: text in, audio out. {@link Client#synthesize(SynthesisOptions)} opens it.
 *
 * <p>Any number of threads may use it, platform or virtual; one of them reads. Utterances are spoken in order. Every text
 * carries its utterance's id, so that a late piece of a cancelled utterance is never spoken.
 *
 * <p>Methods that send return once the transport has taken what they send, and so slow the caller down to what the gateway
 * takes. Methods that wait can be interrupted: they throw a {@link CancellationException}, keep the thread's interrupted
 * status, and take nothing back that was sent. All of them throw a {@link WavegateException} where the session has failed.
 *
 * <p>A lost connection is made again within the resume window: what was sent arrives once, what was said is delivered
 * once, in order, with a {@link SessionEvent.Kind#SESSION_RESUMED} in between. A session whose gateway shuts down moves to
 * another one between two utterances, with a {@link SessionEvent.Kind#SESSION_MOVED}: the one that is being heard is
 * finished where it is, those behind it are spoken by the other gateway. One that its gateway cannot finish in its time
 * ends with {@link SessionEvent.Kind#UTTERANCE_FAILED}. {@link SessionOptions} switch both off.
 *
 * <p>{@link #close()} finishes the session and waits for that; {@link #abort()} ends it at once. A session that is
 * forgotten without either is ended when the garbage collector finds it.
 */
public final class SynthesisSession implements AutoCloseable {
  private final SynthesisCore core;
  private final Object client;
  private final Cleaner.Cleanable forgotten;

  SynthesisSession(SynthesisCore core, Object client) {
    this.core = core;
    this.client = client; // which is not taken for forgotten while a session lives
    this.forgotten = Forgotten.watch(this, core::leaveAtOnce);
  }

  /**
   * What the gateway and its other calls name this session. It changes where the session moves.
   *
   * @return the id
   */
  public String sessionId() {
    return started().getSessionId();
  }

  /**
   * The gateway's first answer: audio format, limits, trace id.
   *
   * @return the answer, since the last move
   */
  public SessionStarted started() {
    return core.lockedGet(() -> core.started);
  }

  /**
   * The settings in force, as far as acknowledgements have told; changes from outside included.
   *
   * @return the settings, defaults filled in
   */
  public SynthesisSettings settings() {
    return core.lockedGet(() -> core.settings.getSynthesis());
  }

  /**
   * Counts the changes of settings, this session's own and others'.
   *
   * @return 1 at the start, and again after a move
   */
  public long settingsRevision() {
    return core.lockedGet(() -> core.settingsRevision);
  }

  /**
   * The gateway's notice that it will shut down.
   *
   * @return empty until then, and again once the session has moved
   */
  public Optional<GoAway> goAway() {
    return core.lockedGet(() -> Optional.ofNullable(core.goAway));
  }

  /**
   * How the session ended, with its totals since the last move.
   *
   * @return empty until then, and where the connection was lost for good
   */
  public Optional<SessionEnded> ended() {
    return core.lockedGet(() -> Optional.ofNullable(core.ended));
  }

  // --- text ---------------------------------------------------------------------------------------

  /**
   * Speaks one utterance, after those before it.
   *
   * @param text the whole text
   * @return the utterance, at once
   */
  public Utterance say(String text) {
    return say(text, null);
  }

  /**
   * Speaks one utterance, after those before it.
   *
   * @param text the whole text
   * @param utteranceId the caller's own id of it; null: one is made
   * @return the utterance, at once
   * @throws IllegalArgumentException for the id of an utterance that is over
   */
  public Utterance say(String text, String utteranceId) {
    Objects.requireNonNull(text, "text");
    return handle(() -> core.say(text, utteranceId));
  }

  /**
   * Speaks one utterance whose text comes in pieces, such as a language model's tokens.
   *
   * <p>The pieces are asked for on a thread of the client's executor, so asking may block; it is interrupted when the
   * utterance is cancelled. What is said meanwhile waits until the iterator has ended. What the iterator throws cancels the
   * utterance and comes out of the handle, or out of {@link #close()} if nobody asked.
   *
   * @param pieces the pieces, joined as they are, without a blank between them
   * @return the utterance, at once
   */
  public Utterance say(Iterable<String> pieces) {
    return say(pieces, null);
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #say(Iterable)}.
   *
   * @param pieces the pieces
   * @param utteranceId the caller's own id of it; null: one is made
   * @return the utterance, at once
   * @throws IllegalArgumentException for the id of an utterance that is over
   */
  public Utterance say(Iterable<String> pieces, String utteranceId) {
    return handle(() -> core.say(pieces.iterator(), null, utteranceId));
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #say(Iterable)}.
   *
   * @param pieces the pieces; closed in the end if it can be
   * @return the utterance, at once
   */
  public Utterance say(Iterator<String> pieces) {
    return say(pieces, null);
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #say(Iterable)}.
   *
   * @param pieces the pieces; closed in the end if it can be
   * @param utteranceId the caller's own id of it; null: one is made
   * @return the utterance, at once
   * @throws IllegalArgumentException for the id of an utterance that is over
   */
  public Utterance say(Iterator<String> pieces, String utteranceId) {
    Objects.requireNonNull(pieces, "pieces");
    return handle(() -> core.say(pieces, closeable(pieces), utteranceId));
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #say(Iterable)}.
   *
   * @param pieces the pieces; closed in the end
   * @return the utterance, at once
   */
  public Utterance say(Stream<String> pieces) {
    return say(pieces, null);
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #say(Iterable)}.
   *
   * @param pieces the pieces; closed in the end
   * @param utteranceId the caller's own id of it; null: one is made
   * @return the utterance, at once
   * @throws IllegalArgumentException for the id of an utterance that is over
   */
  public Utterance say(Stream<String> pieces, String utteranceId) {
    return handle(() -> core.say(pieces.iterator(), pieces, utteranceId));
  }

  /**
   * Speaks one utterance whose text is published in pieces. One piece is asked for when the one before has been taken;
   * the subscription is cancelled with the utterance. An error of the publisher is what an iterator's exception is.
   *
   * @param pieces the pieces
   * @return the utterance, at once
   */
  public Utterance say(Flow.Publisher<String> pieces) {
    return say(pieces, null);
  }

  /**
   * Speaks one utterance whose text is published in pieces; see {@link #say(Flow.Publisher)}.
   *
   * @param pieces the pieces
   * @param utteranceId the caller's own id of it; null: one is made
   * @return the utterance, at once
   * @throws IllegalArgumentException for the id of an utterance that is over
   */
  public Utterance say(Flow.Publisher<String> pieces, String utteranceId) {
    Objects.requireNonNull(pieces, "pieces");
    return handle(() -> core.say(pieces, utteranceId));
  }

  /**
   * Speaks one utterance whose text comes in pieces, asked for on the calling thread; returns when the last one is sent.
   *
   * <p>Ends early, without an error, once the utterance is over or cancelled. What the iterator throws comes out of here
   * and leaves the utterance open, and so does an interrupt: end it or cancel it.
   *
   * @param pieces the pieces
   * @return the utterance
   */
  public Utterance streamText(Iterable<String> pieces) {
    return streamText(pieces, null);
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #streamText(Iterable)}.
   *
   * @param pieces the pieces
   * @param utteranceId the caller's own id of it; null: one is made
   * @return the utterance
   * @throws IllegalArgumentException for the id of an utterance that is over
   */
  public Utterance streamText(Iterable<String> pieces, String utteranceId) {
    return handle(() -> core.streamText(pieces.iterator(), null, utteranceId));
  }

  /**
   * Speaks one utterance whose text comes in pieces; see {@link #streamText(Iterable)}.
   *
   * @param pieces the pieces; closed in the end
   * @return the utterance
   */
  public Utterance streamText(Stream<String> pieces) {
    return handle(() -> core.streamText(pieces.iterator(), pieces, null));
  }

  /**
   * Sends a piece of text of the open utterance, and where there is none, of a new one.
   *
   * @param text the piece, joined to those before it as it is
   * @return the utterance
   */
  public Utterance sendText(String text) {
    return sendText(text, null, false);
  }

  /**
   * Sends a piece of text. A new id ends the utterance before it.
   *
   * @param text the piece, joined to those before it as it is
   * @param utteranceId the utterance; null: the open one, and where there is none, a new one
   * @param endUtterance whether it is the last piece
   * @return the utterance
   */
  public Utterance sendText(String text, String utteranceId, boolean endUtterance) {
    Objects.requireNonNull(text, "text");
    return handle(() -> core.sendText(text, utteranceId, endUtterance));
  }

  /** Speaks now what is buffered of the open utterance, and keeps it open. */
  public void flush() {
    core.flush(null);
  }

  /**
   * Speaks now what is buffered of an utterance, and keeps it open.
   *
   * @param utteranceId the utterance
   */
  public void flush(String utteranceId) {
    core.flush(utteranceId);
  }

  /** Says that the open utterance has no more text. */
  public void endUtterance() {
    core.endUtterance(null);
  }

  /**
   * Says that an utterance has no more text.
   *
   * @param utteranceId the utterance
   */
  public void endUtterance(String utteranceId) {
    core.endUtterance(utteranceId);
  }

  // --- barge-in -----------------------------------------------------------------------------------

  /** Barge-in: stops every utterance that has not ended, and keeps the session; see {@link #cancel(String, Duration)}. */
  public void cancel() {
    core.cancel(null, null);
  }

  /**
   * Barge-in: stops an utterance, and keeps the session.
   *
   * <p>From the call on no audio of it is delivered: what is buffered here is dropped, and what arrives late too. The
   * iterator of its text is stopped. Returns when the request is sent; {@link Utterance#await()} tells what was spoken. An
   * utterance that has ended stays as it is.
   *
   * @param utteranceId the utterance; null: every one that has not ended
   * @param playbackOffset how much of its audio the listener has heard; null: not known
   */
  public void cancel(String utteranceId, Duration playbackOffset) {
    core.cancel(utteranceId, playbackOffset);
  }

  /**
   * Tells how much of an utterance has been played, for metrics and for exact cancels.
   *
   * @param utteranceId the utterance
   * @param playbackOffset how much of its audio has been played, from its start
   */
  public void reportPlayback(String utteranceId, Duration playbackOffset) {
    core.reportPlayback(utteranceId, playbackOffset);
  }

  // --- settings -----------------------------------------------------------------------------------

  /**
   * Changes settings from here on in the text; see {@link #updateSettings(SynthesisSettings, UpdateOptions)}.
   *
   * @param delta the settings that change
   * @return how each took effect
   */
  public SettingsAck updateSettings(SynthesisSettings delta) {
    return updateSettings(delta, UpdateOptions.DEFAULT);
  }

  /**
   * Changes settings from here on in the text; returns once that is applied, superseded or validated.
   *
   * <p>Utterances that start later use them; with {@code APPLY_POLICY_IMMEDIATE} the rest of the open one, too. A thread
   * that is interrupted while it waits does not take the change back.
   *
   * @param delta the settings that change; what is not set stays as it is
   * @param options when to apply it, what to put back to its default, ...
   * @return how each took effect
   * @throws WavegateException as the gateway says against it; then nothing has changed
   */
  public SettingsAck updateSettings(SynthesisSettings delta, UpdateOptions options) {
    options.check(SynthesisSettings.getDescriptor(), false);
    return Forgotten.holding(
        this, () -> core.update(options, id -> core.update(delta, options, id)));
  }

  // --- reading ------------------------------------------------------------------------------------

  /**
   * Every event in order, {@link SessionEvent.Kind#SESSION_ENDED} last; then the session's failure is thrown if there is
   * one. Waiting for an event blocks. One reader at a time; leaving the loop keeps the rest for the next.
   *
   * @return the events
   */
  public Iterable<SynthesisEvent> events() {
    return core.eventReader().iterable(this);
  }

  /**
   * Every event in order, for a subscriber, who is called on a thread of the client's executor. What is not asked for
   * waits, audio in the gateway.
   *
   * @return a publisher that takes one subscriber at a time
   */
  public Flow.Publisher<SynthesisEvent> publisher() {
    return core.eventReader().publisher(core.background, this);
  }

  /**
   * The audio of all utterances, to the end of the session; other events are passed over. An utterance's failure is
   * thrown, and the next iterator goes on behind it.
   *
   * @return pieces in the session's format
   */
  public Iterable<byte[]> audio() {
    return core.audioReader().iterable(this);
  }

  /**
   * The audio of all utterances as a stream of bytes, to the end of the session; see {@link #audio()}. Closing it ends
   * nothing.
   *
   * @return the bytes
   */
  public InputStream audioStream() {
    return Reader.inputStream(core.audioReader(), this);
  }

  // --- end ----------------------------------------------------------------------------------------

  /**
   * Says that no text follows, once every iterator handed to {@code say} has ended. All of it is still spoken, and the
   * events go on until {@link SessionEvent.Kind#SESSION_ENDED}.
   */
  public void end() {
    core.end();
  }

  /**
   * Ends the session now: what is not spoken yet is dropped. {@link SessionEvent.Kind#SESSION_ENDED} still follows.
   */
  public void discard() {
    core.discardAll();
  }

  /**
   * Finishes the session: sends the end, and waits until everything that was said is spoken. What nobody has read by then
   * is thrown away, unless a subscriber will have it. After {@link #discard()} nothing is waited for; a second call does
   * nothing.
   *
   * @throws WavegateException the session's failure, if nobody has seen it yet
   * @throws CancellationException where the thread is interrupted; the session is ended at once then
   */
  @Override
  public void close() {
    try {
      core.close();
    } finally {
      forgotten.clean();
    }
  }

  /** Ends the session at once, at the gateway too. Use it where a failure of the caller's own leaves the work undone. */
  public void abort() {
    core.leave();
    forgotten.clean();
  }

  private Utterance handle(Supplier<SynthesisCore.Spoken> saying) {
    return new Utterance(this, core, Forgotten.holding(this, saying));
  }

  private static AutoCloseable closeable(Object pieces) {
    return pieces instanceof AutoCloseable closeable ? closeable : null;
  }

  @Override
  public String toString() {
    return "SynthesisSession[" + core.describe() + " of " + client + "]";
  }
}
