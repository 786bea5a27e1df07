package wavegate;

/** The caller's credential is missing, wrong, or does not allow this. */
public final class AccessDeniedException extends WavegateException {
  private static final long serialVersionUID = 1;

  AccessDeniedException(String message, Details details, Throwable cause) {
    super(Kind.ACCESS_DENIED, message, details, cause);
  }
}
