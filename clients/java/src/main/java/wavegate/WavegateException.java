package wavegate;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import io.grpc.Status;
import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A call, a session or an utterance failed. {@link #getMessage()} says what happened and what to do.
 *
 * <p>Programs decide by {@link #kind()}, or by the subclass, of which there is one for each kind; by {@link #reason()}
 * where that is not enough. The reasons are those of the contract: {@code FIELD_INVALID}, {@code UPSTREAM_CAPACITY}, ...
 *
 * <p>A failure of a session is raised to each thread that waits for the session. Each gets an exception of its own, whose
 * {@linkplain #getCause() cause} is the failure.
 */
public class WavegateException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** What a failure is, for programs. */
  public enum Kind {
    /** No gateway answers at the target, or it takes nothing new on. */
    GATEWAY_UNAVAILABLE,
    /** The connection to the gateway broke before the call had ended. */
    CONNECTION_LOST,
    /** The request is wrong; not worth repeating unchanged. */
    INVALID_REQUEST,
    /** The caller's credential is missing, wrong, or does not allow this. */
    ACCESS_DENIED,
    /** No live session of this caller has that id, or no trace of it is held. */
    SESSION_NOT_FOUND,
    /** The session is not as expected: another settings revision, or another call has taken it over. */
    CONFLICT,
    /** A limit is reached; try again after {@link WavegateException#retryDelay()}. */
    CAPACITY,
    /** The speech service behind the gateway failed, or refused the gateway. */
    UPSTREAM,
    /** A time limit passed. */
    DEADLINE,
    /** The session has ended, so that nothing can be sent or awaited any more. */
    SESSION_CLOSED,
    /** None of these. */
    OTHER
  }

  /** What is known of a failure beside its message. */
  record Details(
      Status.Code code,
      String reason,
      Duration retryDelay,
      List<FieldViolation> fieldViolations,
      List<QuotaViolation> quotaViolations,
      Map<String, String> metadata)
      implements Serializable {
    Details {
      fieldViolations = List.copyOf(fieldViolations);
      quotaViolations = List.copyOf(quotaViolations);
      metadata = Map.copyOf(metadata);
    }

    static Details of(Status.Code code) {
      return of(code, "");
    }

    static Details of(Status.Code code, String reason) {
      return new Details(code, reason, null, List.of(), List.of(), Map.of());
    }
  }

  private final Kind kind;
  private final Details details;

  WavegateException(Kind kind, String message, Details details, Throwable cause) {
    super(message, cause);
    this.kind = kind;
    this.details = details;
  }

  /**
   * The exception for a status inside of a stream, such as that of a failed utterance.
   *
   * @param status a status whose code is not OK; details of an unknown type are passed over
   * @return the exception, not thrown yet
   */
  public static WavegateException of(wavegate.speech.v1.Status status) {
    return Errors.fromStatus(status);
  }

  /**
   * What the failure is.
   *
   * @return the kind, {@link Kind#OTHER} where there is no name for it
   */
  public Kind kind() {
    return kind;
  }

  /**
   * The gRPC status code.
   *
   * @return the code, as the gateway or the transport gave it
   */
  public Status.Code code() {
    return details.code();
  }

  /**
   * The stable name of what happened.
   *
   * @return one of the contract's reasons; empty where no gateway gave one
   */
  public String reason() {
    return details.reason();
  }

  /**
   * Whether the same call may well succeed later, with nothing changed.
   *
   * @return true where waiting may help
   */
  public boolean retryable() {
    return details.retryDelay() != null
        || code() == Status.Code.UNAVAILABLE
        || code() == Status.Code.RESOURCE_EXHAUSTED;
  }

  /**
   * How long to wait before trying again.
   *
   * @return the gateway's advice; empty where it gave none
   */
  public Optional<Duration> retryDelay() {
    return Optional.ofNullable(details.retryDelay());
  }

  /**
   * Every field that was refused.
   *
   * @return the violations, all at once
   */
  public List<FieldViolation> fieldViolations() {
    return details.fieldViolations();
  }

  /**
   * Every limit that was reached.
   *
   * @return the violations
   */
  public List<QuotaViolation> quotaViolations() {
    return details.quotaViolations();
  }

  /**
   * Particulars, by name, such as {@code http_status}: what the upstream said on the wire.
   *
   * @return the names and values
   */
  public Map<String, String> metadata() {
    return details.metadata();
  }

  Details details() {
    return details;
  }

  /** The same failure, raised here. */
  WavegateException again() {
    return Errors.make(kind, getMessage(), details, this);
  }

  /** The status that says the same. */
  wavegate.speech.v1.Status toStatus() {
    return wavegate.speech.v1.Status.newBuilder()
        .setCode(code().value())
        .setMessage(getMessage())
        .addDetails(
            Any.pack(
                ErrorInfo.newBuilder()
                    .setDomain("wavegate.speech")
                    .setReason(reason())
                    .putAllMetadata(metadata())
                    .build()))
        .build();
  }
}
