package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import wavegate.speech.v1.AudioChunk;
import wavegate.speech.v1.GetSessionRequest;
import wavegate.speech.v1.GetSessionResponse;
import wavegate.speech.v1.GetTraceRequest;
import wavegate.speech.v1.GetTraceResponse;
import wavegate.speech.v1.ListSessionsRequest;
import wavegate.speech.v1.ListSessionsResponse;
import wavegate.speech.v1.ListVoicesRequest;
import wavegate.speech.v1.ListVoicesResponse;
import wavegate.speech.v1.RecognizeRequest;
import wavegate.speech.v1.RecognizeResponse;
import wavegate.speech.v1.Session;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.SynthesizeRequest;
import wavegate.speech.v1.SynthesizeResponse;
import wavegate.speech.v1.TraceSpan;
import wavegate.speech.v1.TranscriptionSettings;
import wavegate.speech.v1.UpdateSettingsRequest;
import wavegate.speech.v1.UpdateSettingsResponse;
import wavegate.speech.v1.UtteranceCompleted;
import wavegate.speech.v1.Voice;

@Timeout(60)
class ClientTest {
  private final FakeGateway gateway = new FakeGateway();
  private final Client client =
      Client.builder().target(gateway.target()).token("secret").metadata("x-team", "a").build();

  @AfterEach
  void close() {
    client.close();
    gateway.close();
  }

  private static SynthesizeResponse audio(String content) {
    return SynthesizeResponse.newBuilder()
        .setAudio(AudioChunk.newBuilder().setAudio(ByteString.copyFromUtf8(content)))
        .build();
  }

  @Test
  void wholeTextIsSpokenOnce() {
    Later<Speech> speaking =
        Later.of(() -> client.synthesizeOnce("Hi.", SynthesisOptions.builder().voice("v").build(), "r1"));
    FakeGateway.Call<SynthesizeRequest, SynthesizeResponse> call = gateway.otherCall();
    SynthesizeRequest request = call.request();
    assertEquals("Hi.", request.getText());
    assertEquals("r1", request.getRequestId());
    assertEquals("Bearer secret", call.headers.get(GatewayChannel.key("authorization")));
    assertEquals("a", call.headers.get(GatewayChannel.key("x-team")));
    assertTrue(call.headers.get(GatewayChannel.key("user-agent")).startsWith("wavegate-java/"));
    call.send(
        SynthesizeResponse.newBuilder()
            .setSessionStarted(FakeGateway.sessionStarted("s-1", true, 0))
            .build());
    call.send(audio("a"));
    call.send(SynthesizeResponse.getDefaultInstance()); // of a newer gateway
    call.send(audio("b"));
    call.send(
        SynthesizeResponse.newBuilder()
            .setUtteranceCompleted(UtteranceCompleted.newBuilder().setUtteranceId("r1"))
            .build());
    call.end(Status.OK);
    Speech speech = speaking.get();
    assertEquals("ab", new String(speech.audio(), StandardCharsets.UTF_8));
    assertEquals("r1", speech.completed().getUtteranceId());
    assertEquals(24_000, speech.started().getAudioFormat().getSampleRateHertz());
  }

  @Test
  void speechThatIsCutIsNoSpeech() {
    Later<Speech> speaking =
        Later.of(() -> client.synthesizeOnce("Hi.", SynthesisOptions.builder().build()));
    FakeGateway.Call<SynthesizeRequest, SynthesizeResponse> call = gateway.otherCall();
    call.send(audio("a"));
    call.end(Status.OK);
    speaking.thrown(ConnectionLostException.class);
  }

  @Test
  void streamThatIsClosedEarlyIsCancelled() throws IOException {
    try (SpeechStream stream = client.streamOnce("Hi.", SynthesisOptions.builder().build())) {
      FakeGateway.Call<SynthesizeRequest, SynthesizeResponse> call = gateway.otherCall();
      call.request();
      call.send(audio("a"));
      try (InputStream audio = stream.audioStream()) {
        assertEquals('a', audio.read());
      }
      stream.close();
      call.awaitOver();
      stream.close();
    }
  }

  @Test
  void recordingIsTranscribed() {
    Later<RecognizeResponse> hearing =
        Later.of(() -> client.transcribeOnce(new byte[10], TranscriptionSettings.getDefaultInstance()));
    FakeGateway.Call<RecognizeRequest, RecognizeResponse> call = gateway.otherCall();
    assertEquals(10, call.request().getContent().size());
    call.send(RecognizeResponse.newBuilder().setText("hello").build());
    call.end(Status.OK);
    assertEquals("hello", hearing.get().getText());
    InvalidRequestException large =
        assertThrows(
            InvalidRequestException.class,
            () ->
                client.transcribeOnce(
                    new byte[Errors.MAX_MESSAGE_BYTES], TranscriptionSettings.getDefaultInstance()));
    assertEquals("content", large.fieldViolations().get(0).field());
    assertFalse(large.retryable());
  }

