package wavegate;

import java.time.Duration;
import java.util.Objects;
import wavegate.speech.v1.TranscriptionSettings;

/** How a session of transcription is opened. */
public final class TranscriptionOptions extends SessionOptions {
  private final TranscriptionSettings settings;
  private final Boolean keepAlive;
  private final Duration initialAudioOffset;

  private TranscriptionOptions(Builder builder) {
    super(builder);
    this.settings = builder.settings;
    this.keepAlive = builder.keepAlive;
    this.initialAudioOffset = builder.initialAudioOffset;
  }

  /**
   * Begins with the defaults.
   *
   * @return a new builder
   */
  public static Builder builder() {
    return new Builder();
  }

  TranscriptionSettings settings() {
    return settings;
  }

  Boolean keepAlive() {
    return keepAlive;
  }

  Duration initialAudioOffset() {
    return initialAudioOffset;
  }

  /** Collects the options. */
  public static final class Builder extends SessionOptions.Builder<Builder> {
    private TranscriptionSettings settings = TranscriptionSettings.getDefaultInstance();
    private Boolean keepAlive;
    private Duration initialAudioOffset;

    private Builder() {}

    @Override
    Builder self() {
      return this;
    }

    /**
     * The settings to begin with.
     *
     * @param wanted the contract's settings; what is not set takes the gateway's default
     * @return this builder
     */
    public Builder settings(TranscriptionSettings wanted) {
      this.settings = Objects.requireNonNull(wanted, "settings");
      return this;
    }

    /**
     * The language that is heard, of the settings.
     *
     * @param languageCode BCP-47, such as {@code en}
     * @return this builder
     */
    public Builder language(String languageCode) {
      this.settings = settings.toBuilder().setLanguageCode(languageCode).build();
      return this;
    }

    /**
     * Whether the gateway keeps the upstream connection open while no audio comes.
     *
     * @param on true unless set; false lets a silent session lose its upstream
     * @return this builder
     */
    public Builder keepAlive(boolean on) {
      this.keepAlive = on;
      return this;
    }

    /**
     * The time of the first sample, where this session continues another. It is added to every offset.
     *
     * @param offset zero unless set
     * @return this builder
     */
    public Builder initialAudioOffset(Duration offset) {
      this.initialAudioOffset = notNegative(offset, "initialAudioOffset");
      return this;
    }

    /**
     * Makes the options.
     *
     * @return what was collected
     */
    public TranscriptionOptions build() {
      return new TranscriptionOptions(this);
    }
  }
}
