package wavegate;

import com.google.protobuf.ByteString;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** The gRPC channel to one target, with what every call of it carries. */
final class GatewayChannel {
  /** What is the same for every target of a client. */
  record Settings(
      boolean tls,
      ByteString rootCertificates,
      ByteString privateKey,
      ByteString certificateChain,
      String token,
      List<Map.Entry<String, String>> metadata,
      String loadBalancing,
      List<Consumer<? super ManagedChannelBuilder<?>>> customizers) {}

  /**
   * A small receive window: audio waits in the gateway, where a cancel can drop it, and not for over a minute of playing
   * time in this process's transport.
   */
  private static final int WINDOW_BYTES = 64 * 1024;

  /** What a balancer puts into the headers of an answer, and what leads a later call to the same gateway. */
  static final Metadata.Key<String> ROUTE = key("wavegate-route");

  private static final int CONNECT_MS = 5_000;

  /** How often a connection that cannot be made is tried at most. */
  private static final Duration MIN_RETRY = Duration.ofMillis(100);

  final String target;

  private final Settings settings;
  private final ReentrantLock lock = new ReentrantLock();
  private ManagedChannel managed;
  private long madeNanos;
  private boolean closed;

  /** How many calls of a {@link Line} are open, and how many others. */
  private int lines;

  private int others;

  /** Whether it connects for single calls only, because new ones go elsewhere. */
  private boolean released;

  GatewayChannel(String target, Settings settings) {
    this.target = Targets.check(target, settings.tls());
    this.settings = settings;
  }

  /** The same with a connection of its own, which may lead to another process behind the same address. */
  GatewayChannel fresh() {
    return new GatewayChannel(target, settings);
  }

  /** Checks that a connection could be made as far as the settings go; connects to nothing. */
  void check() {
    credentials();
  }

  int lines() {
    lock.lock();
    try {
      return lines;
    } finally {
      lock.unlock();
    }
  }

  private void count(int moreLines, int moreOthers) {
    lock.lock();
    try {
      lines += moreLines;
      others += moreOthers;
      disconnectIfReleased();
    } finally {
      lock.unlock();
    }
  }

  /** The call of a line has ended. */
  void lineOver() {
    count(-1, 0);
  }

  /** A call that is no {@link Line}, while which the connection is not closed for want of use. */
  <T> T inUse(Supplier<T> call) {
    count(0, 1);
    try {
      return call.get();
    } finally {
      count(0, -1);
    }
  }

  /**
   * Closes the connection if no call uses it. A call that comes all the same, as to resume a session, connects again for
   * as long as it takes.
   *
   * @return false where it is in use, and nothing has happened
   */
  boolean release() {
    lock.lock();
    try {
      released |= lines + others == 0;
      disconnectIfReleased();
      return released;
    } finally {
      lock.unlock();
    }
  }

  private void disconnectIfReleased() {
    if (released && lines + others == 0 && managed != null) {
      managed.shutdown();
      managed = null;
    }
  }

  boolean isClosed() {
    lock.lock();
    try {
      return closed;
    } finally {
      lock.unlock();
    }
  }

  /** Where calls are made. Connects with the first of them. */
  private Channel channel() {
    lock.lock();
    try {
      if (closed) {
        throw Errors.sessionClosed("the client is closed; make another one");
      }
      // gRPC waits ever longer, up to two minutes, before it tries an address again that did not answer, and fails all
      // calls meanwhile. A new channel tries at once.
      if (managed != null
          && managed.getState(false) == ConnectivityState.TRANSIENT_FAILURE
          && System.nanoTime() - madeNanos >= MIN_RETRY.toNanos()) {
        managed.shutdown();
        managed = null;
      }
      if (managed == null) {
        managed = make();
        madeNanos = System.nanoTime();
      }
      return managed;
    } finally {
      lock.unlock();
    }
  }

  private ManagedChannel make() {
    NettyChannelBuilder builder =
        NettyChannelBuilder.forTarget(target, credentials())
            .userAgent("wavegate-java/" + Client.VERSION)
            // Unlike initialFlowControlWindow, this one also keeps the window from growing.
            .flowControlWindow(WINDOW_BYTES)
            // A peer that vanished is noticed within half a minute, also in a long silence.
            .keepAliveTime(20, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(false)
            .maxInboundMessageSize(Errors.MAX_MESSAGE_BYTES)
            .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_MS);
    if (settings.loadBalancing() != null) {
      builder.defaultLoadBalancingPolicy(settings.loadBalancing());
    }
    if (Targets.isLoopback(target)) {
      builder.proxyDetector(address -> null); // a proxy does not lead back to this machine
    }
    for (Consumer<? super ManagedChannelBuilder<?>> customizer : settings.customizers()) {
      customizer.accept(builder);
    }
    return builder.build();
  }

