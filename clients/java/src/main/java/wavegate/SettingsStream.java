package wavegate;

import java.lang.ref.Cleaner;
import java.util.concurrent.Flow;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.TranscriptionSettings;
import wavegate.speech.v1.UpdateSettingsRequest;

/**
 * One stream that changes the settings of any of the caller's live sessions; {@link Client#settingsStream()} opens it.
 *
 * <p>{@link #changes()} tells every acknowledgement as it comes and, where an update has asked to watch its session,
 * whatever else happens to that from then on. Any number of threads may use the stream; one of them reads. Closing it ends
 * the stream; the sessions go on.
 */
public final class SettingsStream implements AutoCloseable {
  private final ControlCore core;
  private final Object client;
  private final Cleaner.Cleanable forgotten;

  SettingsStream(ControlCore core, Object client) {
    this.core = core;
    this.client = client; // which is not taken for forgotten while a stream lives
    this.forgotten = Forgotten.watch(this, core::leaveAtOnce);
  }

  /**
   * Changes a synthesis session; see {@link #updateSynthesis(String, SynthesisSettings, UpdateOptions)}.
   *
   * @param sessionId the session
   * @param delta the settings that change
   * @return how each took effect
   */
  public SettingsAck updateSynthesis(String sessionId, SynthesisSettings delta) {
    return updateSynthesis(sessionId, delta, UpdateOptions.DEFAULT);
  }

  /**
   * Changes a synthesis session; returns once that is applied, superseded or validated. A thread that is interrupted while
   * it waits does not take the change back.
   *
   * @param sessionId the session
   * @param delta the settings that change; what is not set stays as it is
   * @param options when to apply it, whether to watch the session, ...
   * @return how each took effect
   * @throws SessionNotFoundException for no live synthesis session of this caller; the stream goes on
   * @throws WavegateException as the gateway says against it; then nothing has changed, and the stream goes on
   */
  public SettingsAck updateSynthesis(String sessionId, SynthesisSettings delta, UpdateOptions options) {
    options.check(SynthesisSettings.getDescriptor(), true);
    return Forgotten.holding(
        this,
        () ->
            core.update(
                UpdateSettingsRequest.newBuilder().setSessionId(sessionId).setSynthesis(delta), options));
  }

  /**
   * Changes a transcription session; see {@link #updateSynthesis(String, SynthesisSettings, UpdateOptions)}.
   *
   * @param sessionId the session
   * @param delta the settings that change
   * @return how each took effect
   */
  public SettingsAck updateTranscription(String sessionId, TranscriptionSettings delta) {
    return updateTranscription(sessionId, delta, UpdateOptions.DEFAULT);
  }

  /**
   * Changes a transcription session; see {@link #updateSynthesis(String, SynthesisSettings, UpdateOptions)}.
   *
   * @param sessionId the session
   * @param delta the settings that change; what is not set stays as it is
   * @param options when to apply it, whether to watch the session, ...
   * @return how each took effect
   */
  public SettingsAck updateTranscription(
      String sessionId, TranscriptionSettings delta, UpdateOptions options) {
    options.check(TranscriptionSettings.getDescriptor(), true);
    return Forgotten.holding(
        this,
        () ->
            core.update(
                UpdateSettingsRequest.newBuilder().setSessionId(sessionId).setTranscription(delta),
                options));
  }

  /**
   * Every report in order, to the end of the stream. Waiting for one blocks. One reader at a time.
   *
   * @return the reports
   */
  public Iterable<SessionChange> changes() {
    return core.eventReader().iterable(this);
  }

  /**
   * Every report in order, for a subscriber, who is called on a thread of the client's executor.
   *
   * @return a publisher that takes one subscriber at a time
   */
  public Flow.Publisher<SessionChange> publisher() {
    return core.eventReader().publisher(core.background, this);
  }

  /**
   * Ends the stream, and waits for its last acknowledgements for 2 s at most.
   *
   * @throws WavegateException the stream's failure, if nobody has seen it yet
   */
  @Override
  public void close() {
    try {
      core.close();
    } finally {
      forgotten.clean();
    }
  }

  @Override
  public String toString() {
    return "SettingsStream[" + client + "]";
  }
}
