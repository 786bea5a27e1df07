package wavegate;

import java.util.ArrayList;
import java.util.List;

/** Text as the wire can carry it. */
final class Texts {
  private Texts() {}

  /** A lone half of a surrogate pair, which UTF-8 cannot carry, becomes U+FFFD. */
  static String toWire(String text) {
    StringBuilder mended = null;
    for (int at = 0; at < text.length(); at++) {
      char c = text.charAt(at);
      if (Character.isHighSurrogate(c)
          && at + 1 < text.length()
          && Character.isLowSurrogate(text.charAt(at + 1))) {
        at++;
      } else if (Character.isSurrogate(c)) {
        if (mended == null) {
          mended = new StringBuilder(text);
        }
        mended.setCharAt(at, '\uFFFD');
      }
    }
    return mended == null ? text : mended.toString();
  }

  /** The text in pieces of at most {@code limit} code points (0: no limit), cut behind a blank where there is one. */
  static List<String> split(String text, int limit) {
    List<String> pieces = new ArrayList<>();
    int from = 0;
    while (limit > 0 && text.codePointCount(from, text.length()) > limit) {
      int end = text.offsetByCodePoints(from, limit);
      int blank = text.lastIndexOf(' ', end - 1);
      int cut = blank > from ? blank + 1 : end;
      pieces.add(text.substring(from, cut));
      from = cut;
    }
    pieces.add(text.substring(from));
    return pieces;
  }
}
