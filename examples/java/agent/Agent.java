import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import wavegate.Client;
import wavegate.SynthesisOptions;
import wavegate.SynthesisSession;
import wavegate.TranscriptionEvent;
import wavegate.TranscriptionOptions;
import wavegate.TranscriptionSession;
import wavegate.Utterance;
import wavegate.UtteranceOutcome;
import wavegate.WavegateException;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.TranscriptionSettings;

/**
 * A voice agent without a microphone: it listens to a caller, answers each turn with a toy reply, and stops when the caller
 * speaks over it.
 *
 * <p>The caller is played by the gateway's own voice: a first question, and an interruption while the answer is spoken. A
 * real agent has a microphone in the place of {@code ask}, a loudspeaker in the place of the clock in {@code play}, and a
 * language model in the place of {@code reply}.
 */
public final class Agent {
  private static final AudioFormat HEARD =
      AudioFormat.newBuilder()
          .setEncoding(AudioEncoding.AUDIO_ENCODING_LINEAR16)
          .setSampleRateHertz(16_000)
          .build();

  private final SynthesisSession mouth;
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final CountDownLatch speaking = new CountDownLatch(1);
  private final ReentrantLock lock = new ReentrantLock();
  private Utterance answer;
  private Duration played = Duration.ZERO;

  private Agent(SynthesisSession mouth) {
    this.mouth = mouth;
  }

  public static void main(String[] args) throws Exception {
    TranscriptionOptions listening =
        TranscriptionOptions.builder()
            .audioFormat(HEARD)
            .settings(
                TranscriptionSettings.newBuilder().setLanguageCode("en").setVoiceActivityEvents(true).build())
            .build();
    try (Client client = Client.connect()) {
      byte[] question = caller(client, "Hello there. How are you today?");
      byte[] interruption = caller(client, "Stop.");
      try (TranscriptionSession ears = client.transcribe(listening);
          SynthesisSession mouth = client.synthesize(SynthesisOptions.builder().voice("avery").build())) {
        new Agent(mouth).converse(ears, question, interruption);
      }
    } catch (WavegateException e) {
      System.err.println(e.getMessage());
      System.exit(1);
    }
  }

  /** The audio of what the caller says. */
  private static byte[] caller(Client client, String text) {
    return client
        .synthesizeOnce(text, SynthesisOptions.builder().voice("magnus").audioFormat(HEARD).build())
        .audio();
  }

  private void converse(TranscriptionSession ears, byte[] question, byte[] interruption) throws Exception {
    Future<?> hearing = threads.submit(() -> listen(ears));
    ask(ears, question);
    if (!speaking.await(20, TimeUnit.SECONDS)) {
      throw new IllegalStateException("the agent says nothing");
    }
    ask(ears, interruption); // while the agent speaks
    ears.end();
    hearing.get();
    threads.shutdown();
    threads.awaitTermination(1, TimeUnit.MINUTES);
  }

  /** Says something into the agent's ears, at the speed of speech. */
  private static void ask(TranscriptionSession ears, byte[] audio) throws IOException {
    byte[] andSilence = Arrays.copyOf(audio, audio.length + HEARD.getSampleRateHertz()); // half a second
    ears.streamAudioPaced(new ByteArrayInputStream(andSilence), 1);
    ears.finalizeTurn(); // which a real agent leaves to the pauses of its caller
  }

  private void listen(TranscriptionSession ears) {
    for (TranscriptionEvent event : ears.events()) {
      switch (event.kind()) {
        case SPEECH_STARTED -> interrupt();
        case TRANSCRIPT -> {
          String text = event.transcript().getText().strip();
          if (event.transcript().getIsFinal() && !text.isEmpty()) {
            System.out.println("caller: " + text);
            say(reply(text));
          }
        }
        default -> {}
      }
    }
  }

  /** Where a language model would be: it brings the words of an answer one after the other. */
  private static List<String> reply(String heard) {
    String text =
        heard.toLowerCase(Locale.ROOT).contains("stop")
            ? "All right."
            : "You said: "
                + heard
                + " "
                + "Here is a story, of which nobody wants to hear the end. ".repeat(4);
    return Arrays.stream(text.split("(?<= )")).toList();
  }

  /** Speaks an answer, in the place of the one before it. */
  private void say(List<String> words) {
    interrupt();
    Utterance next = mouth.say(words);
    lock.lock();
    try {
      answer = next;
      played = Duration.ZERO;
    } finally {
      lock.unlock();
    }
    threads.submit(() -> play(next));
  }

  /** Takes the audio of an answer as fast as it would be heard. */
  private void play(Utterance spoken) {
    int bytesPerSecond = 2 * mouth.started().getAudioFormat().getSampleRateHertz();
    try {
      for (byte[] audio : spoken.audio()) {
        Duration length = Duration.ofNanos(1_000_000_000L * audio.length / bytesPerSecond);
        TimeUnit.NANOSECONDS.sleep(length.toNanos());
        lock.lock();
        try {
          if (answer == spoken) {
            played = played.plus(length);
          }
        } finally {
          lock.unlock();
        }
        if (played.compareTo(Duration.ofSeconds(1)) > 0) {
          speaking.countDown();
        }
      }
      UtteranceOutcome outcome = spoken.await();
      System.out.println(
          "agent:  "
              + outcome
                  .cancelled()
                  .map(cut -> "(interrupted; the caller has heard \"" + cut.getSpokenText() + "\")")
                  .orElse("(has spoken to the end)"));
    } catch (WavegateException | InterruptedException e) {
      System.out.println("agent:  cannot speak: " + e.getMessage());
    }
    speaking.countDown();
  }

  /** Stops what is being spoken, if anything is. */
  private void interrupt() {
    Utterance stopped;
    Duration heard;
    lock.lock();
    try {
      stopped = answer;
      heard = played;
      answer = null;
    } finally {
      lock.unlock();
    }
    if (stopped != null) {
      stopped.cancel(heard);
    }
  }
}