  @Test
  void callThatTakesTooLongIsADeadline() {
    Later<RecognizeResponse> hearing =
        Later.of(
            () -> client.transcribeOnce(RecognizeRequest.getDefaultInstance(), Duration.ofMillis(100)));
    hearing.thrown(DeadlineException.class);
  }

  @Test
  void interruptedCallIsCancelled() {
    Later<Boolean> asking =
        Later.of(
            () -> {
              assertThrows(CancellationException.class, () -> client.getSession("s-1"));
              return Thread.interrupted();
            });
    FakeGateway.Call<GetSessionRequest, GetSessionResponse> call = gateway.otherCall();
    asking.thread.interrupt();
    assertTrue(asking.get());
    call.awaitOver();
  }

  @Test
  void callOfAClientThatIsClosedMeanwhileSaysSo() {
    Later<Session> asking = Later.of(() -> client.getSession("s-1"));
    FakeGateway.Call<GetSessionRequest, GetSessionResponse> call = gateway.otherCall();
    call.request();
    client.close();
    assertTrue(asking.thrown(SessionClosedException.class).getMessage().contains("the client was closed"));
  }

  @Test
  void pagesFollowEachOther() {
    Later<List<String>> listing =
        Later.of(() -> client.listVoices("m", "en").map(Voice::getVoiceId).toList());
    FakeGateway.Call<ListVoicesRequest, ListVoicesResponse> first = gateway.otherCall();
    assertEquals("m", first.request().getModel());
    first.send(
        ListVoicesResponse.newBuilder()
            .addVoices(Voice.newBuilder().setVoiceId("a"))
            .setNextPageToken("2")
            .build());
    first.end(Status.OK);
    FakeGateway.Call<ListVoicesRequest, ListVoicesResponse> second = gateway.otherCall();
    assertEquals("2", second.request().getPageToken());
    second.send(ListVoicesResponse.newBuilder().addVoices(Voice.newBuilder().setVoiceId("b")).build());
    second.end(Status.OK);
    assertEquals(List.of("a", "b"), listing.get());
  }

  @Test
  void sessionsAndTracesAreLookedUp() {
    Later<Long> listing = Later.of(() -> client.listSessions(Map.of("team", "a")).count());
    FakeGateway.Call<ListSessionsRequest, ListSessionsResponse> list = gateway.otherCall();
    assertEquals("a", list.request().getLabelsOrThrow("team"));
    list.send(ListSessionsResponse.newBuilder().addSessions(Session.getDefaultInstance()).build());
    list.end(Status.OK);
    assertEquals(1, listing.get());

    Later<List<TraceSpan>> tracing = Later.of(() -> client.getTraceOfSession("s-1"));
    FakeGateway.Call<GetTraceRequest, GetTraceResponse> trace = gateway.otherCall();
    assertEquals("s-1", trace.request().getSessionId());
    trace.send(GetTraceResponse.newBuilder().addSpans(TraceSpan.newBuilder().setName("x")).build());
    trace.send(GetTraceResponse.newBuilder().addSpans(TraceSpan.newBuilder().setName("y")).build());
    trace.end(Status.OK);
    assertEquals(2, tracing.get().size());

    Later<List<TraceSpan>> missing = Later.of(() -> client.getTrace("0".repeat(32)));
    FakeGateway.Call<GetTraceRequest, GetTraceResponse> none = gateway.otherCall();
    none.end(
        Status.NOT_FOUND,
        FakeGateway.trailers(FakeGateway.status(Status.Code.NOT_FOUND, "TRACE_NOT_FOUND", "none")));
    assertEquals("TRACE_NOT_FOUND", missing.thrown(SessionNotFoundException.class).reason());
    client.closeSession("s-1", true);
  }

  @Test
  void settingsOfOtherSessionsAreChanged() {
    SettingsStream control = client.settingsStream();
    FakeGateway.Call<UpdateSettingsRequest, UpdateSettingsResponse> call = gateway.otherCall();
    Later<SettingsAck> changing =
        Later.of(
            () ->
                control.updateSynthesis(
                    "s-1",
                    SynthesisSettings.newBuilder().setSpeed(2).build(),
                    UpdateOptions.builder().watch(true).afterInputSequence(3).expectedRevision(1).build()));
    UpdateSettingsRequest request = call.request();
    assertTrue(request.getWatch());
    assertEquals(3, request.getAfterInputSequence());
    call.send(
        UpdateSettingsResponse.newBuilder()
            .setSessionId("s-1")
            .setAck(
                SettingsAck.newBuilder()
                    .setUpdateId(request.getUpdateId())
                    .setState(SettingsAck.State.STATE_APPLIED))
            .build());
    assertEquals(SettingsAck.State.STATE_APPLIED, changing.get().getState());
    assertEquals("s-1", control.changes().iterator().next().sessionId());
    Later<Void> closing = Later.run(control::close);
    call.awaitHalfClosed();
    call.end(Status.OK);
    closing.get();
    control.close();
    assertThrows(
        SessionClosedException.class,
        () -> control.updateTranscription("t-1", TranscriptionSettings.getDefaultInstance()));
  }

