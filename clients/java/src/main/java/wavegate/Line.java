package wavegate;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.ReentrantLock;

/**
 * One call. It writes what waits in its outbox as the transport takes it, and hands on what comes as long as its flow is
 * set; nobody but itself touches the call.
 *
 * <p>All of it is guarded by the lock of its owner, which is held in every method but the call's own callbacks.
 */
final class Line<Q, R> extends ClientCall.Listener<R> {
  /** Who is told what happens on a line, with the lock held. */
  interface Owner<Q, R> {
    /** A response came; true if it is the last one. */
    boolean onResponse(Line<Q, R> line, R response);

    /** The call is over: after a failure, or, with null, in good order or because this side cancelled it. */
    void onOver(Line<Q, R> line, WavegateException failure);

    /** Something else changed. */
    void notifyChanged();
  }

  /** Responses that gRPC may hand over before the one before them has been handed on. */
  private static final int PREFETCH = 4;

  /** How long the gateway may take to end the call after its last message; it gives our side 1 s to stop writing. */
  private static final Duration GOODBYE = Duration.ofSeconds(2);

  /** How long a call that nobody wants any more may take for its last request, */
  private static final Duration LAST_WRITE = Duration.ofMillis(500);

  /** and its other end for ending it. */
  private static final Duration LAST_ANSWER = Duration.ofSeconds(1);

  private static final Metadata.Key<String> SESSION_ID = GatewayChannel.key("wavegate-session-id");

  final GatewayChannel channel;

  /** Completes when the transport has let go of the call. */
  final CompletableFuture<Void> ended = new CompletableFuture<>();

  /** Its first answer, while a session waits for that. */
  CompletableFuture<R> opening;

  /** What the gateway named the session, which it does before the upstream has accepted it. */
  String sessionId = "";

  /** What leads a balancer to the same gateway again; empty where there is none, or it does not say. */
  String route;

  /** How many requests were given to it, and how many of them the transport has taken. */
  int queued;

  int written;

  /** Whether it is over: nothing more is handed on. */
  boolean over;

  /** Whether this side ended the call. */
  boolean cancelled;

  /** Why it is over, unless it ended in good order. */
  WavegateException failure;

  private final ReentrantLock lock;
  private final Background background;
  private Owner<Q, R> owner;
  private ClientCall<Q, R> call;
  private boolean sendsOne;

  private final Queue<Q> outbox = new ArrayDeque<>();
  private boolean halfClose;
  private boolean halfClosed;
  private CompletableFuture<Boolean> allWritten;

  private final Queue<R> held = new ArrayDeque<>();
  private boolean flow = true;
  private boolean handingOn;
  private boolean answered;
  private boolean last;
  private boolean closed;
  private Status closeStatus;
  private Metadata closeTrailers;

  Line(Owner<Q, R> owner, ReentrantLock lock, Background background, GatewayChannel channel) {
    this(owner, lock, background, channel, "");
  }

  Line(
      Owner<Q, R> owner,
      ReentrantLock lock,
      Background background,
      GatewayChannel channel,
      String route) {
    this.route = route;
    this.owner = owner;
    this.lock = lock;
    this.background = background;
    this.channel = channel;
  }

  void start(MethodDescriptor<Q, R> method, Map<String, String> trace) {
    sendsOne = method.getType().clientSendsOneMessage();
    call = channel.begin(method, trace, route, this);
    call.request(PREFETCH);
  }

  // --- writing ------------------------------------------------------------------------------------

  /** Sends a request after those before it; {@link #written} reaches the number given back once it has gone. */
  int put(Q request) {
    outbox.add(request);
    queued++;
    write();
    return queued;
  }

  /** Half-closes the call once everything queued is written. */
  void end() {
    halfClose = true;
    write();
  }

  private void write() {
    boolean wrote = false;
    while (!over && !cancelled && !closed && !halfClosed && !outbox.isEmpty() && isReady()) {
      call.sendMessage(outbox.remove());
      written = queued - outbox.size();
      wrote = true;
    }
    if (outbox.isEmpty() && allWritten != null) {
      allWritten.complete(written == queued && !over && !cancelled && !closed);
    }
    if (halfClose && outbox.isEmpty() && !halfClosed && !cancelled && !closed) {
      halfClosed = true;
      call.halfClose();
    }
    if (wrote && owner != null) {
      owner.notifyChanged();
    }
  }

