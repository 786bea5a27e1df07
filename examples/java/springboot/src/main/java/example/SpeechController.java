package example;

import java.io.IOException;
import java.io.OutputStream;
import java.util.Iterator;
import java.util.Map;
import org.springframework.http.HttpStatus;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.StreamingResponseBody;
import wavegate.Client;
import wavegate.SynthesisOptions;
import wavegate.SynthesisSession;
import wavegate.WavegateException;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;

/** Speaks texts as WAV that goes out while it is made. */
@RestController
class SpeechController {
  private static final AudioFormat WAV =
      AudioFormat.newBuilder()
          .setEncoding(AudioEncoding.AUDIO_ENCODING_WAV)
          .setSampleRateHertz(24_000)
          .build();

  private final Client client;

  SpeechController(Client client) {
    this.client = client;
  }

  /**
   * The session is opened here, where the span of the HTTP request is current: the gateway's spans become its children. What
   * is wrong with the request shows before the first byte, and so has a status of its own.
   */
  @GetMapping("/speech")
  ResponseEntity<StreamingResponseBody> speech(
      @RequestParam String text, @RequestParam(defaultValue = "magnus") String voice) {
    SynthesisSession session =
        client.synthesize(SynthesisOptions.builder().voice(voice).audioFormat(WAV).build());
    try {
      Iterator<byte[]> audio = session.say(text).audio().iterator();
      if (!audio.hasNext()) {
        session.close();
        return ResponseEntity.noContent().build();
      }
      return ResponseEntity.ok()
          .contentType(MediaType.parseMediaType("audio/wav"))
          .header("Wavegate-Trace-Id", session.started().getTraceId())
          .body(out -> stream(session, audio, out));
    } catch (RuntimeException e) {
      session.abort();
      throw e;
    }
  }

  private static void stream(SynthesisSession session, Iterator<byte[]> audio, OutputStream out)
      throws IOException {
    try {
      while (audio.hasNext()) {
        out.write(audio.next());
        out.flush();
      }
      session.close();
    } catch (IOException | RuntimeException e) {
      session.abort(); // the listener has gone: nobody hears the rest
      throw e;
    }
  }

  @ExceptionHandler
  ResponseEntity<Map<String, String>> failed(WavegateException e) {
    HttpStatus status =
        switch (e.kind()) {
          case INVALID_REQUEST -> HttpStatus.BAD_REQUEST;
          case CAPACITY -> HttpStatus.TOO_MANY_REQUESTS;
          case DEADLINE -> HttpStatus.GATEWAY_TIMEOUT;
          case GATEWAY_UNAVAILABLE, CONNECTION_LOST -> HttpStatus.SERVICE_UNAVAILABLE;
          default -> HttpStatus.BAD_GATEWAY;
        };
    ResponseEntity.BodyBuilder answer = ResponseEntity.status(status).contentType(MediaType.APPLICATION_JSON);
    e.retryDelay().ifPresent(delay -> answer.header("Retry-After", String.valueOf(delay.toSeconds() + 1)));
    return answer.body(Map.of("reason", e.reason(), "message", e.getMessage()));
  }
}
