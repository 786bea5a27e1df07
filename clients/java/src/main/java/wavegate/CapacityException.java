package wavegate;

/** A limit is reached; try again after {@link #retryDelay()}. */
public final class CapacityException extends WavegateException {
  private static final long serialVersionUID = 1;

  CapacityException(String message, Details details, Throwable cause) {
    super(Kind.CAPACITY, message, details, cause);
  }
}
