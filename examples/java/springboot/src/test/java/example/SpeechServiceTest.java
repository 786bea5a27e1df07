package example;

import static org.assertj.core.api.Assertions.assertThat;

import io.opentelemetry.sdk.testing.exporter.InMemorySpanExporter;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.data.SpanData;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.boot.SpringApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import wavegate.Client;
import wavegate.speech.v1.TraceSpan;

/** The service against a real gateway, which {@code WAVEGATE_SERVER} names (the path of {@code wavegate-server}). */
@Timeout(120)
@EnabledIfEnvironmentVariable(
    named = "WAVEGATE_SERVER",
    matches = ".+",
    disabledReason = "left out: WAVEGATE_SERVER does not name a wavegate-server to test against")
class SpeechServiceTest {
  @TempDir static Path folder;
  private static Process gateway;
  private static ConfigurableApplicationContext service;
  private static String address;

  @Configuration
  static class Exporter {
    @Bean
    InMemorySpanExporter spans() {
      return InMemorySpanExporter.create();
    }
  }

  @BeforeAll
  static void start() throws IOException, InterruptedException {
    String command = System.getenv("WAVEGATE_SERVER");
    Path portFile = folder.resolve("port");
    ProcessBuilder builder =
        new ProcessBuilder(
            command, "--listen", "127.0.0.1:0", "--port-file", portFile.toString(), "--metrics-listen", "off");
    builder.environment().remove("SMALLEST_API_KEY");
    builder.redirectErrorStream(true).redirectOutput(folder.resolve("log").toFile());
    gateway = builder.start();
    String port = "";
    while (port.isEmpty()) {
      assertThat(gateway.isAlive()).isTrue();
      Thread.sleep(50); // there is no other way to learn that another process has written a file
      port = Files.exists(portFile) ? Files.readString(portFile).strip() : "";
    }
    service =
        new SpringApplication(SpeechService.class, Exporter.class)
            .run("--server.port=0", "--wavegate.target=127.0.0.1:" + port);
    address = "http://127.0.0.1:" + service.getEnvironment().getProperty("local.server.port");
  }

  @AfterAll
  static void stop() throws InterruptedException {
    if (service != null) {
      service.close();
    }
    if (gateway != null) {
      gateway.destroy();
      assertThat(gateway.waitFor(30, TimeUnit.SECONDS)).isTrue();
    }
  }

  private static HttpResponse<byte[]> get(String path) throws IOException, InterruptedException {
    return HttpClient.newHttpClient()
        .send(
            HttpRequest.newBuilder(URI.create(address + path)).build(), HttpResponse.BodyHandlers.ofByteArray());
  }

  @Test
  void speaksInOneTraceFromTheRequestToTheLastChunk() throws IOException, InterruptedException {
    HttpResponse<byte[]> answer = get("/speech?text=Hello+there.");
    assertThat(answer.statusCode()).isEqualTo(200);
    assertThat(answer.headers().firstValue("Content-Type")).contains("audio/wav");
    assertThat(new String(answer.body(), 0, 4, java.nio.charset.StandardCharsets.US_ASCII)).isEqualTo("RIFF");
    assertThat(answer.body().length).isGreaterThan(10_000);
    String traceId = answer.headers().firstValue("Wavegate-Trace-Id").orElseThrow();
    service.getBean(SdkTracerProvider.class).forceFlush().join(10, TimeUnit.SECONDS);
    List<SpanData> own = service.getBean(InMemorySpanExporter.class).getFinishedSpanItems();
    SpanData request =
        own.stream().filter(span -> span.getName().contains("/speech")).findFirst().orElseThrow();
    assertThat(request.getTraceId()).isEqualTo(traceId);
    List<TraceSpan> gateways = service.getBean(Client.class).getTrace(traceId);
    TraceSpan call =
        gateways.stream().filter(span -> span.getName().endsWith("/SynthesizeStream")).findFirst().orElseThrow();
    assertThat(call.getParentSpanId()).isEqualTo(request.getSpanId());
    assertThat(gateways).anyMatch(span -> span.getName().equals("chunk.out"));
  }

  @Test
  void tellsWhatIsWrong() throws IOException, InterruptedException {
    HttpResponse<byte[]> answer = get("/speech?text=Hello&voice=nobody");
    assertThat(answer.statusCode()).isEqualTo(400);
    assertThat(new String(answer.body(), java.nio.charset.StandardCharsets.UTF_8)).contains("UPSTREAM_REJECTED");
  }
}
