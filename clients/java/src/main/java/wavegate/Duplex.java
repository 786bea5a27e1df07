package wavegate;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import java.util.function.Supplier;

/**
 * What every kind of stream shares: a line, a buffer of events, and waiting.
 *
 * <p>One lock guards it all. It is never held while the caller's code runs, nor while anything blocks. Threads wait for a
 * state ({@link #until}); interrupting such a wait leaves the call as it is.
 *
 * <p>Reading stops at a full buffer, so that audio piles up in the gateway and not here; but it goes on while anybody
 * waits for an answer or for room to write, because what they wait for may lie behind that audio.
 */
abstract class Duplex<Q, R, E> implements Line.Owner<Q, R> {
  /** How long leaving may take; what is still under way then ends by itself. */
  static final Duration GOODBYE = Duration.ofSeconds(2);

  final ReentrantLock lock = new ReentrantLock();
  final Background background;

  Line<Q, R> line;
  boolean inputEnded;
  boolean paused;
  boolean finished;
  WavegateException failure;
  boolean failureRaised;

  private final Condition changed = lock.newCondition();
  private final List<BooleanSupplier> watchers = new ArrayList<>();
  private final int bufferLimitBytes;
  private ArrayDeque<E> buffer = new ArrayDeque<>();
  private long bufferedBytes;
  private boolean discarding;
  private int waiting;
  private int subscriptions;

  /**
   * @param bufferLimitBytes how much may lie unread before reading stops; 0: no limit
   */
  Duplex(Background background, int bufferLimitBytes) {
    this.background = background;
    this.bufferLimitBytes = bufferLimitBytes;
  }

  // --- what a kind of stream says -----------------------------------------------------------------

  /** Takes note of a response; returns what the caller shall see of it, or null. */
  abstract E receive(R response);

  /** How much of the buffer an event takes. */
  int sizeBytes(E event) {
    return 0;
  }

  /** Whether whoever sent request {@code number} of the line need not wait any longer. */
  boolean isTaken(Line<Q, R> sentOn, int number) {
    return sentOn.written >= number;
  }

  // --- sending ------------------------------------------------------------------------------------

  /** What was sent, for waiting until the transport has taken it. */
  final class Ticket {
    private final Line<Q, R> sentOn;
    private final int number;

    Ticket(Line<Q, R> sentOn, int number) {
      this.sentOn = sentOn;
      this.number = number;
    }

    boolean isTaken() {
      return Duplex.this.isTaken(sentOn, number);
    }
  }

  void checkOpen() {
    if (finished) {
      throw closedError();
    }
    if (inputEnded) {
      throw Errors.sessionClosed("the session's input has ended; open another session to send more");
    }
  }

  Ticket put(Q request) {
    return new Ticket(line, line.put(request));
  }

  /** Waits until the transport has taken it. Interrupting the wait does not take it back. */
  void awaitTaken(Ticket ticket) {
    until(() -> ticket.isTaken() ? Boolean.TRUE : null);
  }

  // --- receiving ----------------------------------------------------------------------------------

  @Override
  public boolean onResponse(Line<Q, R> from, R response) {
    E event = receive(response);
    if (event != null) {
      deliver(event);
    }
    notifyChanged();
    return false;
  }

  @Override
  public void onOver(Line<Q, R> lost, WavegateException why) {
    finish(why);
  }

  void finish(WavegateException why) {
    finished = true;
    failure = why;
    notifyChanged();
  }

  void deliver(E event) {
    if (!discarding || subscriptions > 0) {
      buffer.add(event);
      bufferedBytes += sizeBytes(event);
      updateFlow();
    }
  }

  boolean hasEvents() {
    return !buffer.isEmpty();
  }

  /** The next event; at the end raises the failure if there is one, or gives null. */
  E take() {
    E event = buffer.poll();
    if (event == null) {
      if (failure != null) {
        failureRaised = true;
        throw failure.again();
      }
      return null;
    }
    bufferedBytes -= sizeBytes(event);
    updateFlow();
    return event;
  }

