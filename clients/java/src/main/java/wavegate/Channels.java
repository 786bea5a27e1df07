package wavegate;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.WeakHashMap;
import java.util.concurrent.locks.ReentrantLock;

/** The channels of a client: one a target, the one in use first. */
final class Channels {
  private final ReentrantLock lock = new ReentrantLock();
  private List<GatewayChannel> channels;
  private final List<GatewayChannel> replaced = new ArrayList<>();

  /** Those of the replaced that are not connected, but for who still knows them. */
  private final Set<GatewayChannel> released = Collections.newSetFromMap(new WeakHashMap<>());

  private boolean closed;

  Channels(List<GatewayChannel> channels) {
    this.channels = new ArrayList<>(channels);
  }

  /** Where new calls go. */
  GatewayChannel current() {
    lock.lock();
    try {
      return channels.get(0);
    } finally {
      lock.unlock();
    }
  }

  /** Where a session may be opened, in the order of preference. */
  List<GatewayChannel> candidates() {
    lock.lock();
    try {
      return List.copyOf(channels);
    } finally {
      lock.unlock();
    }
  }

  /** This one works: what comes next goes there first. */
  void prefer(GatewayChannel channel) {
    lock.lock();
    try {
      int at = channels.indexOf(channel);
      if (at > 0) {
        List<GatewayChannel> turned = new ArrayList<>(channels.subList(at, channels.size()));
        turned.addAll(channels.subList(0, at));
        channels = turned;
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * The gateway there shuts down: the other targets come first, and a fresh connection to this one last. The old
   * connection stays as long as calls use it. Gives the fresh one; null where it was left before.
   */
  GatewayChannel leave(GatewayChannel channel) {
    GatewayChannel fresh = null;
    lock.lock();
    try {
      if (!closed && channels.remove(channel)) {
        fresh = channel.fresh();
        channels.add(fresh);
        replaced.add(channel);
      }
      for (GatewayChannel old : List.copyOf(replaced)) {
        if (old.release()) {
          replaced.remove(old);
          released.add(old);
        }
      }
      return fresh;
    } finally {
      lock.unlock();
    }
  }

  /** How many sessions and streams have a call open. */
  int lines() {
    return all().stream().mapToInt(GatewayChannel::lines).sum();
  }

  /** Ends every call, and does not wait for it. */
  void close() {
    lock.lock();
    try {
      closed = true;
    } finally {
      lock.unlock();
    }
    all().forEach(GatewayChannel::close);
  }

  /** Waits for a while until every connection is closed. */
  void awaitClosed(Duration patience) {
    for (GatewayChannel channel : all()) {
      if (!channel.awaitClosed(patience)) {
        return;
      }
    }
  }

  private List<GatewayChannel> all() {
    lock.lock();
    try {
      List<GatewayChannel> all = new ArrayList<>(channels);
      all.addAll(replaced);
      all.addAll(released);
      return all;
    } finally {
      lock.unlock();
    }
  }
}
