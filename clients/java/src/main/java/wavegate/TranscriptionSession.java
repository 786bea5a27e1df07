package wavegate;

import java.io.IOException;
import java.io.InputStream;
import java.lang.ref.Cleaner;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.GoAway;
import wavegate.speech.v1.SessionEnded;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.Transcript;
import wavegate.speech.v1.TranscriptionSettings;

/**
 * A session of transcription: audio in, transcripts out. {@link Client#transcribe(TranscriptionOptions)} opens it.
 *
 * <p>Any number of threads may use it, platform or virtual: usually one sends and one reads. Transcripts that nobody reads
 * yet are kept. Methods that send return once the transport has taken what they send. Methods that wait can be interrupted:
 * they throw a {@link CancellationException}, keep the thread's interrupted status, and take nothing back that was sent.
 * All of them throw a {@link WavegateException} where the session has failed.
 *
 * <p>A lost connection is made again within the resume window, with a {@link SessionEvent.Kind#SESSION_RESUMED}. A session
 * whose gateway shuts down moves to another one, with a {@link SessionEvent.Kind#SESSION_MOVED}: the audio behind the last
 * final transcript, which is kept here for that (30 s of it at most), is transcribed there, so that all offsets stay on one
 * timeline and no word is lost or comes twice. A session that sends OGG_OPUS stays where it is, and so does one whose input
 * has ended. {@link SessionOptions} switch both off.
 *
 * <p>{@link #close()} finishes the session and waits for that; {@link #abort()} ends it at once. A session that is
 * forgotten without either is ended when the garbage collector finds it.
 */
public final class TranscriptionSession implements AutoCloseable {
  /** Paced audio goes out in pieces of at most this playing time. */
  private static final Duration PACED_PIECE = Duration.ofMillis(100);

  private final TranscriptionCore core;
  private final Object client;
  private final Cleaner.Cleanable forgotten;