  /** Takes events out of the buffer. */
  void drop(Predicate<E> unwanted) {
    ArrayDeque<E> kept = new ArrayDeque<>();
    bufferedBytes = 0;
    for (E event : buffer) {
      if (!unwanted.test(event)) {
        kept.add(event);
        bufferedBytes += sizeBytes(event);
      }
    }
    buffer = kept;
    updateFlow();
  }

  void updateFlow() {
    if (line != null) {
      boolean room = bufferLimitBytes == 0 || bufferedBytes < bufferLimitBytes;
      line.setFlow((room || waiting > 0) && !paused);
    }
  }

  /** Every event in order. */
  Reader<E> eventReader() {
    return new Reader<>(this) {
      @Override
      Object poll() {
        if (!hasEvents() && !finished) {
          return PENDING;
        }
        E event = take();
        return event == null ? END : event;
      }
    };
  }

  /** A subscriber has come, or gone: what it has not asked for yet is kept for it when the stream is left. */
  void countSubscription(int more) {
    subscriptions += more;
  }

  // --- waiting ------------------------------------------------------------------------------------

  @Override
  public void notifyChanged() {
    changed.signalAll();
    if (!watchers.isEmpty()) {
      List<BooleanSupplier> asked = List.copyOf(watchers);
      for (BooleanSupplier watcher : asked) {
        if (watcher.getAsBoolean()) {
          watchers.remove(watcher);
        }
      }
    }
  }

  /** Is called with the lock held, now and whenever something has changed, until it gives true. It must not block. */
  void watch(BooleanSupplier watcher) {
    if (!watcher.getAsBoolean()) {
      watchers.add(watcher);
    }
  }

  /** Waits for the next change, with the lock held; in a loop, since it may be any change. */
  @SuppressWarnings("WaitNotInLoop") // the loop is the caller's
  void awaitChange() {
    try {
      changed.await();
    } catch (InterruptedException e) {
      throw interrupted();
    }
  }

  static CancellationException interrupted() {
    Thread.currentThread().interrupt();
    return new CancellationException("interrupted while waiting for the gateway");
  }

  /** Waits until {@code ready} answers; raises the stream's failure, or that it is closed, if it never will. */
  <A> A until(Supplier<A> ready) {
    lock.lock();
    waiting++;
    updateFlow();
    try {
      while (true) {
        A answer = ready.get();
        if (answer != null) {
          return answer;
        }
        if (finished) {
          throw closedError();
        }
        awaitChange();
      }
    } finally {
      waiting--;
      updateFlow();
      lock.unlock();
    }
  }

  WavegateException closedError() {
    if (failure == null) {
      return Errors.sessionClosed("the session has ended; open another one");
    }
    failureRaised = true;
    return failure.again();
  }

  // --- leaving ------------------------------------------------------------------------------------

  /** Reads to the end and throws it away; raises the stream's failure if nobody has seen it yet. */
  void drain() {
    lock.lock();
    try {
      discard();
      until(() -> finished ? Boolean.TRUE : null);
      if (failure != null && !failureRaised) {
        throw closedError();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Throws away what is unread and what still comes, unless a subscriber will have it. */
  void discard() {
    discarding = true;
    if (subscriptions == 0) {
      drop(event -> true);
    }
  }

  /** Waits a while until the stream is over; gives false where it is not. */
  boolean awaitFinished(Duration patience) {
    lock.lock();
    waiting++;
    updateFlow();
    try {
      long left = patience.toNanos();
      while (!finished && left > 0) {
        left = changed.awaitNanos(left);
      }
      return finished;
    } catch (InterruptedException e) {
      throw interrupted();
    } finally {
      waiting--;
      updateFlow();
      lock.unlock();
    }
  }

  /** Waits for work that ends by itself, but not for long, and not in a thread that is interrupted. */
  static void awaitQuietly(java.util.concurrent.Future<?> work, Duration patience) {
    if (Thread.currentThread().isInterrupted()) {
      return;
    }
    try {
      work.get(patience.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (java.util.concurrent.ExecutionException | java.util.concurrent.TimeoutException e) {
      return; // it is not waited for any longer
    }
  }
}
