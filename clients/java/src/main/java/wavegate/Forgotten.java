package wavegate;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.util.function.Supplier;

/** Notices handles that were dropped without being closed, and ends what they stood for. */
final class Forgotten {
  private static final Cleaner CLEANER =
      Cleaner.create(
          work -> {
            Thread thread = new Thread(work, "wavegate-cleaner");
            thread.setDaemon(true);
            return thread;
          });

  private Forgotten() {}

  /** Does {@code end} once, when {@code handle} cannot be reached any more; {@code end} must not hold it. */
  static Cleaner.Cleanable watch(Object handle, Runnable end) {
    return CLEANER.register(handle, end);
  }

  /** Does something that may take long, and for which the handle must not be taken for forgotten meanwhile. */
  static <T> T holding(Object handle, Supplier<T> work) {
    try {
      return work.get();
    } finally {
      Reference.reachabilityFence(handle);
    }
  }
}
