package wavegate;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import wavegate.WavegateException.Details;
import wavegate.WavegateException.Kind;

/** Makes exceptions out of what gRPC and the gateway say. */
final class Errors {
  static final int MAX_MESSAGE_BYTES = 32 * 1024 * 1024;

  private static final Metadata.Key<byte[]> STATUS_DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  /** Where the reason says more than the status code does. */
  private static final Map<String, Kind> BY_REASON =
      Map.of(
          "UPSTREAM_CREDENTIAL", Kind.UPSTREAM,
          "UPSTREAM_GONE", Kind.UPSTREAM,
          "UPSTREAM_UNAVAILABLE", Kind.UPSTREAM,
          "UPSTREAM_STALLED", Kind.UPSTREAM,
          "UPSTREAM_PROTOCOL", Kind.UPSTREAM);

  private static final Map<Status.Code, Kind> BY_CODE =
      Map.of(
          Status.Code.UNAVAILABLE, Kind.GATEWAY_UNAVAILABLE,
          Status.Code.INVALID_ARGUMENT, Kind.INVALID_REQUEST,
          Status.Code.OUT_OF_RANGE, Kind.INVALID_REQUEST,
          Status.Code.UNAUTHENTICATED, Kind.ACCESS_DENIED,
          Status.Code.PERMISSION_DENIED, Kind.ACCESS_DENIED,
          Status.Code.NOT_FOUND, Kind.SESSION_NOT_FOUND,
          Status.Code.ABORTED, Kind.CONFLICT,
          Status.Code.RESOURCE_EXHAUSTED, Kind.CAPACITY,
          Status.Code.DEADLINE_EXCEEDED, Kind.DEADLINE);

  /** What a broken connection looks like through gRPC and the proxies in use: they do not agree on one code. */
  private static final Set<Status.Code> LOST =
      Set.of(Status.Code.UNAVAILABLE, Status.Code.INTERNAL, Status.Code.CANCELLED, Status.Code.UNKNOWN);

  /**
   * What gRPC says of a message above a transport's limit, in Python's words and in Java's. Its code for that,
   * RESOURCE_EXHAUSTED, is also that of limits that pass; this one does not.
   */
  private static final Pattern SENT_TOO_LARGE =
      Pattern.compile("(?:Sent|Received) message larger than max \\((\\d+) vs\\. (\\d+)\\)");

  private static final Pattern RECEIVED_TOO_LARGE =
      Pattern.compile("gRPC message exceeds maximum size (\\d+): (\\d+)");

  private Errors() {}

  static WavegateException make(Kind kind, String message, Details details, Throwable cause) {
    return switch (kind) {
      case GATEWAY_UNAVAILABLE -> new GatewayUnavailableException(message, details, cause);
      case CONNECTION_LOST -> new ConnectionLostException(message, details, cause);
      case INVALID_REQUEST -> new InvalidRequestException(message, details, cause);
      case ACCESS_DENIED -> new AccessDeniedException(message, details, cause);
      case SESSION_NOT_FOUND -> new SessionNotFoundException(message, details, cause);
      case CONFLICT -> new ConflictException(message, details, cause);
      case CAPACITY -> new CapacityException(message, details, cause);
      case UPSTREAM -> new UpstreamException(message, details, cause);
      case DEADLINE -> new DeadlineException(message, details, cause);
      case SESSION_CLOSED -> new SessionClosedException(message, details, cause);
      case OTHER -> new WavegateException(kind, message, details, cause);
    };
  }

  static WavegateException sessionClosed(String message) {
    return new SessionClosedException(message, Details.of(Status.Code.FAILED_PRECONDITION), null);
  }

  static WavegateException unavailable(String message) {
    return new GatewayUnavailableException(message, Details.of(Status.Code.UNAVAILABLE), null);
  }

  static ConnectionLostException connectionLost(String message, String reason, Throwable cause) {
    return new ConnectionLostException(message, Details.of(Status.Code.UNAVAILABLE, reason), cause);
  }

  static WavegateException deadline(String message) {
    return new DeadlineException(message, Details.of(Status.Code.DEADLINE_EXCEEDED), null);
  }

