package wavegate;

import java.io.InputStream;
import java.lang.ref.Cleaner;
import java.util.concurrent.Flow;
import wavegate.speech.v1.SynthesizeResponse;

/**
 * One text that is being spoken, as {@link Client#streamOnce(String, SynthesisOptions)} gives it.
 *
 * <p>It can be read in one of three ways, and once. What is not read waits in the gateway. Closing it before its end
 * cancels the rest.
 */
public final class SpeechStream implements AutoCloseable {
  private final OnceCore core;
  private final Object client;
  private final Cleaner.Cleanable forgotten;

  SpeechStream(OnceCore core, Object client) {
    this.core = core;
    this.client = client; // which is not taken for forgotten while a stream lives
    this.forgotten = Forgotten.watch(this, core::leaveAtOnce);
  }

  /**
   * The events as they come: the start, audio and word timings, the completion. Waiting for one blocks.
   *
   * @return the contract's events; the failure is thrown at the end if there is one
   */
  public Iterable<SynthesizeResponse> events() {
    return core.eventReader().iterable(this);
  }

  /**
   * The events as they come, for a subscriber, who is called on a thread of the client's executor.
   *
   * @return a publisher that takes one subscriber
   */
  public Flow.Publisher<SynthesizeResponse> publisher() {
    return core.eventReader().publisher(core.background, this);
  }

  /**
   * The audio as a stream of bytes. Closing it does not cancel the rest; closing this object does.
   *
   * @return the bytes
   */
  public InputStream audioStream() {
    return Reader.inputStream(core.audioReader(), this);
  }

  /** Ends the call if it is not over. A second call does nothing. */
  @Override
  public void close() {
    core.leaveAtOnce();
    forgotten.clean();
  }

  @Override
  public String toString() {
    return "SpeechStream[" + client + "]";
  }
}
