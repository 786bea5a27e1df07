package wavegate;

/** A time limit passed. */
public final class DeadlineException extends WavegateException {
  private static final long serialVersionUID = 1;

  DeadlineException(String message, Details details, Throwable cause) {
    super(Kind.DEADLINE, message, details, cause);
  }
}
