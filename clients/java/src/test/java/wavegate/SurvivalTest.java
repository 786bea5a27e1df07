package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import wavegate.speech.v1.GetSessionResponse;
import wavegate.speech.v1.GetTraceResponse;
import wavegate.speech.v1.RecognizeResponse;
import wavegate.speech.v1.Session;
import wavegate.speech.v1.SessionEnded;
import wavegate.speech.v1.SpeechStarted;
import wavegate.speech.v1.SynthesizeResponse;
import wavegate.speech.v1.SynthesizeStreamRequest;
import wavegate.speech.v1.SynthesizeStreamResponse;
import wavegate.speech.v1.TranscribeStreamRequest;
import wavegate.speech.v1.TranscribeStreamResponse;
import wavegate.speech.v1.TraceSpan;
import wavegate.speech.v1.Transcript;
import wavegate.speech.v1.TranscriptionSettings;
import wavegate.speech.v1.UtteranceCompleted;
import wavegate.speech.v1.UtteranceFailed;

/** Sessions that lose their call, or whose gateway shuts down. */
@Timeout(60)
class SurvivalTest {
  private static final SynthesisOptions MAGNUS = SynthesisOptions.builder().voice("magnus").build();

  private static final Metadata.Key<String> ROUTE = GatewayChannel.key("wavegate-route");

  private final FakeGateway gateway = new FakeGateway();
  private final FakeGateway other = new FakeGateway();
  private final Client client = Client.builder().targets(gateway.target(), other.target()).build();
  private FakeGateway.Call<SynthesizeStreamRequest, SynthesizeStreamResponse> call;
  private FakeGateway.Call<TranscribeStreamRequest, TranscribeStreamResponse> hearing;

  @AfterEach
  void close() {
    client.close();
    gateway.close();
    other.close();
  }

