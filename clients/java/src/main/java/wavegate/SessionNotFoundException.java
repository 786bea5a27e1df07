package wavegate;

/** No live session of this caller has that id: unknown, ended, or another caller's. Or no trace of it is held. */
public final class SessionNotFoundException extends WavegateException {
  private static final long serialVersionUID = 1;

  SessionNotFoundException(String message, Details details, Throwable cause) {
    super(Kind.SESSION_NOT_FOUND, message, details, cause);
  }
}
