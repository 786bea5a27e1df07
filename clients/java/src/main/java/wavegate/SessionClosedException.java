package wavegate;

/** The session has ended, so that nothing can be sent or awaited any more. */
public final class SessionClosedException extends WavegateException {
  private static final long serialVersionUID = 1;

  SessionClosedException(String message, Details details, Throwable cause) {
    super(Kind.SESSION_CLOSED, message, details, cause);
  }
}
