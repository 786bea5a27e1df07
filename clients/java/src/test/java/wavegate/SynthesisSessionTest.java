package wavegate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnknownFieldSet;
import io.grpc.Status;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.context.Scope;
import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.SubmissionPublisher;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.SynthesizeStreamRequest;
import wavegate.speech.v1.SynthesizeStreamResponse;
import wavegate.speech.v1.UtteranceCancelled;
import wavegate.speech.v1.UtteranceFailed;

@Timeout(60)
class SynthesisSessionTest {
  private final FakeGateway gateway = new FakeGateway();
  private final Client client = Client.connect(gateway.target());
  private FakeGateway.Call<SynthesizeStreamRequest, SynthesizeStreamResponse> call;

  @AfterEach
  void close() {
    client.close();
    gateway.close();
  }

  private SynthesisSession open() {
    return open(SynthesisOptions.builder().voice("magnus").build());
  }

  private SynthesisSession open(SynthesisOptions options) {
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(options));
    call = gateway.synthesisCall();
    assertEquals("magnus", call.request().getStart().getSettings().getVoiceId());
    call.started("s-1");
    return opening.get();
  }

  private static String text(byte[] audio) {
    return new String(audio, StandardCharsets.UTF_8);
  }

  @Test
  void wholeTextIsSentInOneMessageAndHeard() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    SynthesizeStreamRequest request = call.request();
    assertEquals(2, request.getInputSequence());
    assertEquals("Hello.", request.getText().getText());
    assertTrue(request.getText().getEndUtterance());
    call.utteranceStarted("u1");
    call.audio("u1", "He");
    call.audio("u1", "llo");
    call.completed("u1");
    assertEquals("Hello", text(utterance.read()));
    assertFalse(utterance.await().wasCancelled());
    Later<Void> closing = Later.run(session::close);
    assertTrue(call.request().hasEndSession());
    call.endSession();
    closing.get();
    assertTrue(session.ended().isPresent());
    session.close();
    assertThrows(SessionClosedException.class, () -> session.say("Too late."));
  }

  @Test
  void eventsComeInOrderAndThenTheEnd() {
    SynthesisSession session = open();
    session.say("Hello.", "u1");
    call.request();
    call.utteranceStarted("u1");
    call.audio("u1", "x");
    call.completed("u1");
    Later<Void> ending = Later.run(session::end);
    assertTrue(call.request().hasEndSession());
    ending.get();
    call.endSession();
    assertEquals(
        List.of(
            SessionEvent.Kind.SESSION_STARTED,
            SessionEvent.Kind.UTTERANCE_STARTED,
            SessionEvent.Kind.AUDIO,
            SessionEvent.Kind.UTTERANCE_COMPLETED,
            SessionEvent.Kind.SESSION_ENDED),
        FakeGateway.kinds(session.events()));
    session.close();
  }

  @Test
  void unknownEventsAndFieldsAreSkipped() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.from(2);
    call.send(
        SynthesizeStreamResponse.newBuilder()
            .setSequence(2)
            .setUnknownFields(
                UnknownFieldSet.newBuilder()
                    .addField(
                        99,
                        UnknownFieldSet.Field.newBuilder()
                            .addLengthDelimited(ByteString.copyFromUtf8("?"))
                            .build())
                    .build())
            .build());
    call.audio("u1", "x");
    call.completed("u1");
    assertEquals("x", text(utterance.read()));
    session.abort();
  }

  @Test
  void piecesAreJoinedAsTheyComeAndEnded() {
    SynthesisSession session = open();
    Utterance utterance = session.say(List.of("One ", "", "two."), "u1");
    assertEquals("One ", call.request().getText().getText());
    assertEquals("two.", call.request().getText().getText());
    assertEquals("u1", call.request().getEndUtterance().getUtteranceId());
    call.completed("u1");
    utterance.await();
    session.abort();
  }

  @Test
  void emptyIteratorEndsItsUtteranceLikeAnyOther() {
    SynthesisSession session = open();
    session.say(List.<String>of(), "u1");
    SynthesizeStreamRequest request = call.request();
    assertEquals("", request.getText().getText());
    assertTrue(request.getText().getEndUtterance());
    session.abort();
  }

  @Test
  void textThatIsSaidWhileAnotherStillComesWaitsForIt() {
    SynthesisSession session = open();
    BlockingQueue<String> tokens = new LinkedBlockingQueue<>();
    session.say(Stream.generate(() -> take(tokens)).takeWhile(token -> !token.isEmpty()), "u1");
    session.say("Second.", "u2");
    session.say("Third.", "u3");
    tokens.add("First");
    assertEquals("First", call.request().getText().getText());
    tokens.add(" of all.");
    assertEquals(" of all.", call.request().getText().getText());
    tokens.add("");
    assertTrue(call.request().hasEndUtterance());
    assertEquals("Second.", call.request().getText().getText());
    assertEquals("u3", call.request().getText().getUtteranceId());
    session.abort();
  }

  private static String take(BlockingQueue<String> tokens) {
    try {
      return tokens.take();
    } catch (InterruptedException e) {
      throw new CancellationException();
    }
  }

  @Test
  void iteratorThatThrowsCancelsItsUtteranceAndComesOutOfTheHandle() {
    SynthesisSession session = open();
    Iterator<String> tokens =
        new Iterator<>() {
          private boolean first = true;

          @Override
          public boolean hasNext() {
            return true;
          }

          @Override
          public String next() {
            if (first) {
              first = false;
              return "One ";
            }
            throw new ArithmeticException("no more");
          }
        };
    Utterance utterance = session.say(tokens, "u1");
    assertEquals("One ", call.request().getText().getText());
    assertEquals("u1", call.request().getCancel().getUtteranceId());
    call.say(UtteranceCancelled.newBuilder().setUtteranceId("u1").build());
    assertEquals("no more", assertThrows(ArithmeticException.class, utterance::await).getMessage());
    assertThrows(ArithmeticException.class, utterance::read);
    session.abort();
  }

  @Test
  void closeRaisesWhatAnIteratorThrewIfNobodyAsked() {
    SynthesisSession session = open();
    session.say(
        Stream.<String>generate(
            () -> {
              throw new ArithmeticException("at once");
            }),
        "u1");
    // Nothing was sent of it, so there is nothing to cancel at the gateway.
    Later<Void> closing = Later.run(session::close);
    assertTrue(call.request().hasEndSession());
    call.endSession();
    assertEquals("at once", closing.thrown(ArithmeticException.class).getMessage());
  }

  @Test
  void publisherIsAskedForOnePieceAfterTheOther() {
    SynthesisSession session = open();
    try (SubmissionPublisher<String> publisher = new SubmissionPublisher<>()) {
      Utterance utterance = session.say(publisher, "u1");
      while (publisher.getNumberOfSubscribers() == 0) {
        Thread.onSpinWait();
      }
      publisher.submit("One ");
      publisher.submit("two.");
      assertEquals("One ", call.request().getText().getText());
      assertEquals("two.", call.request().getText().getText());
      publisher.close();
      assertTrue(call.request().hasEndUtterance());
      call.completed("u1");
      utterance.await();
    }
    session.abort();
  }

  @Test
  void failedPublisherCancelsItsUtterance() {
    SynthesisSession session = open();
    SubmissionPublisher<String> publisher = new SubmissionPublisher<>();
    Utterance utterance = session.say(publisher, "u1");
    while (publisher.getNumberOfSubscribers() == 0) {
      Thread.onSpinWait();
    }
    publisher.submit("One ");
    assertEquals("One ", call.request().getText().getText());
    publisher.closeExceptionally(new IOException("gone"));
    assertTrue(call.request().hasCancel());
    call.say(UtteranceCancelled.newBuilder().setUtteranceId("u1").build());
    RuntimeException thrown = assertThrows(RuntimeException.class, utterance::await);
    assertInstanceOf(IOException.class, thrown.getCause());
    session.abort();
  }

  @Test
  void cancelStopsTheIteratorAndDropsAudioAtOnce() {
    SynthesisSession session = open();
    CountDownLatch interrupted = new CountDownLatch(1);
    Iterator<String> tokens =
        new Iterator<>() {
          private int count;

          @Override
          public boolean hasNext() {
            return true;
          }

          @Override
          public String next() {
            if (count++ == 0) {
              return "One ";
            }
            try {
              new CountDownLatch(1).await();
            } catch (InterruptedException e) {
              interrupted.countDown();
            }
            return "never sent";
          }
        };
    Utterance utterance = session.say(tokens, "u1");
    assertEquals("One ", call.request().getText().getText());
    call.audio("u1", "heard");
    Iterator<byte[]> audio = utterance.audio().iterator();
    assertEquals("heard", text(audio.next()));
    call.audio("u1", "buffered");
    Later<Boolean> more = Later.of(audio::hasNext);
    utterance.cancel(Duration.ofMillis(50));
    SynthesizeStreamRequest request = call.request();
    assertEquals(Duration.ofMillis(50), Times.toJava(request.getCancel().getPlaybackOffset()));
    more.get(); // either the piece that was there before, or the end
    FakeGateway.Call.await(interrupted, "the interrupt");
    call.audio("u1", "late");
    call.say(UtteranceCancelled.newBuilder().setUtteranceId("u1").setSpokenText("One").build());
    assertEquals("One", utterance.await().cancelled().orElseThrow().getSpokenText());
    assertEquals(0, utterance.read().length);
    utterance.cancel(); // twice
    assertTrue(call.request().hasCancel());
    assertTrue(utterance.isCancelled());
    // Whatever else was asked of the iterator, it was not sent.
    session.say("Next.", "u2");
    assertEquals("u2", call.request().getText().getUtteranceId());
    session.abort();
  }

  @Test
  void streamsAreClosedWhetherTheirTurnHasComeOrNot() {
    SynthesisSession session = open();
    CountDownLatch first = new CountDownLatch(1);
    CountDownLatch second = new CountDownLatch(1);
    BlockingQueue<String> never = new LinkedBlockingQueue<>();
    session.say(Stream.generate(() -> take(never)).onClose(first::countDown), "u1");
    Utterance unread = session.say(Stream.of("unread").onClose(second::countDown), "u2");
    session.cancel();
    assertEquals("", call.request().getCancel().getUtteranceId());
    FakeGateway.Call.await(first, "the close of the first");
    FakeGateway.Call.await(second, "the close of the second");
    assertEquals(
        UtteranceCancelled.Method.METHOD_NOT_SENT,
        unread.await().cancelled().orElseThrow().getMethod());
    session.abort();
  }

  @Test
  void lateTextOfACancelledUtteranceIsRefusedBySay() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    utterance.cancel();
    call.request();
    assertThrows(IllegalArgumentException.class, () -> session.say("Again.", "u1"));
    session.abort();
  }

  @Test
  void failedUtteranceRaisesAndTheSessionGoesOn() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    call.say(
        UtteranceFailed.newBuilder()
            .setUtteranceId("u1")
            .setError(FakeGateway.status(Status.Code.RESOURCE_EXHAUSTED, "UPSTREAM_CAPACITY", "full"))
            .build());
    CapacityException failed = assertThrows(CapacityException.class, utterance::await);
    assertEquals("UPSTREAM_CAPACITY", failed.reason());
    assertEquals(Duration.ofMillis(1500), failed.retryDelay().orElseThrow());
    assertEquals("429", failed.metadata().get("http_status"));
    assertThrows(CapacityException.class, utterance::read);
    Utterance next = session.say("Again.", "u2");
    call.request();
    call.completed("u2");
    next.await();
    session.abort();
  }

  @Test
  void lastWordOfTheSessionCountsAndNotTheStatusOfTheCall() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    call.failSession(FakeGateway.status(Status.Code.FAILED_PRECONDITION, "UPSTREAM_CREDENTIAL", "bad key"));
    call.end(Status.CANCELLED);
    UpstreamException failed = assertThrows(UpstreamException.class, utterance::await);
    assertEquals("UPSTREAM_CREDENTIAL", failed.reason());
    assertInstanceOf(UpstreamException.class, failed.getCause());
    session.close(); // somebody has seen it
  }

  @Test
  void closeRaisesAFailureThatNobodyHasSeen() {
    SynthesisSession session = open();
    call.failSession(FakeGateway.status(Status.Code.DEADLINE_EXCEEDED, "SESSION_IDLE", "idle"));
    assertEquals("SESSION_IDLE", assertThrows(DeadlineException.class, session::close).reason());
    session.close();
  }

  @Test
  void trailersTellWhatWasWrongWithTheStart() {
    Later<SynthesisSession> opening =
        Later.of(() -> client.synthesize(SynthesisSettings.getDefaultInstance()));
    call = gateway.synthesisCall();
    call.request();
    call.end(
        Status.INVALID_ARGUMENT,
        FakeGateway.trailers(FakeGateway.status(Status.Code.INVALID_ARGUMENT, "FIELD_INVALID", "no voice")));
    InvalidRequestException failed = opening.thrown(InvalidRequestException.class);
    assertEquals("no voice", failed.getMessage());
    assertEquals("FIELD_INVALID", failed.reason());
  }

  @Test
  void openingHasADeadlineAndTheGatewayIsToldThatItIsNotWanted() {
    Later<SynthesisSession> opening =
        Later.of(
            () -> client.synthesize(SynthesisOptions.builder().openTimeout(Duration.ofMillis(200)).build()));
    call = gateway.synthesisCall();
    call.request();
    assertEquals(WavegateException.Kind.DEADLINE, opening.thrown(DeadlineException.class).kind());
    assertTrue(call.request().getEndSession().getDiscard());
    call.awaitOver();
  }

  @Test
  void settingsAreAcknowledgedOrRefused() {
    SynthesisSession session = open();
    Later<SettingsAck> changing =
        Later.of(
            () ->
                session.updateSettings(
                    SynthesisSettings.newBuilder().setSpeed(2).build(),
                    UpdateOptions.builder().updateId("d1").reset("model").build()));
    SynthesizeStreamRequest request = call.request();
    assertEquals(2, request.getUpdateSettings().getSettings().getSpeed());
    assertEquals("model", request.getUpdateSettings().getResetMask().getPaths(0));
    call.say(SettingsAck.newBuilder().setUpdateId("d1").setState(SettingsAck.State.STATE_QUEUED).build());
    call.say(SettingsAck.newBuilder().setUpdateId("d1").setState(SettingsAck.State.STATE_APPLIED).build());
    assertEquals(SettingsAck.State.STATE_APPLIED, changing.get().getState());

    Later<SettingsAck> refused =
        Later.of(() -> session.updateSettings(SynthesisSettings.newBuilder().setSpeed(9).build()));
    String id = call.request().getUpdateSettings().getUpdateId();
    call.say(
        SettingsAck.newBuilder()
            .setUpdateId(id)
            .setState(SettingsAck.State.STATE_REJECTED)
            .setError(FakeGateway.status(Status.Code.ABORTED, "REVISION_MISMATCH", "another came first"))
            .build());
    assertEquals("REVISION_MISMATCH", refused.thrown(ConflictException.class).reason());
    assertThrows(
        IllegalArgumentException.class,
        () ->
            session.updateSettings(
                SynthesisSettings.getDefaultInstance(), UpdateOptions.builder().reset("sped").build()));
    session.abort();
  }

  @Test
  void longTextIsCutAtBlanks() {
    SynthesisSession session = open();
    session.say("word ".repeat(300), "u1");
    String first = call.request().getText().getText();
    assertEquals(1000, first.length());
    SynthesizeStreamRequest second = call.request();
    assertEquals("word ".repeat(300), first + second.getText().getText());
    assertTrue(second.getText().getEndUtterance());
    session.abort();
  }

  @Test
  void slowReaderLeavesAudioAtTheGateway() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    String chunk = "x".repeat(8 * 1024);
    int sent = 0;
    // The transport says that it is full when no more than windows and buffers are filled.
    long patience = System.nanoTime() + Duration.ofSeconds(2).toNanos();
    while (System.nanoTime() < patience && sent < 1000) {
      if (call.isReady()) {
        call.audio("u1", chunk);
        sent++;
      } else {
        Thread.onSpinWait();
      }
    }
    assertTrue(sent * 8 < 600, sent + " chunks of 8 KiB were taken");
    Later<Integer> reading =
        Later.of(
            () -> {
              int bytes = 0;
              for (byte[] piece : utterance.audio()) {
                bytes += piece.length;
              }
              return bytes;
            });
    for (int more = 0; more < 200; more++) {
      while (!call.isReady()) {
        Thread.onSpinWait();
      }
      call.audio("u1", chunk);
      sent++;
    }
    call.completed("u1");
    assertEquals(sent * chunk.length(), reading.get());
    session.abort();
  }

  @Test
  void gatewayThatTakesNothingMakesSendersWait() {
    gateway.reads(false);
    SynthesisSession session = open();
    Later<Integer> sending =
        Later.of(
            () -> {
              for (int count = 0; count < 500; count++) {
                session.sendText("y".repeat(1000), "u1", false);
              }
              return 500;
            });
    sending.awaitBlocked();
    assertFalse(sending.isDone());
    for (int count = 0; count < 500; count++) {
      call.read(1);
      call.request();
    }
    assertEquals(500, sending.get());
    session.abort();
  }

  @Test
  void interruptedWaitLosesNothing() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    Later<Boolean> waiting =
        Later.of(
            () -> {
              assertThrows(CancellationException.class, utterance::await);
              return Thread.interrupted();
            });
    waiting.awaitBlocked();
    waiting.thread.interrupt();
    assertTrue(waiting.get());
    Later<Boolean> reading =
        Later.of(
            () -> {
              try (InputStream audio = utterance.audioStream()) {
                assertThrows(InterruptedIOException.class, audio::read);
              }
              return Thread.interrupted();
            });
    reading.awaitBlocked();
    reading.thread.interrupt();
    assertTrue(reading.get());
    call.audio("u1", "all");
    call.completed("u1");
    assertArrayEquals("all".getBytes(StandardCharsets.UTF_8), utterance.read());
    session.abort();
  }

  @Test
  void abortEndsTheSessionAtTheGatewayToo() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    Later<UtteranceOutcome> waiting = Later.of(utterance::await);
    waiting.awaitBlocked();
    Later<Void> aborting = Later.run(session::abort);
    assertTrue(call.request().getEndSession().getDiscard());
    call.awaitOver();
    aborting.get();
    waiting.thrown(SessionClosedException.class);
    session.abort();
    session.close();
    assertEquals(0, client.openStreams());
  }

  @Test
  void forgottenSessionIsEnded() throws InterruptedException {
    openAndForget();
    boolean ended = false;
    for (int round = 0; round < 200 && !ended; round++) {
      System.gc();
      SynthesizeStreamRequest request =
          call.requests.poll(100, java.util.concurrent.TimeUnit.MILLISECONDS);
      ended = request != null && request.getEndSession().getDiscard();
    }
    assertTrue(ended);
    call.end(Status.OK);
  }

  private void openAndForget() {
    SynthesisSession session = open();
    session.say("Nobody hears this.", "u1");
    call.request();
  }

  @Test
  void clientThatIsClosedEndsItsSessions() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    Later<UtteranceOutcome> waiting = Later.of(utterance::await);
    waiting.awaitBlocked();
    client.close();
    client.close();
    waiting.thrown(SessionClosedException.class);
    session.close();
    assertThrows(
        SessionClosedException.class, () -> client.synthesize(SynthesisSettings.getDefaultInstance()));
  }

  @Test
  void subscriberGetsWhatItAsksForAndThenTheEnd() {
    SynthesisSession session = open();
    Collector<SynthesisEvent> collector = new Collector<>();
    session.publisher().subscribe(collector);
    Flow.Subscription subscription = FakeGateway.next(collector.subscriptions, "the subscription");
    subscription.request(1);
    assertEquals(SessionEvent.Kind.SESSION_STARTED, FakeGateway.next(collector.items, "an event").kind());
    session.say("Hello.", "u1");
    call.request();
    call.audio("u1", "a");
    call.audio("u1", "b");
    call.completed("u1");
    subscription.request(1);
    assertEquals("a", FakeGateway.next(collector.items, "audio").audio().getAudio().toStringUtf8());
    Later<Void> closing = Later.run(session::close);
    assertTrue(call.request().hasEndSession());
    call.endSession();
    closing.get();
    assertTrue(collector.items.isEmpty());
    subscription.request(Long.MAX_VALUE);
    assertEquals("b", FakeGateway.next(collector.items, "audio").audio().getAudio().toStringUtf8());
    FakeGateway.next(collector.items, "the completion");
    assertEquals(SessionEvent.Kind.SESSION_ENDED, FakeGateway.next(collector.items, "the end").kind());
    FakeGateway.Call.await(collector.completed, "the completion of the publisher");
  }

  @Test
  void subscriberHearsOfTheFailureAndOfAWrongDemand() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    Collector<byte[]> collector = new Collector<>();
    utterance.audioPublisher().subscribe(collector);
    FakeGateway.next(collector.subscriptions, "the subscription").request(10);
    call.failSession(FakeGateway.status(Status.Code.UNAVAILABLE, "UPSTREAM_STALLED", "silent"));
    assertInstanceOf(UpstreamException.class, FakeGateway.next(collector.errors, "the failure"));
    Collector<SynthesisEvent> wrong = new Collector<>();
    session.publisher().subscribe(wrong);
    FakeGateway.next(wrong.subscriptions, "the subscription").request(0);
    assertInstanceOf(IllegalArgumentException.class, FakeGateway.next(wrong.errors, "the failure"));
    session.abort();
  }

  /** A subscriber that keeps what it gets. */
  static final class Collector<T> implements Flow.Subscriber<T> {
    final BlockingQueue<Flow.Subscription> subscriptions = new LinkedBlockingQueue<>();
    final BlockingQueue<T> items = new LinkedBlockingQueue<>();
    final BlockingQueue<Throwable> errors = new LinkedBlockingQueue<>();
    final CountDownLatch completed = new CountDownLatch(1);

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      subscriptions.add(subscription);
    }

    @Override
    public void onNext(T item) {
      items.add(item);
    }

    @Override
    public void onError(Throwable thrown) {
      errors.add(thrown);
    }

    @Override
    public void onComplete() {
      completed.countDown();
    }
  }

  @Test
  void spanOfTheCallerGoesAlong() {
    Span span =
        Span.wrap(
            SpanContext.create(
                "0af7651916cd43dd8448eb211c80319c",
                "b7ad6b7169203331",
                TraceFlags.getSampled(),
                TraceState.getDefault()));
    Later<SynthesisSession> opening =
        Later.of(
            () -> {
              try (Scope scope = span.makeCurrent()) {
                return client.synthesize(SynthesisSettings.newBuilder().setVoiceId("magnus").build());
              }
            });
    call = gateway.synthesisCall();
    assertEquals(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        call.headers.get(GatewayChannel.key("traceparent")));
    call.started("s-1");
    // It goes along with the calls that the client makes later on, too.
    call.end(Status.UNAVAILABLE);
    SynthesisSession session = opening.get();
    call = gateway.synthesisCall();
    assertTrue(call.headers.get(GatewayChannel.key("traceparent")).contains("b7ad6b7169203331"));
    session.abort();
  }

  @Test
  void sessionsHaveNoThreadsOfTheirOwn() {
    List<SynthesisSession> sessions = new ArrayList<>();
    for (int count = 0; count < 20; count++) {
      sessions.add(open());
    }
    long threads =
        Thread.getAllStackTraces().keySet().stream()
            .filter(thread -> thread.getName().startsWith("wavegate-worker"))
            .count();
    assertTrue(threads < 5, threads + " threads");
    assertEquals(20, client.openStreams());
    sessions.forEach(session -> Later.run(session::abort));
  }

  @Test
  void answerThatCannotBeReadDoesNotHang() {
    SynthesisSession session = open();
    Utterance utterance = session.say("Hello.", "u1");
    call.say(
        SessionStarted.newBuilder()
            .setLimits(
                wavegate.speech.v1.SessionLimits.newBuilder()
                    .setResumeWindow(
                        com.google.protobuf.Duration.newBuilder().setSeconds(Long.MAX_VALUE).setNanos(2_000_000_000)))
            .build());
    assertEquals(
        Status.Code.INTERNAL, assertThrows(WavegateException.class, utterance::await).code());
    session.abort();
  }
}
