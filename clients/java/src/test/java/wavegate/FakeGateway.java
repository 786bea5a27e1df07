package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import wavegate.speech.v1.AudioChunk;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.CloseSessionResponse;
import wavegate.speech.v1.EffectiveSettings;
import wavegate.speech.v1.GoAway;
import wavegate.speech.v1.SessionEnded;
import wavegate.speech.v1.SessionLimits;
import wavegate.speech.v1.SessionServiceGrpc;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SynthesisServiceGrpc;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.SynthesizeStreamRequest;
import wavegate.speech.v1.SynthesizeStreamResponse;
import wavegate.speech.v1.TranscribeStreamRequest;
import wavegate.speech.v1.TranscribeStreamResponse;
import wavegate.speech.v1.Transcript;
import wavegate.speech.v1.TranscriptionServiceGrpc;
import wavegate.speech.v1.TranscriptionSettings;
import wavegate.speech.v1.UtteranceCompleted;
import wavegate.speech.v1.UtteranceStarted;

/** A gateway that does what a test says, call by call, over a real connection. */
final class FakeGateway implements AutoCloseable {
  /** Longer than anything here takes; only a test that hangs comes to it. */
  static final Duration PATIENCE = Duration.ofSeconds(20);

  private final Server server;
  private final BlockingQueue<Call<?, ?>> synthesis = new LinkedBlockingQueue<>();
  private final BlockingQueue<Call<?, ?>> transcription = new LinkedBlockingQueue<>();
  private final BlockingQueue<Call<?, ?>> others = new LinkedBlockingQueue<>();

  /** The headers of requests to close a session from outside. */
  final BlockingQueue<Metadata> closings = new LinkedBlockingQueue<>();

  /** Whether calls ask for one request after the other by themselves. */
  private volatile boolean reads = true;

  FakeGateway() {
    this(0);
  }

