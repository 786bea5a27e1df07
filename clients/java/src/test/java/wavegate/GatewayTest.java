package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.opentelemetry.api.trace.Span;
import io.opentelemetry.context.Scope;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.RecognizeRequest;
import wavegate.speech.v1.Session;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.TraceSpan;
import wavegate.speech.v1.TranscriptionSettings;

/**
 * Against a real gateway with its local upstream, which {@code WAVEGATE_SERVER} names (the path of {@code
 * wavegate-server}).
 */
@Timeout(120)
@EnabledIfEnvironmentVariable(
    named = "WAVEGATE_SERVER",
    matches = ".+",
    disabledReason = "left out: WAVEGATE_SERVER does not name a wavegate-server to test against")
class GatewayTest {
  private static final AudioFormat FORMAT =
      AudioFormat.newBuilder()
          .setEncoding(AudioEncoding.AUDIO_ENCODING_LINEAR16)
          .setSampleRateHertz(16_000)
          .build();
  private static final SynthesisOptions MAGNUS =
      SynthesisOptions.builder().voice("magnus").audioFormat(FORMAT).label("test", "java").build();

  @TempDir static Path folder;
  private static RealGateway gateway;
  private static Client client;

  @BeforeAll
  static void start() throws IOException, InterruptedException {
    gateway = new RealGateway(folder);
    client = Client.connect(gateway.target());
  }

  @AfterAll
  static void stop() {
    client.close();
    gateway.close();
  }

  @Test
  void speaksAndListens() throws IOException {
    byte[] audio;
    try (SynthesisSession session = client.synthesize(MAGNUS)) {
      Utterance utterance = session.say(Stream.of("Please call ", "me tomorrow ", "morning."));
      audio = utterance.audioStream().readAllBytes();
      assertEquals(audio.length, utterance.await().completed().orElseThrow().getMetrics().getAudioBytes());
      assertTrue(audio.length > 16_000);
    }
    try (TranscriptionSession session =
        client.transcribe(TranscriptionOptions.builder().language("en").build())) {
      session.streamAudio(new ByteArrayInputStream(audio));
      String streamed = session.finalizeTurn().getText();
      assertFalse(streamed.isEmpty());
      String once =
          client
              .transcribeOnce(
                  RecognizeRequest.newBuilder()
                      .setContent(com.google.protobuf.ByteString.copyFrom(audio))
                      .setAudioFormat(FORMAT)
                      .setSettings(TranscriptionSettings.newBuilder().setLanguageCode("en"))
                      .build(),
                  null)
              .getText();
      assertFalse(once.isEmpty());
    }
  }

  @Test
  void bargesIn() {
    try (SynthesisSession session = client.synthesize(MAGNUS)) {
      Utterance story = session.say("Once upon a time there was a voice. ".repeat(40));
      for (byte[] piece : story.audio()) {
        assertTrue(piece.length > 0);
        story.cancel(java.time.Duration.ofMillis(50));
      }
      assertTrue(story.await().wasCancelled());
      assertTrue(session.say("Yes?").read().length > 0);
    }
  }

  @Test
  void changesSettingsInBandAndFromOutside() {
    try (SynthesisSession session = client.synthesize(MAGNUS);
        SettingsStream control = client.settingsStream()) {
      SettingsAck ack = session.updateSettings(SynthesisSettings.newBuilder().setSpeed(1.25).build());
      assertEquals(SettingsAck.State.STATE_APPLIED, ack.getState());
      List<Session> live = client.listSessions(Map.of("test", "java")).toList();
      assertTrue(live.stream().anyMatch(found -> found.getSessionId().equals(session.sessionId())));
      control.updateSynthesis(session.sessionId(), SynthesisSettings.newBuilder().setSpeed(1.5).build());
      assertEquals(
          3, client.getSession(session.sessionId()).getSettingsRevision());
      InvalidRequestException refused =
          assertThrows(
              InvalidRequestException.class,
              () -> session.updateSettings(SynthesisSettings.newBuilder().setSpeed(9).build()));
      assertEquals("update_settings.settings.speed", refused.fieldViolations().get(0).field());
      assertThrows(
          SessionNotFoundException.class,
          () -> control.updateSynthesis("nobody", SynthesisSettings.getDefaultInstance()));
    }
  }

  @Test
  void findsVoicesAndTraces() {
    assertTrue(client.listVoices().anyMatch(voice -> voice.getVoiceId().equals("magnus")));
    Speech speech = client.synthesizeOnce("Hello there.", MAGNUS);
    assertTrue(speech.audio().length > 0);
    assertFalse(client.getTrace(speech.started().getTraceId()).isEmpty());
    assertThrows(SessionNotFoundException.class, () -> client.closeSession("nobody", true));
  }

  @Test
  void spanOfTheCallerIsTheParentOfTheGateways() {
    List<SpanData> told = new CopyOnWriteArrayList<>();
    try (SdkTracerProvider tracing =
        SdkTracerProvider.builder()
            .addSpanProcessor(SimpleSpanProcessor.create(new KeepingExporter(told)))
            .build()) {
      Span span = tracing.get("test").spanBuilder("turn").startSpan();
      String traceId = span.getSpanContext().getTraceId();
      try (Scope scope = span.makeCurrent();
          SynthesisSession session = client.synthesize(MAGNUS)) {
        assertEquals(traceId, session.started().getTraceId());
        session.say("Hello there.").read();
      } finally {
        span.end();
      }
      assertEquals(traceId, told.get(0).getTraceId());
      List<TraceSpan> spans = client.getTrace(traceId);
      assertTrue(
          spans.stream()
              .anyMatch(
                  found ->
                      found.getName().endsWith("/SynthesizeStream")
                          && found.getParentSpanId().equals(span.getSpanContext().getSpanId())));
      assertTrue(spans.stream().anyMatch(found -> found.getName().equals("chunk.out")));
    }
  }

  /** Keeps spans where another exporter would send them. */
  private record KeepingExporter(List<SpanData> kept) implements SpanExporter {
    @Override
    public CompletableResultCode export(Collection<SpanData> spans) {
      kept.addAll(spans);
      return CompletableResultCode.ofSuccess();
    }

    @Override
    public CompletableResultCode flush() {
      return CompletableResultCode.ofSuccess();
    }

    @Override
    public CompletableResultCode shutdown() {
      return CompletableResultCode.ofSuccess();
    }
  }

  @Test
  void servesVirtualThreads() throws Exception {
    ExecutorService threads;
    try {
      threads =
          (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
    } catch (NoSuchMethodException e) {
      assumeTrue(false, "left out: this Java has no virtual threads");
      return;
    }
    try (Client own = Client.builder().target(client.target()).executor(threads).build()) {
      List<java.util.concurrent.Future<Integer>> speaking = new ArrayList<>();
      for (int count = 0; count < 20; count++) {
        speaking.add(
            threads.submit(
                () -> {
                  try (SynthesisSession session = own.synthesize(MAGNUS)) {
                    return session.say(List.of("Hello ", "there.")).read().length;
                  }
                }));
      }
      for (var spoken : speaking) {
        assertTrue(spoken.get() > 0);
      }
    } finally {
      threads.shutdown();
    }
  }
}
