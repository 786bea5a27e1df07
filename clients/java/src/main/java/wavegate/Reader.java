package wavegate;

import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Objects;
import java.util.concurrent.CancellationException;
import java.util.concurrent.Flow;

/** A way to read a stream: as a blocking iterator, an input stream or a publisher. One consumer at a time. */
abstract class Reader<T> {
  /** Nothing is there yet. */
  static final Object PENDING = new Object();

  /** Nothing follows. */
  static final Object END = new Object();

  private final Duplex<?, ?, ?> stream;

  Reader(Duplex<?, ?, ?> stream) {
    this.stream = stream;
  }

  /** The next item, {@link #PENDING} or {@link #END}; raises the failure. With the lock held. */
  abstract Object poll();

  /** A blocking iterator. It holds {@code owner}, so that what is being read is not taken for forgotten. */
  Iterable<T> iterable(Object owner) {
    return () -> iterator(owner);
  }

  private Iterator<T> iterator(Object owner) {
    return new Iterator<>() {
      private final Object held = owner;
      private T next;
      private boolean over;

      @Override
      public boolean hasNext() {
        Objects.requireNonNull(held);
        if (next == null && !over) {
          next = await();
          over = next == null;
        }
        return next != null;
      }

      @Override
      public T next() {
        if (!hasNext()) {
          throw new NoSuchElementException();
        }
        T item = next;
        next = null;
        return item;
      }
    };
  }

  /** Waits for the next item; null at the end. */
  @SuppressWarnings("unchecked")
  T await() {
    stream.lock.lock();
    try {
      while (true) {
        Object item = poll();
        if (item == END) {
          return null;
        }
        if (item != PENDING) {
          return (T) item;
        }
        stream.awaitChange();
      }
    } finally {
      stream.lock.unlock();
    }
  }

  /** The bytes as an input stream. */
  static InputStream inputStream(Reader<byte[]> reader, Object owner) {
    return new InputStream() {
      private final Object held = owner;
      private byte[] piece = new byte[0];
      private int at;
      private boolean over;
      private boolean closed;

      @Override
      public int read() throws IOException {
        return fill() ? piece[at++] & 0xFF : -1;
      }

      @Override
      public int read(byte[] target, int offset, int length) throws IOException {
        Objects.checkFromIndexSize(offset, length, target.length);
        if (length == 0) {
          return 0;
        }
        if (!fill()) {
          return -1;
        }
        int count = Math.min(length, piece.length - at);
        System.arraycopy(piece, at, target, offset, count);
        at += count;
        return count;
      }

      @Override
      public int available() {
        return piece.length - at;
      }

      @Override
      public void close() {
        closed = true;
        piece = new byte[0];
        at = 0;
      }

      private boolean fill() throws IOException {
        Objects.requireNonNull(held);
        if (closed) {
          throw new IOException("the stream is closed");
        }
        while (at == piece.length && !over) {
          byte[] next;
          try {
            next = reader.await();
          } catch (CancellationException e) {
            InterruptedIOException interrupted = new InterruptedIOException(e.getMessage());
            interrupted.initCause(e);
            throw interrupted;
          }
          over = next == null;
          if (next != null) {
            piece = next;
            at = 0;
          }
        }
        return !over;
      }
    };
  }

  /** A publisher for one subscriber at a time. It holds {@code owner}. */
  Flow.Publisher<T> publisher(Background background, Object owner) {
    return subscriber -> {
      Objects.requireNonNull(subscriber, "subscriber");
      Subscription subscription = new Subscription(background, subscriber, owner);
      subscriber.onSubscribe(subscription);
      subscription.begin();
    };
  }

  /** Hands items to a subscriber as it asks for them, on a thread that is borrowed for as long as there are some. */
  private final class Subscription implements Flow.Subscription, Runnable {
    private final Background background;
    private final Object held;
    private final Flow.Subscriber<? super T> subscriber;

    // Guarded by the stream's lock.
    private long demand;
    private boolean begun;
    private boolean over;
    private boolean running;
    private boolean watching;
    private IllegalArgumentException refused;

    Subscription(Background background, Flow.Subscriber<? super T> subscriber, Object owner) {
      this.background = background;
      this.subscriber = subscriber;
      this.held = owner;
      stream.lock.lock();
      try {
        stream.countSubscription(1);
      } finally {
        stream.lock.unlock();
      }
    }

    /** From now on, since the subscriber knows of it. */
    void begin() {
      stream.lock.lock();
      try {
        begun = true;
        schedule();
      } finally {
        stream.lock.unlock();
      }
    }

    @Override
    public void request(long count) {
      stream.lock.lock();
      try {
        if (count <= 0 && refused == null) {
          refused = new IllegalArgumentException("a subscriber asks for one item or more, not for " + count);
        } else {
          demand = demand + count < 0 ? Long.MAX_VALUE : demand + count;
        }
        schedule();
      } finally {
        stream.lock.unlock();
      }
    }

    @Override
    public void cancel() {
      stream.lock.lock();
      try {
        finish();
      } finally {
        stream.lock.unlock();
      }
    }

    private void finish() {
      if (!over) {
        over = true;
        stream.countSubscription(-1);
      }
    }

    private void schedule() {
      Objects.requireNonNull(held);
      if (begun && !over && !running && (demand > 0 || refused != null)) {
        running = true;
        background.run(this);
      }
    }

    @Override
    public void run() {
      while (true) {
        Object item = null;
        Throwable failure = null;
        stream.lock.lock();
        try {
          if (over || (demand == 0 && refused == null)) {
            running = false;
            return;
          }
          if (refused != null) {
            failure = refused;
          } else {
            item = poll();
          }
          if (item == PENDING) {
            running = false;
            watchForMore();
            return;
          }
          if (item == END) {
            finish();
          } else if (failure == null) {
            demand--;
          }
        } catch (RuntimeException | Error e) {
          failure = e;
        } finally {
          if (failure != null) {
            finish();
          }
          stream.lock.unlock();
        }
        if (!handOver(item, failure)) {
          return;
        }
      }
    }

    @SuppressWarnings("unchecked")
    private boolean handOver(Object item, Throwable failure) {
      if (failure != null) {
        subscriber.onError(failure);
        return false;
      }
      if (item == END) {
        subscriber.onComplete();
        return false;
      }
      try {
        subscriber.onNext((T) item);
        return true;
      } catch (RuntimeException | Error e) {
        cancel(); // a subscriber that throws has ended its subscription
        throw e;
      }
    }

    private void watchForMore() {
      if (watching) {
        return;
      }
      watching = true;
      boolean[] first = {true};
      stream.watch(
          () -> {
            if (first[0]) {
              first[0] = false;
              return false; // it has just been looked at
            }
            watching = false;
            schedule();
            return true;
          });
    }
  }
}