  private SynthesisSession open(SynthesisOptions options) {
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(options));
    call = gateway.synthesisCall();
    call.request();
    call.started("s-1");
    return opening.get();
  }

  private TranscriptionSession listen(TranscriptionOptions options) {
    Later<TranscriptionSession> opening = Later.of(() -> client.transcribe(options));
    hearing = gateway.transcriptionCall();
    hearing.request();
    hearing.started("t-1");
    return opening.get();
  }

  private static SessionEvent await(Iterator<? extends SessionEvent> events, SessionEvent.Kind kind) {
    while (events.hasNext()) {
      SessionEvent event = events.next();
      if (event.kind() == kind) {
        return event;
      }
    }
    throw new AssertionError("no " + kind);
  }

  private static List<String> audio(Iterable<SynthesisEvent> events) {
    List<String> heard = new ArrayList<>();
    for (SynthesisEvent event : events) {
      if (event.kind() == SessionEvent.Kind.AUDIO) {
        heard.add(event.audio().getAudio().toStringUtf8());
      } else if (event.kind() == SessionEvent.Kind.UTTERANCE_COMPLETED) {
        return heard;
      }
    }
    return heard;
  }

  // --- resume -------------------------------------------------------------------------------------

  @Test
  void lostCallIsResumedAndNothingIsLostOrComesTwice() {
    SynthesisSession session = open(MAGNUS);
    session.say("Hello.", "u1");
    call.request();
    call.acknowledge(1);
    call.utteranceStarted("u1");
    call.audio("u1", "a");
    call.audio("u1", "b");
    Iterator<SynthesisEvent> events = session.events().iterator();
    await(events, SessionEvent.Kind.AUDIO);
    await(events, SessionEvent.Kind.AUDIO);
    call.end(Status.UNAVAILABLE.withDescription("gone"));

    call = gateway.synthesisCall();
    SynthesizeStreamRequest again = call.request();
    assertEquals(1, again.getInputSequence());
    assertEquals("s-1", again.getStart().getResumeSessionId());
    assertEquals(4, again.getStart().getLastReceivedSequence());
    assertFalse(again.getStart().hasSettings());
    call.resumed("s-1", 4, 1);
    // What the gateway had not kept is sent again under its old number.
    SynthesizeStreamRequest text = call.request();
    assertEquals(2, text.getInputSequence());
    assertEquals("Hello.", text.getText().getText());
    // Whatever comes under an old number has come before.
    call.from(2);
    call.audio("u1", "a");
    call.audio("u1", "b");
    call.audio("u1", "c");
    call.completed("u1");
    SessionResumed resumed = await(events, SessionEvent.Kind.SESSION_RESUMED).sessionResumed();
    assertEquals("s-1", resumed.sessionId());
    assertEquals(1, resumed.attempts());
    assertEquals(WavegateException.Kind.CONNECTION_LOST, resumed.cause().kind());
    assertEquals(List.of("c"), audio(session.events()));
    session.abort();
  }

  @Test
  void acknowledgedInputIsNotSentAgain() {
    SynthesisSession session = open(MAGNUS);
    session.say("One.", "u1");
    session.say("Two.", "u2");
    call.request();
    call.request();
    call.acknowledge(2);
    call.utteranceStarted("u1");
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    call.request();
    call.resumed("s-1", 2, 2);
    SynthesizeStreamRequest text = call.request();
    assertEquals(3, text.getInputSequence());
    assertEquals("Two.", text.getText().getText());
    session.abort();
  }

  @Test
  void inputIsTakenWhileThereIsNoCallAndTheSecondTryTakesIt() {
    SynthesisSession session = open(MAGNUS);
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    call.request();
    session.say("Meanwhile.", "u1");
    call.end(Status.UNAVAILABLE); // once more
    call = gateway.synthesisCall();
    assertEquals("s-1", call.request().getStart().getResumeSessionId());
    call.resumed("s-1", 1, 1);
    assertEquals("Meanwhile.", call.request().getText().getText());
    SessionResumed resumed =
        await(session.events().iterator(), SessionEvent.Kind.SESSION_RESUMED).sessionResumed();
    assertEquals(2, resumed.attempts());
    session.abort();
  }

  @ParameterizedTest
  @EnumSource(names = {"UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"})
  void whateverProxiesMakeOfALostCallIsResumed(Status.Code code) {
    SynthesisSession session = open(MAGNUS);
    call.end(code.toStatus().withDescription("RST_STREAM closed stream"));
    call = gateway.synthesisCall();
    assertEquals("s-1", call.request().getStart().getResumeSessionId());
    call.resumed("s-1", 1, 1);
    await(session.events().iterator(), SessionEvent.Kind.SESSION_RESUMED);
    session.abort();
  }

  @Test
  void callThatEndsWellWithoutALastWordIsLost() {
    SynthesisSession session = open(MAGNUS);
    call.end(Status.OK);
    call = gateway.synthesisCall();
    call.request();
    call.resumed("s-1", 1, 1);
    await(session.events().iterator(), SessionEvent.Kind.SESSION_RESUMED);
    session.abort();
  }

  @Test
  void sessionThatIsNotThereAnyMoreIsLostAndSaysWhat() {
    SynthesisSession session = open(MAGNUS);
    Utterance utterance = session.say("Hello.", "u1");
    call.request();
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    call.request();
    call.end(
        Status.NOT_FOUND,
        FakeGateway.trailers(FakeGateway.status(Status.Code.NOT_FOUND, "SESSION_NOT_FOUND", "unknown")));
    ConnectionLostException lost = assertThrows(ConnectionLostException.class, utterance::await);
    assertEquals("SESSION_NOT_FOUND", lost.reason());
    assertTrue(lost.getMessage().contains("lost: utterance u1"), lost.getMessage());
    session.close();
  }

  @Test
  void withoutAWindowALostCallIsTheEnd() {
    SynthesisSession session =
        open(SynthesisOptions.builder().voice("magnus").resumeWindow(Duration.ZERO).build());
    session.abort();
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(MAGNUS));
    call = gateway.synthesisCall();
    call.request();
    call.startedWithoutResume("s-2"); // the gateway grants none
    SynthesisSession second = opening.get();
    call.end(Status.UNAVAILABLE);
    assertThrows(ConnectionLostException.class, () -> second.events().forEach(event -> {}));
    assertFalse(gateway.hasCalls());
    second.close();
  }

  @Test
  void closeWhileResumingEndsTheSessionFromOutside() {
    SynthesisSession session = open(MAGNUS);
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    call.request();
    Later<Void> aborting = Later.run(session::abort);
    assertTrue(call.request().getEndSession().getDiscard());
    aborting.get();
    assertEquals(0, client.openStreams());
  }

  @Test
  void callThatIsLostBeforeTheSessionWasOpenIsResumed() {
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(MAGNUS));
    call = gateway.synthesisCall();
    call.request();
    call.sendHeaders("s-1");
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    assertEquals("s-1", call.request().getStart().getResumeSessionId());
    call.resumed("s-1", 0, 1); // says little
    call.started("s-1");
    SynthesisSession session = opening.get();
    assertEquals("s-1", session.sessionId());
    session.abort();
  }

  @Test
  void callsThatFollowALostOneAreLedToTheSameGateway() {
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(MAGNUS));
    call = gateway.synthesisCall();
    call.request();
    assertNull(call.headers.get(ROUTE));
    call.sendHeaders("s-1", "gateway-1");
    call.started("s-1");
    SynthesisSession session = opening.get();
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    assertEquals("gateway-1", call.headers.get(ROUTE));
    call.request();
    call.resumed("s-1", 1, 1); // and says nothing about its route, which holds on
    Iterator<SynthesisEvent> events = session.events().iterator();
    await(events, SessionEvent.Kind.SESSION_RESUMED);
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    assertEquals("gateway-1", call.headers.get(ROUTE));
    call.request();
    call.sendHeaders("s-1", "gateway-one");
    call.resumed("s-1", 1, 1);
    await(events, SessionEvent.Kind.SESSION_RESUMED);
    call.end(Status.UNAVAILABLE);
    call = gateway.synthesisCall();
    assertEquals("gateway-one", call.headers.get(ROUTE));
    session.abort(); // while there is no call to say it on
    assertEquals("gateway-one", FakeGateway.next(gateway.closings, "the end from outside").get(ROUTE));
  }

  @Test
  void callThatIsLostBeforeTheSessionWasOpenIsFollowedToTheSameGateway() {
    Later<TranscriptionSession> opening =
        Later.of(() -> client.transcribe(TranscriptionOptions.builder().build()));
    hearing = gateway.transcriptionCall();
    hearing.request();
    hearing.sendHeaders("t-1", "gateway-1");
    hearing.end(Status.UNAVAILABLE);
    hearing = gateway.transcriptionCall();
    assertEquals("gateway-1", hearing.headers.get(ROUTE));
    hearing.request();
    hearing.started("t-1");
    opening.get().abort();
  }

  // --- moving -------------------------------------------------------------------------------------

  @Test
  void synthesisMovesBetweenTwoUtterances() {
    SynthesisSession session = open(MAGNUS);
    Utterance heard = session.say("One.", "u1");
    final Utterance pending = session.say("Two.", "u2");
    call.request();
    call.request();
    call.utteranceStarted("u1");
    call.audio("u1", "a");
    call.goAway(10);
    var elsewhere = other.synthesisCall();
    assertEquals("magnus", elsewhere.request().getStart().getSettings().getVoiceId());
    elsewhere.started("s-2");
    // The one that is being heard is finished where it is.
    call.audio("u1", "b");
    call.completed("u1");
    assertEquals("ab", new String(heard.read(), java.nio.charset.StandardCharsets.UTF_8));
    SynthesizeStreamRequest again = elsewhere.request();
    assertEquals("Two.", again.getText().getText());
    assertEquals(2, again.getInputSequence());
    assertTrue(call.request().getEndSession().getDiscard());
    elsewhere.audio("u2", "c");
    elsewhere.completed("u2");
    SessionMoved moved = await(session.events().iterator(), SessionEvent.Kind.SESSION_MOVED).sessionMoved();
    assertEquals("s-1", moved.previousSessionId());
    assertEquals(other.target(), moved.target());
    assertFalse(pending.await().wasCancelled());
    assertEquals("s-2", session.sessionId());
    assertTrue(session.goAway().isEmpty());
    assertEquals(other.target(), client.target());
    session.abort();
  }

  @Test
  void utteranceThatItsGatewayCannotFinishFailsAndTheSessionGoesOn() {
    SynthesisSession session = open(MAGNUS);
    Utterance cut = session.say("One.", "u1");
    call.request();
    call.audio("u1", "a".repeat(48_000));
    call.say(
        SessionEnded.newBuilder()
            .setReason(SessionEnded.Reason.REASON_DRAIN)
            .setStatus(FakeGateway.status(Status.Code.UNAVAILABLE, "GATEWAY_DRAINING", "shutting down"))
            .build());
    call.end(Status.UNAVAILABLE);
    var elsewhere = other.synthesisCall();
    elsewhere.request();
    elsewhere.started("s-2");
    assertEquals(
        "GATEWAY_DRAINING", assertThrows(GatewayUnavailableException.class, cut::await).reason());
    Iterator<SynthesisEvent> events = session.events().iterator();
    UtteranceFailed failed =
        ((SynthesisEvent) await(events, SessionEvent.Kind.UTTERANCE_FAILED)).utteranceFailed();
    assertTrue(failed.getRetryable());
    assertEquals(1, failed.getAudioSentDuration().getSeconds());
    await(events, SessionEvent.Kind.SESSION_MOVED);
    session.say("Two.", "u2");
    assertEquals("Two.", elsewhere.request().getText().getText());
    session.abort();
  }

  @Test
  void sessionThatMayNotMoveEndsWithItsGateway() {
    SynthesisSession session = open(SynthesisOptions.builder().voice("magnus").move(false).build());
    call.goAway(10);
    call.say(SessionEnded.newBuilder().setReason(SessionEnded.Reason.REASON_DRAIN).build());
    call.end(Status.OK);
    Iterator<SynthesisEvent> events = session.events().iterator();
    await(events, SessionEvent.Kind.GO_AWAY);
    await(events, SessionEvent.Kind.SESSION_ENDED);
    assertFalse(events.hasNext());
    assertFalse(other.hasCalls());
    session.close();
  }

  @Test
  void textForAnUtteranceThatIsOverIsNotSpokenElsewhere() {
    SynthesisSession session = open(MAGNUS);
    session.say("One.", "u1");
    call.request();
    call.audio("u1", "a");
    call.completed("u1");
    call.goAway(10);
    var elsewhere = other.synthesisCall();
    elsewhere.request();
    elsewhere.started("s-2");
    Iterator<SynthesisEvent> events = session.events().iterator();
    await(events, SessionEvent.Kind.SESSION_MOVED);
    session.sendText("late", "u1", false);
    assertEquals("STALE_TEXT", await(events, SessionEvent.Kind.WARNING).warning().getReason());
    session.say("Next.", "u2");
    assertEquals("u2", elsewhere.request().getText().getUtteranceId());
    session.abort();
  }

  @Test
  void transcriptionSendsTheAudioBehindTheLastFinalAgain() {
    TranscriptionSession session = listen(TranscriptionOptions.builder().language("en").build());
    byte[] second = new byte[32_000];
    second[0] = 1;
    session.sendAudio(second);
    second[0] = 2;
    session.sendAudio(second);
    assertEquals(1, hearing.request().getAudio().getContent().byteAt(0));
    assertEquals(2, hearing.request().getAudio().getContent().byteAt(0));
    hearing.transcript("seg-1", "first", true, 1.0, "");
    hearing.transcript("seg-2", "sec", false, 1.5, "");
    hearing.say(SpeechStarted.newBuilder().setAudioOffset(Times.toWire(1.0)).build());
    Iterator<TranscriptionEvent> events = session.events().iterator();
    await(events, SessionEvent.Kind.SPEECH_STARTED);
    hearing.goAway(10);
    var elsewhere = other.transcriptionCall();
    TranscribeStreamRequest start = elsewhere.request();
    assertEquals(1, start.getStart().getInitialAudioOffset().getSeconds());
    assertEquals("en", start.getStart().getSettings().getLanguageCode());
    elsewhere.started("t-2");
    ByteString again = elsewhere.request().getAudio().getContent();
    assertEquals(2, again.byteAt(0));
    assertEquals(32_000, again.size());
    SessionMoved moved = await(events, SessionEvent.Kind.SESSION_MOVED).sessionMoved();
    assertEquals(Duration.ZERO, moved.lostAudio());
    // What is heard again is not told again, and the open segment goes on under its name.
    elsewhere.say(SpeechStarted.newBuilder().setAudioOffset(Times.toWire(1.0)).build());
    elsewhere.transcript("seg-1", "second", true, 2.0, "");
    Transcript last = ((TranscriptionEvent) await(events, SessionEvent.Kind.TRANSCRIPT)).transcript();
    assertEquals("second", last.getText());
    assertEquals("seg-2", last.getSegmentId());
    assertEquals(2, last.getSegmentRevision());
    elsewhere.transcript("seg-2", "new", true, 2.5, "");
    Transcript fresh = ((TranscriptionEvent) await(events, SessionEvent.Kind.TRANSCRIPT)).transcript();
    assertEquals("seg-2.1", fresh.getSegmentId());
    session.abort();
  }

  @Test
  void lostTranscriptionIsResumed() {
    TranscriptionSession session = listen(TranscriptionOptions.builder().build());
    session.sendAudio(new byte[100]);
    hearing.request();
    Later<Transcript> turn = Later.of(() -> session.finalizeTurn("f1"));
    assertEquals("f1", hearing.request().getFinalize().getFinalizeId());
    hearing.end(Status.UNAVAILABLE);
    hearing = gateway.transcriptionCall();
    hearing.request();
    hearing.resumed("t-1", 1, 2);
    assertEquals("f1", hearing.request().getFinalize().getFinalizeId());
    hearing.transcript("seg-1", "hello", true, 0.1, "f1");
    assertEquals("hello", turn.get().getText());
    session.abort();
  }

  @Test
  void anotherSessionIsNotLedToTheGatewayThatIsLeft() {
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(MAGNUS));
    call = gateway.synthesisCall();
    call.request();
    call.sendHeaders("s-1", "gateway-1");
    call.started("s-1");
    SynthesisSession session = opening.get();
    call.goAway(10);
    assertNull(other.synthesisCall().headers.get(ROUTE));
    session.abort();
  }

  // --- shutting down ------------------------------------------------------------------------------

  @Test
  void sessionOpensAsSoonAsItsAddressLeadsElsewhere() {
    try (Client balanced = Client.connect(gateway.target())) {
      Later<SynthesisSession> opening = Later.of(() -> balanced.synthesize(MAGNUS));
      for (int refused = 0; refused < 4; refused++) { // a connection and a fresh one, twice
        gateway.synthesisCall().refuse();
      }
      call = gateway.synthesisCall();
      call.request();
      call.started("s-1");
      opening.get().abort();
    }
  }

  @Test
  void sessionIsRefusedWhereEveryGatewayGoesOnShuttingDown() {
    try (Client balanced = Client.connect(gateway.target())) {
      Later<SynthesisSession> opening = Later.of(() -> balanced.synthesize(MAGNUS));
      for (int refused = 0; refused < 8; refused++) {
        gateway.synthesisCall().refuse();
      }
      assertEquals("GATEWAY_DRAINING", opening.thrown(GatewayUnavailableException.class).reason());
      assertFalse(gateway.hasCalls());
      assertEquals(0, balanced.openStreams());
    }
  }

  @Test
  void callsThatAreNoSessionAreFinishedWhereTheyAre() {
    // Every kind of them by itself, so that none keeps the connection for another.
    finishedWhereItIs(
        () -> client.getSession("s-1").getSessionId(),
        GetSessionResponse.newBuilder().setSession(Session.newBuilder().setSessionId("s-1")).build(),
        "s-1");
    finishedWhereItIs(
        () -> client.getTraceOfSession("s-1").get(0).getName(),
        GetTraceResponse.newBuilder().addSpans(TraceSpan.newBuilder().setName("x")).build(),
        "x");
    finishedWhereItIs(
        () -> client.transcribeOnce(new byte[10], TranscriptionSettings.getDefaultInstance()).getText(),
        RecognizeResponse.newBuilder().setText("hello").build(),
        "hello");
    SynthesizeResponse completed =
        SynthesizeResponse.newBuilder()
            .setUtteranceCompleted(UtteranceCompleted.newBuilder().setUtteranceId("r1"))
            .build();
    finishedWhereItIs(
        () -> {
          try (SpeechStream stream = client.streamOnce("Hi.", MAGNUS)) {
            return stream.events().iterator().next().getUtteranceCompleted().getUtteranceId();
          }
        },
        completed,
        "r1");
  }

  /** Makes a call, which is answered when the client has left that gateway for its sessions. */
  private void finishedWhereItIs(Callable<String> ask, Object answer, String expected) {
    FakeGateway first = client.target().equals(gateway.target()) ? gateway : other;
    FakeGateway second = first == gateway ? other : gateway;
    Later<String> asking = Later.of(ask);
    FakeGateway.Call<Object, Object> asked = first.otherCall();
    asked.request();
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(MAGNUS));
    first.synthesisCall().refuse();
    call = second.synthesisCall();
    call.request();
    call.started("s-2");
    opening.get().abort();
    assertEquals(second.target(), client.target());
    asked.send(answer);
    asked.end(Status.OK);
    assertEquals(expected, asking.get());
  }

  @Test
  void sessionsThatOpenAtTheSameTimeDoNotTakeEachOthersConnections() {
    Later<SynthesisSession> slow = Later.of(() -> client.synthesize(MAGNUS));
    final var waiting = gateway.synthesisCall();
    // Meanwhile another one is refused by both, and has both connections replaced.
    Later<SynthesisSession> quick = Later.of(() -> client.synthesize(MAGNUS));
    gateway.synthesisCall().refuse();
    other.synthesisCall().refuse();
    call = gateway.synthesisCall();
    call.request();
    call.started("s-1");
    quick.get().abort();
    // The first one still knows the second target by the connection that is gone.
    waiting.refuse();
    var elsewhere = other.synthesisCall();
    elsewhere.request();
    elsewhere.started("s-2");
    assertEquals("s-2", slow.get().sessionId());
    client.close(); // that connection, too
    elsewhere.awaitOver();
  }

  // --- targets ------------------------------------------------------------------------------------

  @Test
  void sessionOpensOnTheFirstTargetThatTakesIt() {
    Later<SynthesisSession> opening = Later.of(() -> client.synthesize(MAGNUS));
    call = gateway.synthesisCall();
    call.request();
    call.end(Status.UNAVAILABLE);
    var elsewhere = other.synthesisCall();
    elsewhere.request();
    elsewhere.started("s-2");
    assertEquals("s-2", opening.get().sessionId());
    assertEquals(other.target(), client.target());
  }

  @Test
  void gatewayThatComesBackIsReachedAtOnce() throws InterruptedException {
    // A port that nobody listens on, and then somebody does.
    FakeGateway first = new FakeGateway();
    String target = first.target();
    first.close();
    try (Client lonely = Client.connect(target)) {
      assertThrows(GatewayUnavailableException.class, () -> lonely.synthesize(MAGNUS));
      assertThrows(GatewayUnavailableException.class, () -> lonely.getSession("s-1"));
      CountDownLatch none = new CountDownLatch(1);
      assertFalse(none.await(150, java.util.concurrent.TimeUnit.MILLISECONDS)); // the least time between tries
      try (FakeGateway back = new FakeGateway(Integer.parseInt(target.substring(target.indexOf(':') + 1)))) {
        Later<SynthesisSession> opening = Later.of(() -> lonely.synthesize(MAGNUS));
        call = back.synthesisCall();
        call.request();
        call.started("s-1");
        opening.get().abort();
      }
    }
  }
}