  /** Of a call that takes one request, gRPC never says that it is ready. */
  private boolean isReady() {
    return sendsOne || call.isReady();
  }

  @Override
  public void onReady() {
    lock.lock();
    try {
      write();
    } finally {
      lock.unlock();
    }
  }

  // --- reading ------------------------------------------------------------------------------------

  @Override
  public void onHeaders(Metadata headers) {
    String named = headers.get(SESSION_ID);
    String led = headers.get(GatewayChannel.ROUTE);
    lock.lock();
    try {
      sessionId = named != null ? named : sessionId;
      route = led != null ? led : route;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void onMessage(R response) {
    lock.lock();
    try {
      answered = true;
      held.add(response);
      handOn();
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void onClose(Status status, Metadata trailers) {
    lock.lock();
    try {
      closed = true;
      closeStatus = status;
      closeTrailers = trailers;
      channel.lineOver();
      if (allWritten != null) {
        allWritten.complete(false);
      }
      handOn();
    } finally {
      lock.unlock();
    }
    ended.complete(null);
  }

  /** While the flow is off, nothing is handed on; what gRPC has in hand already waits here. */
  void setFlow(boolean on) {
    flow = on;
    if (on) {
      handOn();
    }
  }

  private void handOn() {
    if (handingOn) {
      return; // what is being handed on has changed the flow; the loop below sees that
    }
    handingOn = true;
    try {
      while (!held.isEmpty() && (flow || owner == null || over)) {
        R response = held.remove();
        if (!closed) {
          call.request(1);
        }
        if (over || owner == null) {
          continue;
        }
        if (owner.onResponse(this, response)) {
          last = true;
          over(null);
          sayGoodbye();
        }
      }
    } catch (RuntimeException e) {
      // Whoever waits must hear of it, whatever it is.
      over(
          Errors.other(
              "an answer of the gateway cannot be read: " + e.getMessage(), Status.Code.INTERNAL, e));
      cancel();
    } finally {
      handingOn = false;
    }
    if (closed && held.isEmpty() && !over) {
      cancelled |= channel.isClosed();
      over(
          closeStatus.isOk() || cancelled
              ? null
              : channel.error(closeStatus, closeTrailers, answered || !sessionId.isEmpty()));
    }
  }

  private void over(WavegateException why) {
    if (over) {
      return;
    }
    over = true;
    failure = why;
    if (owner != null) {
      owner.onOver(this, why);
    }
  }

  /** Lets the gateway end the call itself, so that both sides see the same status. */
  private void sayGoodbye() {
    outbox.clear();
    halfClose = true;
    write();
    cancelAfter(GOODBYE);
  }

  // --- leaving ------------------------------------------------------------------------------------

  /**
   * Sends a request instead of what is not sent yet, and waits for the end, of which nobody is told any more.
   *
   * @return false if that did not come in time
   */
  CompletableFuture<Boolean> discard(Q lastRequest) {
    owner = null;
    opening = null;
    outbox.clear();
    setFlow(true);
    if (over || cancelled || closed || halfClosed) {
      return CompletableFuture.completedFuture(false);
    }
    allWritten = new CompletableFuture<>();
    CompletableFuture<Boolean> sent = allWritten;
    put(lastRequest);
    end();
    within(LAST_WRITE, () -> sent.complete(written == queued && !over && !closed));
    return sent.thenCompose(
        gone -> {
          if (!gone) {
            return CompletableFuture.completedFuture(false);
          }
          // A message that is sent may still wait for the gateway to read what came before it.
          CompletableFuture<Boolean> answeredAll = ended.thenApply(done -> true);
          within(LAST_ANSWER, () -> answeredAll.complete(false));
          return answeredAll;
        });
  }

  private void within(Duration patience, Runnable action) {
    java.util.concurrent.Future<?> timer =
        background.later(
            patience,
            () -> {
              lock.lock();
              try {
                action.run();
              } finally {
                lock.unlock();
              }
            });
    CompletableFuture<Void> unused = ended.whenComplete((done, error) -> timer.cancel(false));
  }

  private void cancelAfter(Duration patience) {
    within(patience, this::cancel);
  }

  /** Ends the call, if it lives. One that has heard its last word is given the time of a goodbye. */
  void stop() {
    if (!last) {
      cancel();
    }
  }

  private void cancel() {
    if (!closed && !cancelled) {
      cancelled = true;
      call.cancel("not wanted any more", null);
    }
  }
}
