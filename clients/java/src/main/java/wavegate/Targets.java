package wavegate;

import java.util.Set;
import java.util.regex.Pattern;

/** Addresses of gateways: which are written right, and which are this machine. */
final class Targets {
  static final String DEFAULT = "127.0.0.1:50051";

  private static final String DEFAULT_PORT = "50051";
  private static final Set<String> LOCAL_SCHEMES = Set.of("unix", "unix-abstract", "vsock");

  /** Schemes of gRPC's own names; what follows them is gRPC's to read. */
  private static final Set<String> NAME_SCHEMES =
      Set.of("unix", "unix-abstract", "vsock", "dns", "ipv4", "ipv6", "xds", "google-c2p");

  private static final Pattern FORBIDDEN = Pattern.compile("[\\s/@?#]");
  private static final Pattern LOOPBACK_V4 = Pattern.compile("127(\\.\\d{1,3}){1,3}|0\\.0\\.0\\.0");

  private Targets() {}

  /**
   * Returns the target as given if it is written right.
   *
   * @throws IllegalArgumentException that says what to write instead. Without TLS a target needs a port; with TLS the
   *     port may be left out, which means 443.
   */
  static String check(String target, boolean tls) {
    if (target.isBlank()) {
      throw new IllegalArgumentException("the target is empty: write HOST:PORT");
    }
    if (isName(target)) {
      return target;
    }
    if (target.contains("://")) {
      throw new IllegalArgumentException(withoutScheme(target));
    }
    Address address = Address.of(target);
    if (address.host.isEmpty() || FORBIDDEN.matcher(target).find()) {
      throw new IllegalArgumentException("'" + target + "' is no HOST:PORT");
    }
    if (address.host.contains(":") && !target.startsWith("[")) {
      throw new IllegalArgumentException(
          "an IPv6 address stands in brackets: write [" + target + "]:PORT, not '" + target + "'");
    }
    if (address.port == null) {
      if (tls) {
        return target;
      }
      throw new IllegalArgumentException(
          "'"
              + target
              + "' names no port: write "
              + target
              + ":"
              + DEFAULT_PORT
              + ", or wherever it listens");
    }
    if (!isPort(address.port)) {
      throw new IllegalArgumentException(
          "'"
              + address.port
              + "' is no port: write a number from 1 to 65535, as in "
              + address.host
              + ":"
              + DEFAULT_PORT);
    }
    return target;
  }

  /** True if only this machine can be meant: no proxy leads back to it. */
  static boolean isLoopback(String target) {
    String host = host(target).toLowerCase(java.util.Locale.ROOT);
    if (host.endsWith(".")) {
      host = host.substring(0, host.length() - 1);
    }
    return host.isEmpty()
        || host.equals("localhost")
        || host.endsWith(".localhost")
        || host.equals("::1")
        || host.equals("::")
        || LOOPBACK_V4.matcher(host.replaceFirst("^::ffff:", "")).matches();
  }

  private static String host(String target) {
    int colon = target.indexOf(':');
    String address = target;
    if (isName(target)) {
      if (LOCAL_SCHEMES.contains(target.substring(0, colon).toLowerCase(java.util.Locale.ROOT))) {
        return "";
      }
      address = target.substring(Math.max(target.lastIndexOf('/'), colon) + 1);
    }
    int comma = address.indexOf(',');
    return Address.of(comma < 0 ? address : address.substring(0, comma)).host;
  }

  private static boolean isName(String target) {
    int colon = target.indexOf(':');
    return colon > 0 && NAME_SCHEMES.contains(target.substring(0, colon).toLowerCase(java.util.Locale.ROOT));
  }

  private static boolean isPort(String port) {
    if (!port.matches("[0-9]{1,5}")) {
      return false;
    }
    int number = Integer.parseInt(port);
    return number > 0 && number <= 65_535;
  }

  private static String withoutScheme(String target) {
    int at = target.indexOf("://");
    String scheme = target.substring(0, at);
    String address = target.substring(at + 3).split("/", 2)[0];
    address = address.substring(address.lastIndexOf('@') + 1);
    boolean encrypted = scheme.equals("https") || scheme.equals("grpcs");
    if (!address.isEmpty() && Address.of(address).port == null) {
      address += scheme.equals("https") ? ":443" : ":" + DEFAULT_PORT;
    }
    return "a target has no "
        + scheme
        + ":// in front: write "
        + (address.isEmpty() ? "HOST:PORT" : address)
        + (encrypted ? ", and tls() for an encrypted connection" : "");
  }

  /** Host and port; the port is null where there is none. An IPv6 address without brackets is all host. */
  private record Address(String host, String port) {
    static Address of(String text) {
      if (text.startsWith("[")) {
        int bracket = text.indexOf(']');
        if (bracket < 0) {
          return new Address("", null);
        }
        String after = text.substring(bracket + 1);
        return new Address(text.substring(1, bracket), after.startsWith(":") ? after.substring(1) : null);
      }
      int colon = text.lastIndexOf(':');
      if (colon < 0 || text.indexOf(':') < colon) {
        return new Address(text, null);
      }
      return new Address(text.substring(0, colon), text.substring(colon + 1));
    }
  }
}
