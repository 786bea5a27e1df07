package wavegate;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** A gateway with its local upstream, of the {@code wavegate-server} that {@code WAVEGATE_SERVER} names. */
final class RealGateway implements AutoCloseable {
  private final Process server;
  private final String target;

  RealGateway(Path folder) throws IOException, InterruptedException {
    Path portFile = folder.resolve("port");
    Path log = folder.resolve("log");
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
    server = builder.redirectErrorStream(true).redirectOutput(log.toFile()).start();
    String port = "";
    while (port.isEmpty()) {
      assertTrue(server.isAlive(), "the gateway has ended");
      Thread.sleep(50); // there is no other way to learn that another process has written a file
      port = Files.exists(portFile) ? Files.readString(portFile).strip() : "";
    }
    target = "127.0.0.1:" + port;
  }

  String target() {
    return target;
  }

  @Override
  public void close() {
    server.destroy();
    try {
      assertTrue(server.waitFor(30, TimeUnit.SECONDS));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
