package wavegate;

import com.google.protobuf.Message;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.function.LongFunction;

/**
 * Numbers a session's input, and keeps what the gateway has not acknowledged yet.
 *
 * <p>Only a session that may be resumed needs the latter, and the gateway says in its first answer whether it may.
 */
final class InputLog<Q extends Message> {
  private record Kept<Q>(long sequence, Q request, int size) {}

  private final ArrayDeque<Kept<Q>> kept = new ArrayDeque<>();
  private boolean keeps = true;
  private long keptBytes;
  private long lastSequence;

  /** Makes the next input. */
  Q add(LongFunction<Q> make) {
    Q request = make.apply(lastSequence + 1);
    lastSequence++;
    if (keeps) {
      int size = request.getSerializedSize();
      keptBytes += size;
      kept.add(new Kept<>(lastSequence, request, size));
    }
    return request;
  }

  /** The gateway has kept everything up to {@code sequence}. */
  void acknowledge(long sequence) {
    while (!kept.isEmpty() && kept.peek().sequence() <= sequence) {
      keptBytes -= kept.remove().size();
    }
  }

  /** The session cannot be resumed. */
  void keepNothing() {
    keeps = false;
    kept.clear();
    keptBytes = 0;
  }

  /** Whether the session can be resumed. */
  boolean keeps() {
    return keeps;
  }

  long keptBytes() {
    return keptBytes;
  }

  long lastSequence() {
    return lastSequence;
  }

  /** What has to be sent again after a loss, in order. */
  List<Q> unacknowledged() {
    List<Q> requests = new ArrayList<>();
    kept.forEach(item -> requests.add(item.request()));
    return requests;
  }
}