  TranscriptionSession(TranscriptionCore core, Object client) {
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
  public TranscriptionSettings settings() {
    return core.lockedGet(() -> core.settings.getTranscription());
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

  // --- audio --------------------------------------------------------------------------------------

  /**
   * Sends audio in the session's format, of any length; one packet where that is raw Opus.
   *
   * @param content the audio
   */
  public void sendAudio(byte[] content) {
    core.sendAudio(content, 0, content.length, null);
  }

  /**
   * Sends audio in the session's format, of any length; one packet where that is raw Opus.
   *
   * @param content where the audio is
   * @param offset where it begins
   * @param length how many bytes it has
   */
  public void sendAudio(byte[] content, int offset, int length) {
    Objects.checkFromIndexSize(offset, length, content.length);
    core.sendAudio(content, offset, length, null);
  }

  /**
   * Sends audio in the session's format, of any length; one packet where that is raw Opus.
   *
   * @param content the audio from its position to its limit, which it is read to
   */
  public void sendAudio(ByteBuffer content) {
    byte[] copy = new byte[content.remaining()];
    content.get(copy);
    sendAudio(copy);
  }

  /**
   * Sends audio and tells when it was recorded, so that the gateway can measure the capture latency.
   *
   * @param content the audio
   * @param captureTime when its first sample was recorded, by this machine's clock
   */
  public void sendAudio(byte[] content, Instant captureTime) {
    core.sendAudio(content, 0, content.length, Objects.requireNonNull(captureTime, "captureTime"));
  }

  /**
   * Sends audio as it comes from a stream; returns when the stream has ended. The stream stays open.
   *
   * @param audio samples in the session's format, not packets of raw Opus
   * @throws IOException where the stream throws it
   */
  public void streamAudio(InputStream audio) throws IOException {
    byte[] piece = new byte[core.pieceBytes(8192) > 8192 ? 8192 : core.pieceBytes(8192)];
    for (int count = audio.read(piece); count >= 0; count = audio.read(piece)) {
      if (count > 0) {
        sendAudio(piece, 0, count);
      }
    }
  }

  /**
   * Sends audio at the speed at which it was spoken; returns when the stream has ended. A stream that was late is not made
   * up for, as with a microphone.
   *
   * @param audio samples in the session's format
   * @param speed 1 for real time, 2 for twice as fast
   * @throws IOException where the stream throws it
   * @throws IllegalArgumentException where the session's format has no fixed rate, or the speed is not above zero
   */
  public void streamAudioPaced(InputStream audio, double speed) throws IOException {
    AudioFormat format = started().getAudioFormat();
    int rate = AudioMath.bytesPerSecond(format);
    if (rate == 0) {
      throw new IllegalArgumentException(format.getEncoding() + " has no fixed rate of bytes");
    }
    if (!(speed > 0)) {
      throw new IllegalArgumentException("the speed has to be above zero: " + speed);
    }
    int width = AudioMath.sampleBytes(format);
    int size = (int) (rate * PACED_PIECE.toMillis() / 1000) / width * width;
    long due = System.nanoTime();
    byte[] piece = new byte[Math.max(size, width)];
    for (int count = audio.readNBytes(piece, 0, piece.length);
        count > 0;
        count = audio.readNBytes(piece, 0, piece.length)) {
      // What is made up for of a source that was late is the jitter of timers, not a pause.
      due = Math.max(due, System.nanoTime() - PACED_PIECE.toNanos());
      due += (long) (count * 1e9 / rate / speed);
      try {
        TimeUnit.NANOSECONDS.sleep(due - System.nanoTime());
      } catch (InterruptedException e) {
        throw Duplex.interrupted();
      }
      sendAudio(piece, 0, count);
    }
  }

  /**
   * A turn ends here: waits for the final transcript of what was sent so far. It is also among the events. Python calls
   * it {@code finalize}, which is another thing in Java.
   *
   * @return the transcript, empty if nothing was said
   */
  public Transcript finalizeTurn() {
    return Forgotten.holding(this, () -> core.finalizeTurn(null));
  }

  /**
   * A turn ends here; see {@link #finalizeTurn()}.
   *
   * @param finalizeId the caller's own id, which the transcript carries
   * @return the transcript, empty if nothing was said
   */
  public Transcript finalizeTurn(String finalizeId) {
    Objects.requireNonNull(finalizeId, "finalizeId");
    return Forgotten.holding(this, () -> core.finalizeTurn(finalizeId));
  }

  // --- settings -----------------------------------------------------------------------------------

  /**
   * Changes settings from here on in the audio; see {@link #updateSettings(TranscriptionSettings, UpdateOptions)}.
   *
   * @param delta the settings that change
   * @return how each took effect
   */
  public SettingsAck updateSettings(TranscriptionSettings delta) {
    return updateSettings(delta, UpdateOptions.DEFAULT);
  }

  /**
   * Changes settings from here on in the audio; returns once that is applied, superseded or validated.
   *
   * <p>Most need a new connection to the upstream, made at the end of speech unless the policy says otherwise; no audio is
   * lost in it. A thread that is interrupted while it waits does not take the change back.
   *
   * @param delta the settings that change; what is not set stays as it is
   * @param options when to apply it, what to put back to its default, ...
   * @return how each took effect
   * @throws WavegateException as the gateway says against it; then nothing has changed
   */
  public SettingsAck updateSettings(TranscriptionSettings delta, UpdateOptions options) {
    options.check(TranscriptionSettings.getDescriptor(), false);
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
  public Iterable<TranscriptionEvent> events() {
    return core.eventReader().iterable(this);
  }

  /**
   * Every event in order, for a subscriber, who is called on a thread of the client's executor.
   *
   * @return a publisher that takes one subscriber at a time
   */
  public Flow.Publisher<TranscriptionEvent> publisher() {
    return core.eventReader().publisher(core.background, this);
  }

  /**
   * Partial and final transcripts, to the end of the session; other events are passed over.
   *
   * @return the transcripts
   */
  public Iterable<Transcript> transcripts() {
    return core.transcriptReader(transcript -> true).iterable(this);
  }

  /**
   * Final transcripts, to the end of the session; other events are passed over.
   *
   * @return the transcripts
   */
  public Iterable<Transcript> finals() {
    return core.transcriptReader(Transcript::getIsFinal).iterable(this);
  }

  // --- end ----------------------------------------------------------------------------------------

  /**
   * Says that no audio follows. What was sent is still transcribed, and the events go on until {@link
   * SessionEvent.Kind#SESSION_ENDED}.
   */
  public void end() {
    core.end();
  }

  /** Ends the session now: what is not finished is dropped. {@link SessionEvent.Kind#SESSION_ENDED} still follows. */
  public void discard() {
    core.discardAll();
  }

  /**
   * Finishes the session: sends the end, and waits until everything that was sent is transcribed. What nobody has read by
   * then is thrown away, unless a subscriber will have it. After {@link #discard()} nothing is waited for; a second call
   * does nothing.
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

  @Override
  public String toString() {
    return "TranscriptionSession[" + core.describe() + " of " + client + "]";
  }
}
