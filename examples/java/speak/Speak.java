import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Scanner;
import java.util.regex.MatchResult;
import java.util.stream.Stream;
import wavegate.Client;
import wavegate.SynthesisOptions;
import wavegate.SynthesisSession;
import wavegate.Utterance;
import wavegate.WavegateException;

/** Speaks a text into a WAV file; without one its standard input, word by word as it comes. */
public final class Speak {
  public static void main(String[] args) throws IOException {
    if (args.length < 1 || args.length > 2) {
      System.err.println("usage: speak FILE.wav [TEXT]");
      System.exit(2);
    }
    SynthesisOptions options = SynthesisOptions.builder().voice("magnus").build();
    try (Client client = Client.connect();
        SynthesisSession session = client.synthesize(options);
        Wav wav = new Wav(Path.of(args[0]), session.started().getAudioFormat().getSampleRateHertz())) {
      Utterance utterance = args.length == 2 ? session.say(args[1]) : session.say(words());
      for (byte[] audio : utterance.audio()) {
        wav.write(audio);
      }
      System.out.printf("%.2f s of speech in %s%n", wav.seconds(), args[0]);
    } catch (WavegateException e) {
      System.err.println(e.getMessage());
      System.exit(1);
    }
  }

  /** Standard input as it comes, blanks included. */
  private static Stream<String> words() {
    return new Scanner(System.in, StandardCharsets.UTF_8).findAll("\\s*\\S+").map(MatchResult::group);
  }
}
