package wavegate;

import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import java.util.HashMap;
import java.util.Map;

/**
 * The W3C trace context of the caller's current span, where the program has OpenTelemetry's API.
 *
 * <p>It is taken from OpenTelemetry's current context, not through its global instance: asking for that one would set it
 * for good in a program that sets its own later, and a program that keeps its instance to itself would not be seen.
 */
final class TraceContext {
  private static final boolean PRESENT = isPresent();

  private TraceContext() {}

  /** The headers of the context; empty without a span. */
  static Map<String, String> current() {
    return PRESENT ? OpenTelemetry.current() : Map.of();
  }

  private static boolean isPresent() {
    try {
      Class.forName(
          "io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator",
          false,
          TraceContext.class.getClassLoader());
      return true;
    } catch (ClassNotFoundException | LinkageError e) {
      return false;
    }
  }

  /** Loaded only where its classes are there. */
  private static final class OpenTelemetry {
    static Map<String, String> current() {
      Map<String, String> headers = new HashMap<>();
      W3CTraceContextPropagator.getInstance().inject(Context.current(), headers, Map::put);
      return headers;
    }
  }
}
