package wavegate;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** How long to wait before each try: not at all, 0.1, 0.3 and 1 s, then always 2 s. */
final class Delays {
  private static final double[] SECONDS = {0, 0.1, 0.3, 1, 2};

  private int next;

  Duration next() {
    return about(SECONDS[Math.min(next++, SECONDS.length - 1)]);
  }

  /** A little more or less, so that clients do not come all at once. */
  static Duration about(double seconds) {
    return Times.ofSeconds(seconds * ThreadLocalRandom.current().nextDouble(0.8, 1.2));
  }
}
