package wavegate;

/** The request is wrong; {@link #fieldViolations()} names every field. Not worth repeating unchanged. */
public final class InvalidRequestException extends WavegateException {
  private static final long serialVersionUID = 1;

  InvalidRequestException(String message, Details details, Throwable cause) {
    super(Kind.INVALID_REQUEST, message, details, cause);
  }
}
