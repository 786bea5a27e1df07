package wavegate;

/** The speech service behind the gateway failed, or refused the gateway. */
public final class UpstreamException extends WavegateException {
  private static final long serialVersionUID = 1;

  UpstreamException(String message, Details details, Throwable cause) {
    super(Kind.UPSTREAM, message, details, cause);
  }
}
