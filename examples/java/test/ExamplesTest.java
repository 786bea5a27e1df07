import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/** The commands of the README, against a real gateway. */
@Timeout(300)
@EnabledIfEnvironmentVariable(
    named = "WAVEGATE_SERVER",
    matches = ".+",
    disabledReason = "left out: WAVEGATE_SERVER does not name a wavegate-server to test against")
class ExamplesTest {
  @TempDir static Path folder;
  private static Process gateway;
  private static String target;

  @BeforeAll
  static void start() throws IOException, InterruptedException {
    Path portFile = folder.resolve("port");
    ProcessBuilder builder =
        new ProcessBuilder(
            System.getenv("WAVEGATE_SERVER"),
            "--listen",
            "127.0.0.1:0",
            "--port-file",
            portFile.toString(),
            "--metrics-listen",
            "off");
    builder.environment().remove("SMALLEST_API_KEY");
    gateway = builder.redirectErrorStream(true).redirectOutput(folder.resolve("log").toFile()).start();
    String port = "";
    while (port.isEmpty()) {
      assertTrue(gateway.isAlive(), "the gateway has ended");
      Thread.sleep(50); // there is no other way to learn that another process has written a file
      port = Files.exists(portFile) ? Files.readString(portFile).strip() : "";
    }
    target = "127.0.0.1:" + port;
  }

  @AfterAll
  static void stop() throws InterruptedException {
    gateway.destroy();
    assertTrue(gateway.waitFor(30, TimeUnit.SECONDS));
  }

  private static String run(String input, String... arguments) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(List.of(Path.of("run").toAbsolutePath().toString()));
    command.addAll(List.of(arguments));
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().put("WAVEGATE_TARGET", target);
    Process process = builder.directory(folder.toFile()).start();
    process.getOutputStream().write(input.getBytes(StandardCharsets.UTF_8));
    process.getOutputStream().close();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), said);
    return said;
  }

  @Test
  void speaksIntoAFileAndListensToIt() throws IOException, InterruptedException {
    String spoken = run("", "speak", "hello.wav", "Hello there. How are you today?");
    assertTrue(spoken.contains("s of speech in hello.wav"), spoken);
    String heard = run("", "listen", "hello.wav");
    assertTrue(heard.contains("final   Hello"), heard);
  }

  @Test
  void speaksWhatItReads() throws IOException, InterruptedException {
    String spoken = run("One two three.\n", "speak", "counted.wav");
    assertTrue(spoken.contains("s of speech in counted.wav"), spoken);
    assertTrue(Files.size(folder.resolve("counted.wav")) > 20_000);
  }

  @Test
  void isInterrupted() throws IOException, InterruptedException {
    String said = run("", "barge_in");
    assertTrue(said.contains("heard: \"Once"), said);
    assertTrue(said.contains("s of an answer"), said);
  }

  @Test
  void converses() throws IOException, InterruptedException {
    String said = run("", "agent");
    assertTrue(said.contains("caller: Hello"), said);
    assertTrue(said.contains("interrupted; the caller has heard"), said);
    assertTrue(said.contains("(has spoken to the end)"), said);
  }
}
