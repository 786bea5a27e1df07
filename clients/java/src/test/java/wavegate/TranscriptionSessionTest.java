package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.StartTranscription;
import wavegate.speech.v1.TranscribeStreamRequest;
import wavegate.speech.v1.TranscribeStreamResponse;
import wavegate.speech.v1.Transcript;
import wavegate.speech.v1.TranscriptionSettings;

@Timeout(60)
class TranscriptionSessionTest {
  private final FakeGateway gateway = new FakeGateway();
  private final Client client = Client.connect(gateway.target());
  private FakeGateway.Call<TranscribeStreamRequest, TranscribeStreamResponse> call;
  private StartTranscription start;

  @AfterEach
  void close() {
    client.close();
    gateway.close();
  }

  private TranscriptionSession open(TranscriptionOptions options) {
    Later<TranscriptionSession> opening = Later.of(() -> client.transcribe(options));
    call = gateway.transcriptionCall();
    start = call.request().getStart();
    call.started("t-1");
    return opening.get();
  }

  private TranscriptionSession open() {
    return open(TranscriptionOptions.builder().language("en").build());
  }

  @Test
  void startSaysWhatWasAskedFor() {
    TranscriptionSession session =
        open(
            TranscriptionOptions.builder()
                .audioFormat(
                    AudioFormat.newBuilder()
                        .setEncoding(AudioEncoding.AUDIO_ENCODING_MULAW)
                        .setSampleRateHertz(8000)
                        .build())
                .keepAlive(false)
                .initialAudioOffset(Duration.ofMillis(1500))
                .label("team", "a")
                .clientSessionId("mine")
                .resumeWindow(Duration.ofSeconds(5))
                .build());
    assertEquals(8000, start.getAudioFormat().getSampleRateHertz());
    assertFalse(start.getKeepAlive());
    assertEquals(Duration.ofMillis(1500), Times.toJava(start.getInitialAudioOffset()));
    assertEquals("a", start.getLabelsOrThrow("team"));
    assertEquals("mine", start.getClientSessionId());
    assertEquals(5, start.getResumeWindow().getSeconds());
    session.abort();
  }

  @Test
  void audioIsCutBetweenSamplesIntoWhatTheGatewayTakes() {
    TranscriptionSession session = open();
    session.sendAudio(new byte[100_000]);
    assertEquals(64 * 1024, call.request().getAudio().getContent().size());
    assertEquals(100_000 - 64 * 1024, call.request().getAudio().getContent().size());
    session.sendAudio(new byte[10], 2, 4);
    assertEquals(4, call.request().getAudio().getContent().size());
    session.sendAudio(ByteBuffer.wrap(new byte[6]));
    assertEquals(6, call.request().getAudio().getContent().size());
    session.sendAudio(new byte[0]);
    session.sendAudio(new byte[8], Instant.ofEpochSecond(12));
    assertEquals(12, call.request().getAudio().getCaptureTime().getSeconds());
    session.abort();
  }

  @Test
  void streamsAreSentToTheirEnd() throws IOException {
    TranscriptionSession session = open();
    session.streamAudio(new ByteArrayInputStream(new byte[10_000]));
    assertEquals(8192, call.request().getAudio().getContent().size());
    assertEquals(10_000 - 8192, call.request().getAudio().getContent().size());
    session.streamAudioPaced(new ByteArrayInputStream(new byte[8000]), 100);
    int bytes = 0;
    while (bytes < 8000) {
      int size = call.request().getAudio().getContent().size();
      assertTrue(size <= 3200, size + " bytes at once");
      bytes += size;
    }
    assertThrows(
        IllegalArgumentException.class,
        () -> session.streamAudioPaced(new ByteArrayInputStream(new byte[2]), 0));
    session.abort();
  }

  @Test
  void finalizeWaitsForItsTranscript() {
    TranscriptionSession session = open();
    Later<Transcript> turn = Later.of(() -> session.finalizeTurn("f1"));
    assertEquals("f1", call.request().getFinalize().getFinalizeId());
    assertThrows(IllegalArgumentException.class, () -> session.finalizeTurn("f1"));
    call.transcript("seg-1", "another", true, 0.5, "");
    call.transcript("seg-2", "this", true, 1, "f1");
    assertEquals("this", turn.get().getText());
    session.abort();
  }

  @Test
  void readersTakeWhatTheyWant() {
    TranscriptionSession session = open();
    call.transcript("seg-1", "par", false, 0.5, "");
    call.transcript("seg-1", "partial", true, 0.5, "");
    call.endSession();
    List<String> finals = new ArrayList<>();
    session.finals().forEach(transcript -> finals.add(transcript.getText()));
    assertEquals(List.of("partial"), finals);
    session.close();
  }

  @Test
  void settingsAreChanged() {
    TranscriptionSession session = open();
    Later<SettingsAck> changing =
        Later.of(
            () -> session.updateSettings(TranscriptionSettings.newBuilder().setLanguageCode("hi").build()));
    String id = call.request().getUpdateSettings().getUpdateId();
    call.say(
        SettingsAck.newBuilder()
            .setUpdateId(id)
            .setState(SettingsAck.State.STATE_APPLIED)
            .setSettingsRevision(2)
            .setSettings(
                wavegate.speech.v1.EffectiveSettings.newBuilder()
                    .setTranscription(TranscriptionSettings.newBuilder().setLanguageCode("hi")))
            .build());
    changing.get();
    assertEquals("hi", session.settings().getLanguageCode());
    assertEquals(2, session.settingsRevision());
    session.abort();
  }

  @Test
  void closeSendsTheEndAndWaits() {
    TranscriptionSession session = open();
    Later<Void> closing = Later.run(session::close);
    assertTrue(call.request().hasEndSession());
    assertFalse(closing.isDone());
    call.endSession();
    closing.get();
    assertThrows(SessionClosedException.class, () -> session.sendAudio(new byte[2]));
  }

  @Test
  void discardDropsWhatIsPending() {
    TranscriptionSession session = open();
    session.discard();
    assertTrue(call.request().getEndSession().getDiscard());
    session.close();
  }
}
