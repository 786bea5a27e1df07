package wavegate;

import java.time.Duration;
import java.util.Objects;
import wavegate.speech.v1.SynthesisSettings;

/** How a session of speech synthesis is opened. */
public final class SynthesisOptions extends SessionOptions {
  private final SynthesisSettings settings;
  private final Duration maxAudioLead;

  private SynthesisOptions(Builder builder) {
    super(builder);
    this.settings = builder.settings;
    this.maxAudioLead = builder.maxAudioLead;
  }

  /**
   * Begins with the defaults.
   *
   * @return a new builder
   */
  public static Builder builder() {
    return new Builder();
  }

  SynthesisSettings settings() {
    return settings;
  }

  Duration maxAudioLead() {
    return maxAudioLead;
  }

  /** Collects the options. */
  public static final class Builder extends SessionOptions.Builder<Builder> {
    private SynthesisSettings settings = SynthesisSettings.getDefaultInstance();
    private Duration maxAudioLead;

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
    public Builder settings(SynthesisSettings wanted) {
      this.settings = Objects.requireNonNull(wanted, "settings");
      return this;
    }

    /**
     * The voice, of the settings.
     *
     * @param voiceId its id in the catalogue
     * @return this builder
     */
    public Builder voice(String voiceId) {
      this.settings = settings.toBuilder().setVoiceId(voiceId).build();
      return this;
    }

    /**
     * How much audio the gateway may send ahead of real time.
     *
     * @param lead more than zero; without it audio comes as fast as it is read
     * @return this builder
     */
    public Builder maxAudioLead(Duration lead) {
      this.maxAudioLead = Objects.requireNonNull(lead, "lead");
      return this;
    }

    /**
     * Makes the options.
     *
     * @return what was collected
     */
    public SynthesisOptions build() {
      return new SynthesisOptions(this);
    }
  }
}