  private ChannelCredentials credentials() {
    if (!settings.tls()) {
      return InsecureChannelCredentials.create();
    }
    TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder();
    try {
      if (settings.rootCertificates() != null) {
        credentials.trustManager(settings.rootCertificates().newInput());
      }
      if (settings.privateKey() != null) {
        credentials.keyManager(
            settings.certificateChain().newInput(), settings.privateKey().newInput());
      }
    } catch (IOException e) {
      throw new IllegalArgumentException("the certificates cannot be read: " + e.getMessage(), e);
    }
    return credentials.build();
  }

  /** What goes with a call: the caller's own metadata, the token, the trace context, and the route if any. */
  private Metadata headers(Map<String, String> trace, String route) {
    Metadata headers = new Metadata();
    settings.metadata().forEach(entry -> headers.put(key(entry.getKey()), entry.getValue()));
    if (settings.token() != null) {
      headers.put(key("authorization"), "Bearer " + settings.token());
    }
    trace.forEach((name, value) -> headers.put(key(name), value));
    if (!route.isEmpty()) {
      headers.put(ROUTE, route);
    }
    return headers;
  }

  static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  /** Begins the call of a line, which says when it is over. It has no deadline. */
  <Q, R> ClientCall<Q, R> begin(
      MethodDescriptor<Q, R> method,
      Map<String, String> trace,
      String route,
      ClientCall.Listener<R> listener) {
    count(1, 0);
    try {
      ClientCall<Q, R> call = channel().newCall(method, CallOptions.DEFAULT);
      call.start(listener, headers(trace, route));
      return call;
    } catch (RuntimeException e) {
      lineOver();
      throw e;
    }
  }

  /**
   * One request, one answer. The thread may be interrupted; then the call is cancelled.
   *
   * @throws WavegateException as the gateway or gRPC says
   * @throws CancellationException where the thread was interrupted
   */
  <Q, R> R unary(MethodDescriptor<Q, R> method, Q request, Duration timeout) {
    try {
      return inUse(
          () -> ClientCalls.blockingUnaryCall(withHeaders(""), method, options(timeout), request));
    } catch (StatusRuntimeException e) {
      throw failed(e.getStatus(), e.getTrailers(), false);
    }
  }

  /** Ends a call that failed, with whichever exception is right for the calling thread. */
  WavegateException failed(Status status, Metadata trailers, boolean answered) {
    if (Thread.currentThread().isInterrupted() && status.getCode() == Status.Code.CANCELLED) {
      throw new CancellationException("interrupted while waiting for the gateway");
    }
    if (isClosed()) {
      return Errors.sessionClosed("the client was closed");
    }
    return error(status, trailers, answered);
  }

  /** One request, answered later on; failures come as gRPC's own exceptions. */
  <Q, R> com.google.common.util.concurrent.ListenableFuture<R> future(
      MethodDescriptor<Q, R> method, Q request, Duration timeout, String route) {
    count(0, 1);
    try {
      var answer =
          ClientCalls.futureUnaryCall(withHeaders(route).newCall(method, options(timeout)), request);
      answer.addListener(() -> count(0, -1), Runnable::run);
      return answer;
    } catch (RuntimeException e) {
      count(0, -1);
      throw e;
    }
  }

  /** One request, several answers, to be read {@link #inUse}. */
  <Q, R> java.util.Iterator<R> serverStreaming(MethodDescriptor<Q, R> method, Q request, Duration timeout) {
    return ClientCalls.blockingServerStreamingCall(withHeaders(""), method, options(timeout), request);
  }

  private Channel withHeaders(String route) {
    return io.grpc.ClientInterceptors.intercept(
        channel(), MetadataUtils.newAttachHeadersInterceptor(headers(TraceContext.current(), route)));
  }

  private static CallOptions options(Duration timeout) {
    return timeout == null
        ? CallOptions.DEFAULT
        : CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
  }

  /** The exception for how gRPC ended a call of this channel. */
  WavegateException error(Status status, Metadata trailers, boolean answered) {
    return Errors.fromRpc(status, trailers, target, settings.tls(), answered);
  }

  /** Ends every call of this channel. */
  void close() {
    lock.lock();
    try {
      closed = true;
      if (managed != null) {
        managed.shutdownNow();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Waits until the connection is closed, for a while. Gives false where the thread was interrupted. */
  boolean awaitClosed(Duration patience) {
    ManagedChannel last;
    lock.lock();
    try {
      last = managed;
    } finally {
      lock.unlock();
    }
    try {
      if (last != null) {
        last.awaitTermination(patience.toNanos(), TimeUnit.NANOSECONDS);
      }
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }
}