  static WavegateException other(String message, Status.Code code, Throwable cause) {
    return new WavegateException(Kind.OTHER, message, Details.of(code), cause);
  }

  static WavegateException requestTooLarge(long sizeBytes, long limitBytes, String field) {
    String wrong =
        "at most "
            + limitBytes
            + " bytes with the rest of the request, got "
            + sizeBytes
            + "; stream a larger recording (transcribe and streamAudio), or give its uri";
    String what = field.equals("content") ? "recording" : "request";
    List<FieldViolation> fields = field.isEmpty() ? List.of() : List.of(new FieldViolation(field, wrong));
    return new InvalidRequestException(
        "the " + what + " is too large: " + wrong,
        new Details(Status.Code.INVALID_ARGUMENT, "", null, fields, List.of(), Map.of()),
        null);
  }

  /** The exception for a status with a code other than OK; details of an unknown type are passed over. */
  static WavegateException fromStatus(wavegate.speech.v1.Status status) {
    Status.Code code = Status.fromCodeValue(status.getCode()).getCode();
    String reason = "";
    Duration retryDelay = null;
    List<FieldViolation> fields = new ArrayList<>();
    List<QuotaViolation> quotas = new ArrayList<>();
    Map<String, String> metadata = Map.of();
    for (Any detail : status.getDetailsList()) {
      try {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          reason = info.getReason();
          metadata = info.getMetadataMap();
        } else if (detail.is(RetryInfo.class)) {
          retryDelay = Times.toJava(detail.unpack(RetryInfo.class).getRetryDelay());
        } else if (detail.is(BadRequest.class)) {
          detail
              .unpack(BadRequest.class)
              .getFieldViolationsList()
              .forEach(v -> fields.add(new FieldViolation(v.getField(), v.getDescription())));
        } else if (detail.is(QuotaFailure.class)) {
          detail
              .unpack(QuotaFailure.class)
              .getViolationsList()
              .forEach(v -> quotas.add(new QuotaViolation(v.getSubject(), v.getDescription())));
        }
      } catch (InvalidProtocolBufferException e) {
        // A damaged detail must not hide the code and the message.
      }
    }
    Kind kind = BY_REASON.getOrDefault(reason, BY_CODE.getOrDefault(code, Kind.OTHER));
    String message = status.getMessage();
    if (message.isEmpty()) {
      message = "the gateway answered " + code + " without a message";
    }
    StringBuilder text = new StringBuilder(message);
    for (FieldViolation violation : fields) {
      // A gateway may well have put the violations into its message already.
      if (!message.contains(violation.description())) {
        text.append("\n  ").append(violation.field()).append(": ").append(violation.description());
      }
    }
    return make(kind, text.toString(), new Details(code, reason, retryDelay, fields, quotas, metadata), null);
  }

  /**
   * The exception for a call that gRPC ended.
   *
   * @param answered whether the gateway had sent anything in this call: it tells a gateway that is not there from one
   *     that went away
   */
  static WavegateException fromRpc(
      Status status, Metadata trailers, String target, boolean tls, boolean answered) {
    byte[] encoded = trailers == null ? null : trailers.get(STATUS_DETAILS);
    if (encoded != null) {
      try {
        return fromStatus(wavegate.speech.v1.Status.parseFrom(encoded));
      } catch (InvalidProtocolBufferException e) {
        // The code and the message are still there.
      }
    }
    Status.Code code = status.getCode();
    String details = describe(status);
    if (code == Status.Code.RESOURCE_EXHAUSTED) {
      Matcher received = RECEIVED_TOO_LARGE.matcher(details);
      if (received.find()) {
        return make(
            Kind.INVALID_REQUEST,
            "the answer of the gateway at "
                + target
                + " is too large: "
                + received.group(2)
                + " bytes in one message, and this client takes "
                + received.group(1)
                + "; ask for less",
            Details.of(Status.Code.INVALID_ARGUMENT),
            status.getCause());
      }
      Matcher sent = SENT_TOO_LARGE.matcher(details);
      if (sent.find()) {
        return requestTooLarge(Long.parseLong(sent.group(1)), Long.parseLong(sent.group(2)), "");
      }
    }
    if (answered && LOST.contains(code)) {
      return connectionLost(
          "the connection to the gateway at "
              + target
              + " was lost ("
              + (details.isEmpty() ? code.toString() : details)
              + "); open a new session",
          "",
          status.getCause());
    }
    // It is not the gateway that says so, but the transport, of what it has met instead.
    boolean strange = code == Status.Code.INTERNAL && details.startsWith("http2 exception");
    if (code == Status.Code.UNAVAILABLE || strange) {
      return make(
          Kind.GATEWAY_UNAVAILABLE,
          whyUnavailable(details, target, tls),
          Details.of(Status.Code.UNAVAILABLE),
          status.getCause());
    }
    if (code == Status.Code.UNIMPLEMENTED) {
      details =
          "the gateway at "
              + target
              + " does not know this call ("
              + details
              + "); it may be older than this client";
    } else if (code == Status.Code.DEADLINE_EXCEEDED) {
      details = "the gateway at " + target + " did not answer in time (" + details + ")";
    }
    Kind kind = BY_CODE.getOrDefault(code, Kind.OTHER);
    if (details.isEmpty()) {
      details = "the gateway at " + target + " answered " + code + " without a message";
    }
    return make(kind, details, Details.of(code), status.getCause());
  }

  /** What gRPC says, with what made it say so: its own text is often no more than "io exception". */
  private static String describe(Status status) {
    StringBuilder text =
        new StringBuilder(status.getDescription() == null ? "" : firstLine(status.getDescription()));
    Throwable cause = status.getCause();
    for (int depth = 0; cause != null && depth < 8; depth++, cause = cause.getCause()) {
      String words = cause.getMessage() == null ? "" : firstLine(cause.getMessage());
      if (!words.isEmpty() && text.indexOf(words) < 0) {
        text.append(text.length() == 0 ? "" : ": ").append(words);
      }
    }
    return text.toString();
  }

  private static String firstLine(String text) {
    return text.lines().findFirst().orElse("").strip();
  }

  private static String whyUnavailable(String details, String target, boolean tls) {
    String none = "no gateway at " + target + ": ";
    String words = details.toLowerCase(Locale.ROOT);
    String seen = " (" + details + ")";
    if (tls) {
      if (words.contains("not an ssl/tls record") || words.contains("wrong_version_number")) {
        return none + "what answers there does not speak TLS; connect without tls()";
      }
      if (words.contains("no subject alternative") || words.contains("no name matching")) {
        return none + "the certificate there is for another name; connect by the name that it holds" + seen;
      }
      if (words.contains("certpath") || words.contains("pkix") || words.contains("unable to find valid cert")) {
        return none
            + "the certificate there comes from an authority that is not trusted here; name the authority with"
            + " rootCertificates()";
      }
      if (words.contains("certificate_required")
          || words.contains("certificate required")
          || words.contains("handshake_failure")
          || words.contains("bad_certificate")) {
        return none
            + "it refuses the handshake, as a gateway that asks for its callers' certificates does to one without;"
            + " give one with clientCertificate()"
            + seen;
      }
      if (hungUp(words)) {
        return none
            + "what answers there hangs up on an encrypted connection, as a gateway that asks for its callers'"
            + " certificates does to one without; give one with clientCertificate()"
            + seen;
      }
    } else {
      if (words.contains("hex dump for first 5 bytes: 485454502f") || words.contains("http/1")) {
        return none + "what answers there speaks HTTP/1; is that the port of its metrics?";
      }
      if (words.contains("first received frame was not settings") || hungUp(words)) {
        return none
            + "what answers there hangs up on a connection in clear text; if it serves TLS, connect with tls()"
            + seen;
      }
    }
    boolean plain = details.isEmpty() || words.contains("refused");
    return "no gateway at " + target + "; start one with `make run` or `wavegate-server`" + (plain ? "" : seen);
  }

  private static boolean hungUp(String words) {
    return words.contains("network closed for unknown reason")
        || words.contains("connection reset")
        || words.contains("broken pipe")
        || words.contains("connection closed")
        || words.contains("closedchannel");
  }
}
