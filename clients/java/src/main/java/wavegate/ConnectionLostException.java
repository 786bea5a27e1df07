package wavegate;

/** The connection to the gateway broke before the call had ended, and could not be made again. */
public final class ConnectionLostException extends GatewayUnavailableException {
  private static final long serialVersionUID = 1;

  ConnectionLostException(String message, Details details, Throwable cause) {
    super(Kind.CONNECTION_LOST, message, details, cause);
  }
}
