import java.time.Duration;
import java.util.concurrent.TimeUnit;
import wavegate.Client;
import wavegate.SynthesisOptions;
import wavegate.SynthesisSession;
import wavegate.Utterance;
import wavegate.UtteranceOutcome;
import wavegate.WavegateException;

/** Interrupts a story after a second of it was heard, tells what the listener has heard of it, and answers. */
public final class BargeIn {
  private static final String STORY =
      "Once upon a time there was a voice that did not like to be interrupted. ".repeat(10);

  public static void main(String[] args) throws InterruptedException {
    SynthesisOptions options =
        SynthesisOptions.builder()
            .voice("magnus")
            .maxAudioLead(Duration.ofMillis(500)) // what a barge-in has to throw away stays short
            .build();
    try (Client client = Client.connect();
        SynthesisSession session = client.synthesize(options)) {
      int bytesPerSecond = 2 * session.started().getAudioFormat().getSampleRateHertz();
      Utterance story = session.say(STORY);
      long heard = 0;
      for (byte[] audio : story.audio()) {
        TimeUnit.NANOSECONDS.sleep(1_000_000_000L * audio.length / bytesPerSecond); // a loudspeaker would take that
        heard += audio.length;
        if (heard >= bytesPerSecond) {
          story.cancel(Duration.ofMillis(1000 * heard / bytesPerSecond)); // ends the loop, too
        }
      }
      UtteranceOutcome outcome = story.await();
      outcome
          .cancelled()
          .ifPresent(
              cancelled ->
                  System.out.printf(
                      "heard: \"%s\", known by %s%n",
                      cancelled.getSpokenText(), cancelled.getEstimateSource()));
      byte[] answer = session.say("Yes?").read();
      System.out.printf("%.2f s of an answer%n", (double) answer.length / bytesPerSecond);
    } catch (WavegateException e) {
      System.err.println(e.getMessage());
      System.exit(1);
    }
  }
}
