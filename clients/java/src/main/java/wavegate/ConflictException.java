package wavegate;

/** The session is not as expected: another settings revision, or another call has taken it over. */
public final class ConflictException extends WavegateException {
  private static final long serialVersionUID = 1;

  ConflictException(String message, Details details, Throwable cause) {
    super(Kind.CONFLICT, message, details, cause);
  }
}