  FakeGateway(int port) {
    try {
      server =
          NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), port))
              .flowControlWindow(64 * 1024)
              .addService(
                  ServerServiceDefinition.builder(SynthesisServiceGrpc.SERVICE_NAME)
                      .addMethod(SynthesisServiceGrpc.getSynthesizeStreamMethod(), into(synthesis))
                      .addMethod(SynthesisServiceGrpc.getSynthesizeMethod(), into(others))
                      .addMethod(SynthesisServiceGrpc.getListVoicesMethod(), into(others))
                      .build())
              .addService(
                  ServerServiceDefinition.builder(TranscriptionServiceGrpc.SERVICE_NAME)
                      .addMethod(TranscriptionServiceGrpc.getTranscribeStreamMethod(), into(transcription))
                      .addMethod(TranscriptionServiceGrpc.getRecognizeMethod(), into(others))
                      .build())
              .addService(
                  ServerServiceDefinition.builder(SessionServiceGrpc.SERVICE_NAME)
                      .addMethod(SessionServiceGrpc.getUpdateSettingsMethod(), into(others))
                      .addMethod(SessionServiceGrpc.getGetSessionMethod(), into(others))
                      .addMethod(SessionServiceGrpc.getListSessionsMethod(), into(others))
                      .addMethod(SessionServiceGrpc.getGetTraceMethod(), into(others))
                      .addMethod(
                          SessionServiceGrpc.getCloseSessionMethod(),
                          (call, headers) -> {
                            closings.add(headers);
                            call.request(2);
                            call.sendHeaders(new Metadata());
                            call.sendMessage(CloseSessionResponse.getDefaultInstance());
                            call.close(Status.OK, new Metadata());
                            return new ServerCall.Listener<>() {};
                          })
                      .build())
              .build()
              .start();
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  String target() {
    return "127.0.0.1:" + server.getPort();
  }

  void reads(boolean on) {
    reads = on;
  }

  private <Q, R> ServerCallHandler<Q, R> into(BlockingQueue<Call<?, ?>> calls) {
    return (call, headers) -> {
      Call<Q, R> taken = new Call<>(call, headers, reads);
      calls.add(taken);
      call.request(1);
      return taken;
    };
  }

  @SuppressWarnings("unchecked")
  Call<SynthesizeStreamRequest, SynthesizeStreamResponse> synthesisCall() {
    return (Call<SynthesizeStreamRequest, SynthesizeStreamResponse>) next(synthesis, "a call to synthesize");
  }

  @SuppressWarnings("unchecked")
  Call<TranscribeStreamRequest, TranscribeStreamResponse> transcriptionCall() {
    return (Call<TranscribeStreamRequest, TranscribeStreamResponse>)
        next(transcription, "a call to transcribe");
  }

  @SuppressWarnings("unchecked")
  <Q, R> Call<Q, R> otherCall() {
    return (Call<Q, R>) next(others, "a call");
  }

  static <T> T next(BlockingQueue<T> queue, String what) {
    try {
      T item = queue.poll(PATIENCE.toSeconds(), TimeUnit.SECONDS);
      assertNotNull(item, () -> what + " did not come");
      return item;
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  boolean hasCalls() {
    return !synthesis.isEmpty() || !transcription.isEmpty() || !others.isEmpty();
  }

  @Override
  public void close() {
    server.shutdownNow();
    try {
      assertEquals(true, server.awaitTermination(PATIENCE.toSeconds(), TimeUnit.SECONDS));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** One call. The test sends, and takes what comes. */
  static final class Call<Q, R> extends ServerCall.Listener<Q> {
    final Metadata headers;
    final BlockingQueue<Q> requests = new LinkedBlockingQueue<>();
    final CountDownLatch over = new CountDownLatch(1);
    final CountDownLatch halfClosed = new CountDownLatch(1);
    private final ServerCall<Q, R> call;
    private final boolean reads;
    private boolean hasSentHeaders;
    private boolean closed;
    private long sequence;
    private long acknowledged;

    Call(ServerCall<Q, R> call, Metadata headers, boolean reads) {
      this.call = call;
      this.headers = headers;
      this.reads = reads;
    }

    @Override
    public void onMessage(Q request) {
      requests.add(request);
      if (isDiscard(request)) {
        if (sequence > 0) {
          endSession(); // as a gateway does
        } else {
          end(Status.OK);
        }
      } else if (reads) {
        call.request(1);
      }
    }

    private static boolean isDiscard(Object request) {
      return (request instanceof SynthesizeStreamRequest speak && speak.getEndSession().getDiscard())
          || (request instanceof TranscribeStreamRequest listen && listen.getEndSession().getDiscard());
    }

    @Override
    public void onHalfClose() {
      halfClosed.countDown();
    }

    @Override
    public void onCancel() {
      over.countDown();
    }

    @Override
    public void onComplete() {
      over.countDown();
    }

    Q request() {
      return next(requests, "a request");
    }

    void read(int count) {
      call.request(count);
    }

    void awaitOver() {
      await(over, "the end of the call");
    }

    void awaitHalfClosed() {
      await(halfClosed, "the half-close");
    }

    static void await(CountDownLatch latch, String what) {
      try {
        assertEquals(true, latch.await(PATIENCE.toSeconds(), TimeUnit.SECONDS), what + " did not come");
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }

    /** Whether the transport takes more without keeping it. */
    boolean isReady() {
      return call.isReady();
    }

    void send(R response) {
      synchronized (call) {
        if (!closed) {
          sendHeaders("");
          call.sendMessage(response);
        }
      }
    }

    /** The gateway names the session before the upstream has accepted it. */
    void sendHeaders(String sessionId) {
      sendHeaders(sessionId, "");
    }

    /** Behind a balancer that says which gateway it is. */
    void sendHeaders(String sessionId, String route) {
      synchronized (call) {
        if (!hasSentHeaders) {
          hasSentHeaders = true;
          Metadata sent = new Metadata();
          if (!sessionId.isEmpty()) {
            sent.put(GatewayChannel.key("wavegate-session-id"), sessionId);
          }
          if (!route.isEmpty()) {
            sent.put(GatewayChannel.key("wavegate-route"), route);
          }
          call.sendHeaders(sent);
        }
      }
    }

    void end(Status status) {
      end(status, new Metadata());
    }

    /** The gateway shuts down, and takes nothing new. */
    void refuse() {
      end(
          Status.UNAVAILABLE,
          trailers(status(Status.Code.UNAVAILABLE, "GATEWAY_DRAINING", "shutting down")));
    }

    void end(Status status, Metadata trailers) {
      synchronized (call) {
        if (!closed) {
          closed = true;
          call.close(status, trailers);
        }
      }
    }

    /** Goes on counting where another call has stood. */
    void from(long lastSequence) {
      sequence = lastSequence;
    }

    void acknowledge(long inputSequence) {
      acknowledged = inputSequence;
    }

    // --- what a session says ----------------------------------------------------------------------

    @SuppressWarnings("unchecked")
    void say(Message event) {
      String name = event.getDescriptorForType().getName();
      long number = ++sequence;
      Message.Builder response =
          isSynthesis() ? SynthesizeStreamResponse.newBuilder() : TranscribeStreamResponse.newBuilder();
      set(response, "sequence", number);
      set(response, "acknowledged_input_sequence", acknowledged);
      for (var field : response.getDescriptorForType().getFields()) {
        if (field.getJavaType() == com.google.protobuf.Descriptors.FieldDescriptor.JavaType.MESSAGE
            && field.getMessageType().getName().equals(name)) {
          response.setField(field, event);
        }
      }
      send((R) response.build());
    }

    private boolean isSynthesis() {
      return call.getMethodDescriptor().getServiceName().equals(SynthesisServiceGrpc.SERVICE_NAME);
    }

    private static void set(Message.Builder builder, String field, long value) {
      builder.setField(builder.getDescriptorForType().findFieldByName(field), value);
    }

    void started(String sessionId) {
      say(sessionStarted(sessionId, isSynthesis(), 30).build());
    }

    void startedWithoutResume(String sessionId) {
      say(sessionStarted(sessionId, isSynthesis(), 0).build());
    }

    /** The answer to a call that takes a session up; what came before keeps its numbers. */
    @SuppressWarnings("unchecked")
    void resumed(String sessionId, long lastSequence, long inputAcknowledged) {
      from(lastSequence);
      SessionStarted started =
          sessionStarted(sessionId, isSynthesis(), 30)
              .setResumed(true)
              .setInputSequenceAcknowledged(inputAcknowledged)
              .build();
      send(
          (R)
              (isSynthesis()
                  ? SynthesizeStreamResponse.newBuilder()
                      .setSequence(lastSequence)
                      .setSessionStarted(started)
                      .build()
                  : TranscribeStreamResponse.newBuilder()
                      .setSequence(lastSequence)
                      .setSessionStarted(started)
                      .build()));
    }

    void utteranceStarted(String utteranceId) {
      say(UtteranceStarted.newBuilder().setUtteranceId(utteranceId).build());
    }

    void audio(String utteranceId, String content) {
      say(
          AudioChunk.newBuilder()
              .setUtteranceId(utteranceId)
              .setAudio(ByteString.copyFromUtf8(content))
              .build());
    }

    void completed(String utteranceId) {
      say(UtteranceCompleted.newBuilder().setUtteranceId(utteranceId).build());
    }

    void transcript(String segment, String text, boolean isFinal, double endSeconds, String finalizeId) {
      say(
          Transcript.newBuilder()
              .setSegmentId(segment)
              .setSegmentRevision(1)
              .setText(text)
              .setIsFinal(isFinal)
              .setEndOffset(Times.toWire(endSeconds))
              .setFinalizeId(finalizeId)
              .build());
    }

    void goAway(double secondsLeft) {
      say(
          GoAway.newBuilder()
              .setReason("GATEWAY_DRAINING")
              .setTimeLeft(Times.toWire(secondsLeft))
              .build());
    }

    void endSession() {
      say(SessionEnded.newBuilder().setReason(SessionEnded.Reason.REASON_CLIENT_END).build());
      end(Status.OK);
    }

    void failSession(wavegate.speech.v1.Status status) {
      say(
          SessionEnded.newBuilder()
              .setReason(SessionEnded.Reason.REASON_FAILURE)
              .setStatus(status)
              .build());
    }
  }

  static SessionStarted.Builder sessionStarted(String sessionId, boolean synthesis, int resumeSeconds) {
    EffectiveSettings.Builder settings = EffectiveSettings.newBuilder();
    if (synthesis) {
      settings.setSynthesis(SynthesisSettings.newBuilder().setVoiceId("magnus"));
    } else {
      settings.setTranscription(TranscriptionSettings.newBuilder().setLanguageCode("en"));
    }
    return SessionStarted.newBuilder()
        .setSessionId(sessionId)
        .setSettings(settings)
        .setSettingsRevision(1)
        .setAudioFormat(
            AudioFormat.newBuilder()
                .setEncoding(AudioEncoding.AUDIO_ENCODING_LINEAR16)
                .setSampleRateHertz(synthesis ? 24_000 : 16_000)
                .setChannelCount(1))
        .setLimits(
            SessionLimits.newBuilder()
                .setResumeWindow(Times.toWire(Duration.ofSeconds(resumeSeconds)))
                .setMaxTextMessageChars(1000)
                .setMaxAudioMessageBytes(64 * 1024));
  }

  static wavegate.speech.v1.Status status(Status.Code code, String reason, String message) {
    return wavegate.speech.v1.Status.newBuilder()
        .setCode(code.value())
        .setMessage(message)
        .addDetails(
            Any.pack(
                ErrorInfo.newBuilder()
                    .setDomain("wavegate.speech")
                    .setReason(reason)
                    .putMetadata("http_status", "429")
                    .build()))
        .addDetails(
            Any.pack(RetryInfo.newBuilder().setRetryDelay(Times.toWire(Duration.ofMillis(1500))).build()))
        .build();
  }

  static Metadata trailers(wavegate.speech.v1.Status status) {
    Metadata trailers = new Metadata();
    trailers.put(
        Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER), status.toByteArray());
    return trailers;
  }

  /** The kinds of some events. */
  static List<SessionEvent.Kind> kinds(Iterable<? extends SessionEvent> events) {
    List<SessionEvent.Kind> kinds = new ArrayList<>();
    events.forEach(event -> kinds.add(event.kind()));
    return kinds;
  }
}