  @Test
  void messageThatIsTooLargeIsNoLimitThatPasses() {
    Later<Session> asking = Later.of(() -> client.getSession("s-1"));
    FakeGateway.Call<GetSessionRequest, GetSessionResponse> call = gateway.otherCall();
    call.end(Status.RESOURCE_EXHAUSTED.withDescription("SERVER: Received message larger than max (9 vs. 4)"));
    InvalidRequestException large = asking.thrown(InvalidRequestException.class);
    assertTrue(large.getMessage().contains("at most 4 bytes"), large.getMessage());
  }

  @Test
  void callsAreSpreadOverTheAddressesOfAName() {
    String port = gateway.target().substring(gateway.target().indexOf(':') + 1);
    try (Client spread = Client.builder().target("dns:///localhost:" + port).roundRobin().build()) {
      Later<Session> asking = Later.of(() -> spread.getSession("s-1"));
      FakeGateway.Call<GetSessionRequest, GetSessionResponse> call = gateway.otherCall();
      call.send(GetSessionResponse.newBuilder().setSession(Session.newBuilder().setSessionId("s-1")).build());
      call.end(Status.OK);
      assertEquals("s-1", asking.get().getSessionId());
    }
  }

  // --- wrong places -------------------------------------------------------------------------------

  private static String failure(Client wrong) {
    try (wrong) {
      return assertThrows(GatewayUnavailableException.class, () -> wrong.getSession("s")).getMessage();
    }
  }

  @Test
  void tlsAgainstPlainTextIsSaid() {
    String message = failure(Client.builder().target(gateway.target()).tls().build());
    assertTrue(message.contains("does not speak TLS; connect without tls()"), message);
  }

  @Test
  void otherProtocolsAreSaid() throws IOException {
    try (ServerSocket http = new ServerSocket(0, 5, InetAddress.getLoopbackAddress())) {
      Later<Void> serving =
          Later.run(
              () -> {
                try (Socket taken = http.accept()) {
                  OutputStream out = taken.getOutputStream();
                  out.write(
                      "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
                          .getBytes(StandardCharsets.US_ASCII));
                  out.flush();
                  taken.getInputStream().readAllBytes();
                } catch (IOException e) {
                  return; // the client has hung up
                }
              });
      String message = failure(Client.connect("127.0.0.1:" + http.getLocalPort()));
      assertTrue(message.contains("HTTP/1"), message);
      serving.get();
    }
    try (ServerSocket rude = new ServerSocket(0, 5, InetAddress.getLoopbackAddress())) {
      Later<Void> serving =
          Later.run(
              () -> {
                try (Socket taken = rude.accept()) {
                  taken.getInputStream().read();
                } catch (IOException e) {
                  return;
                }
              });
      String message = failure(Client.connect("127.0.0.1:" + rude.getLocalPort()));
      assertTrue(message.contains("connect with tls()"), message);
      serving.get();
    }
  }

  @Test
  void nobodyThereIsSaid() throws IOException {
    int port;
    try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = free.getLocalPort();
    }
    String message = failure(Client.connect("127.0.0.1:" + port));
    assertTrue(message.contains("no gateway at 127.0.0.1:" + port), message);
  }

  @Test
  void wrongArgumentsAreRefusedBeforeAnythingIsSent() {
    List<Runnable> wrong = new ArrayList<>();
    wrong.add(() -> Client.connect("gateway"));
    wrong.add(() -> Client.builder().token("a\nb").build());
    wrong.add(() -> Client.builder().token("a\u00e9").build());
    wrong.add(() -> Client.builder().metadata("Upper Case", "x").build());
    wrong.add(() -> Client.builder().metadata("x", "a\r\nb: c").build());
    wrong.add(() -> Client.builder().rootCertificates(new byte[] {1, 2}).build());
    wrong.add(() -> SynthesisOptions.builder().resumeWindow(Duration.ofSeconds(-1)));
    for (Runnable make : wrong) {
      assertThrows(IllegalArgumentException.class, make::run);
    }
    assertFalse(
        assertThrows(IllegalArgumentException.class, () -> Client.builder().token("hush\n").build())
            .getMessage()
            .contains("hush"));
  }
}
