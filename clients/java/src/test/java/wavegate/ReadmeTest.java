package wavegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/** The quick start of the README, as it is printed there. */
@Timeout(120)
@EnabledIfEnvironmentVariable(
    named = "WAVEGATE_SERVER",
    matches = ".+",
    disabledReason = "left out: WAVEGATE_SERVER does not name a wavegate-server to test against")
class ReadmeTest {
  @Test
  void quickStartRuns(@TempDir Path folder) throws IOException, InterruptedException {
    String readme = Files.readString(Path.of("README.md"));
    Matcher program = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL).matcher(readme);
    assertTrue(program.find());
    Path source = folder.resolve("QuickStart.java");
    Files.writeString(source, program.group(1));
    try (RealGateway gateway = new RealGateway(folder)) {
      ProcessBuilder builder =
          new ProcessBuilder(
              Path.of(System.getProperty("java.home"), "bin", "java").toString(),
              "-cp",
              System.getProperty("java.class.path"),
              source.toString());
      builder.environment().put("WAVEGATE_TARGET", gateway.target());
      builder.environment().remove("WAVEGATE_TOKEN");
      Process run = builder.directory(folder.toFile()).redirectErrorStream(true).start();
      String said = new String(run.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertEquals(0, run.waitFor(), said);
      assertTrue(said.contains("interrupted: true"), said);
      assertTrue(said.contains("heard: Hello"), said);
    }
  }
}
