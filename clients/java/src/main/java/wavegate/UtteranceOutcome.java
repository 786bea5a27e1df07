package wavegate;

import java.util.Optional;
import wavegate.speech.v1.UtteranceCancelled;
import wavegate.speech.v1.UtteranceCompleted;

/** How an utterance ended: spoken to its end, or cancelled. One that failed raises its failure instead. */
public final class UtteranceOutcome {
  private final UtteranceCompleted completed;
  private final UtteranceCancelled cancelled;

  UtteranceOutcome(UtteranceCompleted completed, UtteranceCancelled cancelled) {
    this.completed = completed;
    this.cancelled = cancelled;
  }

  /**
   * Whether it was cancelled.
   *
   * @return true if so, false if it was spoken to its end
   */
  public boolean wasCancelled() {
    return cancelled != null;
  }

  /**
   * The gateway's report of an utterance that was spoken to its end.
   *
   * @return the report; empty if it was cancelled
   */
  public Optional<UtteranceCompleted> completed() {
    return Optional.ofNullable(completed);
  }

  /**
   * The gateway's report of an utterance that was cancelled: what was heard, and what was not.
   *
   * @return the report; empty if it was spoken to its end
   */
  public Optional<UtteranceCancelled> cancelled() {
    return Optional.ofNullable(cancelled);
  }

  @Override
  public String toString() {
    return wasCancelled() ? "cancelled" : "completed";
  }
}
