package example;

import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import wavegate.Client;

/** A service that speaks: {@code curl -N 'http://127.0.0.1:8080/speech?text=Hello' > hello.wav}. */
@SpringBootApplication
public class SpeechService {
  public static void main(String[] args) {
    SpringApplication.run(SpeechService.class, args);
  }

  /** One client for all requests; it connects with the first. Spring closes it. */
  @Bean
  Client wavegate(@Value("${wavegate.target}") String target) {
    return Client.builder().target(target).build();
  }

  @Bean
  @ConditionalOnProperty("OTEL_EXPORTER_OTLP_ENDPOINT")
  OtlpGrpcSpanExporter exporter(@Value("${OTEL_EXPORTER_OTLP_ENDPOINT}") String endpoint) {
    return OtlpGrpcSpanExporter.builder().setEndpoint(endpoint).build();
  }
}
