import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import javax.sound.sampled.AudioFormat;
import javax.sound.sampled.AudioInputStream;
import javax.sound.sampled.AudioSystem;
import javax.sound.sampled.UnsupportedAudioFileException;
import wavegate.Client;
import wavegate.TranscriptionOptions;
import wavegate.TranscriptionSession;
import wavegate.WavegateException;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.Transcript;

/** Transcribes a WAV file at the speed at which it was spoken, and prints what it hears as it hears it. */
public final class Listen {
  public static void main(String[] args) throws IOException {
    if (args.length != 1) {
      System.err.println("usage: listen FILE.wav");
      System.exit(2);
    }
    try (AudioInputStream audio = samples(Path.of(args[0]));
        Client client = Client.connect();
        TranscriptionSession session = client.transcribe(options(audio.getFormat()))) {
      // Sends in one thread, reads in another.
      CompletableFuture<Void> sending =
          CompletableFuture.runAsync(
              () -> {
                try {
                  session.streamAudioPaced(audio, 1);
                  session.end();
                } catch (IOException e) {
                  session.abort();
                  throw new IllegalStateException(e);
                }
              });
      for (Transcript transcript : session.transcripts()) {
        System.out.println((transcript.getIsFinal() ? "final   " : "partial ") + transcript.getText());
      }
      sending.join();
    } catch (WavegateException e) {
      System.err.println(e.getMessage());
      System.exit(1);
    } catch (UnsupportedAudioFileException | IllegalArgumentException e) {
      System.err.println(args[0] + " cannot be read as 16-bit samples: " + e.getMessage());
      System.exit(1);
    }
  }

  private static AudioInputStream samples(Path path) throws IOException, UnsupportedAudioFileException {
    AudioInputStream file = AudioSystem.getAudioInputStream(path.toFile());
    AudioFormat wanted = new AudioFormat(file.getFormat().getSampleRate(), 16, 1, true, false);
    return AudioSystem.getAudioInputStream(wanted, file);
  }

  private static TranscriptionOptions options(AudioFormat format) {
    return TranscriptionOptions.builder()
        .language("en")
        .audioFormat(
            wavegate.speech.v1.AudioFormat.newBuilder()
                .setEncoding(AudioEncoding.AUDIO_ENCODING_LINEAR16)
                .setSampleRateHertz((int) format.getSampleRate())
                .build())
        .build();
  }
}
