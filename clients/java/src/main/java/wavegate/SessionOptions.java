package wavegate;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import wavegate.speech.v1.AudioFormat;

/** How a session is opened; what synthesis and transcription have in common. */
public abstract sealed class SessionOptions permits SynthesisOptions, TranscriptionOptions {
  private final AudioFormat audioFormat;
  private final Map<String, String> labels;
  private final String clientSessionId;
  private final Duration resumeWindow;
  private final boolean move;
  private final Duration openTimeout;

  SessionOptions(Builder<?> builder) {
    this.audioFormat = builder.audioFormat;
    this.labels = Map.copyOf(builder.labels);
    this.clientSessionId = builder.clientSessionId;
    this.resumeWindow = builder.resumeWindow;
    this.move = builder.move;
    this.openTimeout = builder.openTimeout;
  }

  AudioFormat audioFormat() {
    return audioFormat;
  }

  Map<String, String> labels() {
    return labels;
  }

  String clientSessionId() {
    return clientSessionId;
  }

  Duration resumeWindow() {
    return resumeWindow;
  }

  boolean move() {
    return move;
  }

  /** Null: as long as it takes. */
  Duration openTimeout() {
    return openTimeout;
  }

  /**
   * Collects the options.
   *
   * @param <B> the builder itself
   */
  public abstract static sealed class Builder<B extends Builder<B>>
      permits SynthesisOptions.Builder, TranscriptionOptions.Builder {
    private AudioFormat audioFormat;
    private final Map<String, String> labels = new HashMap<>();
    private String clientSessionId = "";
    private Duration resumeWindow = Duration.ofSeconds(30);
    private boolean move = true;
    private Duration openTimeout = Duration.ofSeconds(30);

    Builder() {}

    abstract B self();

    /**
     * How audio is written. Without it: LINEAR16 with one channel, 24000 Hz of speech that is made, 16000 Hz of speech
     * that is heard.
     *
     * @param format the contract's format
     * @return this builder
     */
    public B audioFormat(AudioFormat format) {
      this.audioFormat = Objects.requireNonNull(format, "format");
      return self();
    }

    /**
     * A mark of the caller's own on the session, for its spans and {@link Client#listSessions(Map)}. Never a secret.
     *
     * @param name its name
     * @param value its value
     * @return this builder
     */
    public B label(String name, String value) {
      labels.put(name, value);
      return self();
    }

    /**
     * Marks of the caller's own on the session.
     *
     * @param more names and values
     * @return this builder
     */
    public B labels(Map<String, String> more) {
      labels.putAll(more);
      return self();
    }

    /**
     * The caller's own id of the session, which goes upstream for correlation.
     *
     * @param id letters, digits, {@code _}, {@code .} and {@code -}, at most 128
     * @return this builder
     */
    public B clientSessionId(String id) {
      this.clientSessionId = Objects.requireNonNull(id, "id");
      return self();
    }

    /**
     * How long the session outlives the loss of its connection, as far as the gateway grants it. Meanwhile the client
     * resumes it by itself, and says so with a {@link SessionEvent.Kind#SESSION_RESUMED}.
     *
     * @param window 30 s unless set; zero: a session ends with its connection
     * @return this builder
     */
    public B resumeWindow(Duration window) {
      this.resumeWindow = notNegative(window, "resumeWindow");
      return self();
    }

    /**
     * Whether the session goes on at another gateway when its own one shuts down, and says so with a {@link
     * SessionEvent.Kind#SESSION_MOVED}.
     *
     * @param on true unless set; false: it stays where it is and ends with its gateway
     * @return this builder
     */
    public B move(boolean on) {
      this.move = on;
      return self();
    }

    /**
     * How long opening may take. A session that is open has no deadline.
     *
     * @param timeout 30 s unless set; null: as long as it takes
     * @return this builder
     */
    public B openTimeout(Duration timeout) {
      this.openTimeout = timeout == null ? null : notNegative(timeout, "openTimeout");
      return self();
    }
  }

  static Duration notNegative(Duration duration, String name) {
    if (duration.isNegative()) {
      throw new IllegalArgumentException(name + " cannot be negative: " + duration);
    }
    return duration;
  }
}
