package wavegate;

import java.time.Duration;
import java.util.concurrent.Executor;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Where the caller's own code runs that is not called by the caller (iterators of text, subscribers), and a clock.
 *
 * <p>All threads end by themselves a second after the last work.
 */
final class Background {
  private static final Executor DEFAULT =
      new ThreadPoolExecutor(
          0, Integer.MAX_VALUE, 1, TimeUnit.SECONDS, new SynchronousQueue<>(), threads("wavegate-worker-"));
  private static final ScheduledThreadPoolExecutor CLOCK = clock();

  private final Executor executor;

  Background(Executor executor) {
    this.executor = executor == null ? DEFAULT : executor;
  }

  private static ThreadFactory threads(String prefix) {
    AtomicInteger numbers = new AtomicInteger();
    return work -> {
      Thread thread = new Thread(work, prefix + numbers.incrementAndGet());
      thread.setDaemon(true);
      return thread;
    };
  }

  private static ScheduledThreadPoolExecutor clock() {
    ScheduledThreadPoolExecutor clock = new ScheduledThreadPoolExecutor(1, threads("wavegate-clock-"));
    clock.setKeepAliveTime(1, TimeUnit.SECONDS);
    clock.allowCoreThreadTimeOut(true);
    clock.setRemoveOnCancelPolicy(true);
    return clock;
  }

  /** Runs the caller's code, which may block. */
  void run(Runnable work) {
    try {
      executor.execute(work);
    } catch (RejectedExecutionException e) {
      // The caller has shut its executor down; what it still waits for must come all the same.
      DEFAULT.execute(work);
    }
  }

  /** Does something short later on. Cancelling what is given back takes it back. */
  Future<?> later(Duration delay, Runnable work) {
    return CLOCK.schedule(work, Math.max(0, delay.toNanos()), TimeUnit.NANOSECONDS);
  }
}
