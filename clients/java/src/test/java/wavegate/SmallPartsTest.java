package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;

class SmallPartsTest {
  @ParameterizedTest
  @ValueSource(
      strings = {
        "127.0.0.1:50051",
        "gateway.internal:1",
        "[::1]:50051",
        "dns:///gateways.internal:50051",
        "unix:/run/wavegate.sock"
      })
  void targetsThatAreWrittenRight(String target) {
    assertEquals(target, Targets.check(target, false));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "gateway | names no port: write gateway:50051",
        "http://gateway:80/x | write gateway:80",
        "https://gateway | write gateway:443, and tls()",
        "gateway:0 | is no port",
        "gateway:x | is no port",
        "gateway:70000 | is no port",
        "::1 | write [::1]:PORT",
        "a b:1 | is no HOST:PORT",
        ":1 | is no HOST:PORT",
        "' ' | the target is empty"
      })
  void targetsThatAreWrittenWrong(String target, String said) {
    String message =
        assertThrows(IllegalArgumentException.class, () -> Targets.check(target, false)).getMessage();
    assertTrue(message.contains(said), message);
  }

  @Test
  void thisMachineIsKnown() {
    for (String target :
        List.of("127.0.0.1:1", "127.1:1", "localhost:1", "a.localhost.:1", "[::1]:1", "unix:/x", "dns:///localhost:1")) {
      assertTrue(Targets.isLoopback(target), target);
    }
    for (String target : List.of("10.0.0.1:1", "127.0.0.1.example.com:1", "dns:///gateway:1")) {
      assertFalse(Targets.isLoopback(target), target);
    }
    assertEquals("gateway", Targets.check("gateway", true));
  }

  @Test
  void loneSurrogatesBecomeReplacementCharacters() {
    assertEquals("a\uFFFDb", Texts.toWire("a\uD83Db"));
    assertEquals("\uFFFD", Texts.toWire("\uDE00"));
    assertEquals("a\uD83D\uDE00b", Texts.toWire("a\uD83D\uDE00b"));
  }

  @Test
  void textIsCutAtBlanksAndBetweenCodePoints() {
    assertEquals(List.of("one ", "two ", "three"), Texts.split("one two three", 5));
    assertEquals(List.of("abc", "def"), Texts.split("abcdef", 3));
    assertEquals(List.of("\uD83D\uDE00", "\uD83D\uDE00"), Texts.split("\uD83D\uDE00\uD83D\uDE00", 1));
    assertEquals(List.of(""), Texts.split("", 3));
    assertEquals(List.of("abc"), Texts.split("abc", 0));
  }

  @Test
  void opusPacketsTellTheirLength() {
    assertEquals(960, AudioMath.opusSamples(new byte[] {(byte) 0x78})); // hybrid, 20 ms
    assertEquals(480, AudioMath.opusSamples(new byte[] {0}));
    assertEquals(2 * 960, AudioMath.opusSamples(new byte[] {(byte) 0x79})); // two of those
    assertEquals(3 * 960, AudioMath.opusSamples(new byte[] {(byte) 0xFB, 3})); // CELT, three frames of 20 ms
    assertEquals(0, AudioMath.opusSamples(new byte[0]));
    AudioFormat opus = AudioFormat.newBuilder().setEncoding(AudioEncoding.AUDIO_ENCODING_OPUS).build();
    assertEquals(7, AudioMath.pieceBytes(7, opus, 4));
  }

  @Test
  void durationsKeepTheirSign() {
    assertEquals(
        com.google.protobuf.Duration.newBuilder().setSeconds(-1).setNanos(-500_000_000).build(),
        Times.toWire(Duration.ofMillis(-1500)));
    assertEquals(Duration.ofMillis(-1500), Times.toJava(Times.toWire(Duration.ofMillis(-1500))));
    assertEquals(1.5, Times.toSeconds(Times.toWire(1.5)));
  }

  @Test
  void failuresCanBeWrittenAndRead() throws IOException, ClassNotFoundException {
    WavegateException failed =
        WavegateException.of(
            FakeGateway.status(io.grpc.Status.Code.RESOURCE_EXHAUSTED, "CALLER_QUOTA", "too many"));
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(failed);
    }
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      WavegateException read = (WavegateException) in.readObject();
      assertEquals("CALLER_QUOTA", read.reason());
      assertEquals(WavegateException.Kind.CAPACITY, read.kind());
      assertTrue(read.retryable());
      assertEquals(
          "CALLER_QUOTA", WavegateException.of(read.toStatus()).reason());
    }
  }

  @Test
  void eventsTellWhatTheyAreNot() {
    SynthesisEvent event =
        new SynthesisEvent(SessionEvent.Kind.WARNING, wavegate.speech.v1.Warning.getDefaultInstance());
    assertThrows(IllegalStateException.class, event::audio);
    assertEquals(event.value(), event.warning());
  }
}
