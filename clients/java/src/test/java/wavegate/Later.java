package wavegate;

import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.fail;

import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Something that another thread does meanwhile. */
final class Later<T> {
  final Thread thread;
  private final FutureTask<T> task;

  private Later(Callable<T> work) {
    task = new FutureTask<>(work);
    thread = new Thread(task, "test-later");
    thread.setDaemon(true);
    thread.start();
  }

  static <T> Later<T> of(Callable<T> work) {
    return new Later<>(work);
  }

  static Later<Void> run(Runnable work) {
    return new Later<>(
        () -> {
          work.run();
          return null;
        });
  }

  T get() {
    try {
      return task.get(FakeGateway.PATIENCE.toSeconds(), TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RuntimeException failed) {
        throw failed;
      }
      throw new IllegalStateException(e.getCause());
    } catch (InterruptedException | TimeoutException e) {
      throw new IllegalStateException("it takes too long", e);
    }
  }

  /** What it threw. */
  <E extends Throwable> E thrown(Class<E> type) {
    try {
      task.get(FakeGateway.PATIENCE.toSeconds(), TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      assertNotNull(e.getCause());
      if (!type.isInstance(e.getCause())) {
        throw new IllegalStateException("another failure", e.getCause());
      }
      return type.cast(e.getCause());
    } catch (InterruptedException | TimeoutException e) {
      throw new IllegalStateException("it takes too long", e);
    }
    return fail("it did not fail");
  }

  boolean isDone() {
    return task.isDone();
  }

  /** Waits until the thread waits. */
  void awaitBlocked() {
    while (!task.isDone()
        && thread.getState() != Thread.State.WAITING
        && thread.getState() != Thread.State.TIMED_WAITING) {
      Thread.onSpinWait();
    }
  }
}
