package wavegate;

/** No gateway answers at the target, or it takes nothing new on, as when it shuts down. */
public sealed class GatewayUnavailableException extends WavegateException permits ConnectionLostException {
  private static final long serialVersionUID = 1;

  GatewayUnavailableException(String message, Details details, Throwable cause) {
    super(Kind.GATEWAY_UNAVAILABLE, message, details, cause);
  }

  GatewayUnavailableException(Kind kind, String message, Details details, Throwable cause) {
    super(kind, message, details, cause);
  }
}
