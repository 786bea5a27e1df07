package wavegate;

import com.google.protobuf.Descriptors.Descriptor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Objects;
import java.util.OptionalLong;
import wavegate.speech.v1.ApplyPolicy;

/** How a change of settings is applied, beside the settings themselves. */
public final class UpdateOptions {
  static final UpdateOptions DEFAULT = builder().build();

  private final String updateId;
  private final List<String> reset;
  private final ApplyPolicy apply;
  private final OptionalLong expectedRevision;
  private final boolean validateOnly;
  private final OptionalLong afterInputSequence;
  private final boolean watch;

  private UpdateOptions(Builder builder) {
    this.updateId = builder.updateId;
    this.reset = List.copyOf(builder.reset);
    this.apply = builder.apply;
    this.expectedRevision = builder.expectedRevision;
    this.validateOnly = builder.validateOnly;
    this.afterInputSequence = builder.afterInputSequence;
    this.watch = builder.watch;
  }

  /**
   * Begins with the defaults.
   *
   * @return a new builder
   */
  public static Builder builder() {
    return new Builder();
  }

  String updateId() {
    return updateId;
  }

  List<String> reset() {
    return reset;
  }

  ApplyPolicy apply() {
    return apply;
  }

  OptionalLong expectedRevision() {
    return expectedRevision;
  }

  boolean validateOnly() {
    return validateOnly;
  }

  OptionalLong afterInputSequence() {
    return afterInputSequence;
  }

  boolean watch() {
    return watch;
  }

  /** Refuses names of settings that there are not, before anything is sent. */
  UpdateOptions check(Descriptor settings, boolean control) {
    for (String name : reset) {
      if (settings.findFieldByName(name) == null) {
        List<String> names = new ArrayList<>();
        settings.getFields().forEach(field -> names.add(field.getName()));
        throw new IllegalArgumentException(
            "there is no setting '" + name + "': there are " + String.join(", ", names));
      }
    }
    if (!control && (watch || afterInputSequence.isPresent())) {
      throw new IllegalArgumentException("watch and afterInputSequence are for a SettingsStream");
    }
    return this;
  }

  /** Collects the options. */
  public static final class Builder {
    private String updateId = "";
    private final List<String> reset = new ArrayList<>();
    private ApplyPolicy apply = ApplyPolicy.APPLY_POLICY_NEXT_BOUNDARY;
    private OptionalLong expectedRevision = OptionalLong.empty();
    private boolean validateOnly;
    private OptionalLong afterInputSequence = OptionalLong.empty();
    private boolean watch;

    private Builder() {}

    /**
     * The caller's own id of the change. One that was used before is not applied again.
     *
     * @param id without it the client makes one
     * @return this builder
     */
    public Builder updateId(String id) {
      this.updateId = Objects.requireNonNull(id, "id");
      return this;
    }

    /**
     * Settings to put back to their defaults.
     *
     * @param names by the contract's names, such as {@code voice_id}
     * @return this builder
     */
    public Builder reset(String... names) {
      return reset(Arrays.asList(names));
    }

    /**
     * Settings to put back to their defaults.
     *
     * @param names by the contract's names, such as {@code voice_id}
     * @return this builder
     */
    public Builder reset(Collection<String> names) {
      reset.addAll(names);
      return this;
    }

    /**
     * When to apply the change, and at what cost.
     *
     * @param policy at the next boundary unless set
     * @return this builder
     */
    public Builder apply(ApplyPolicy policy) {
      this.apply = Objects.requireNonNull(policy, "policy");
      return this;
    }

    /**
     * Refuse the change unless the settings are at this revision.
     *
     * @param revision without it: whatever they are
     * @return this builder
     */
    public Builder expectedRevision(long revision) {
      this.expectedRevision = OptionalLong.of(revision);
      return this;
    }

    /**
     * Change nothing, and say what would happen.
     *
     * @param on false unless set
     * @return this builder
     */
    public Builder validateOnly(boolean on) {
      this.validateOnly = on;
      return this;
    }

    /**
     * Only for a {@link SettingsStream}: apply the change right after the session's input of this number.
     *
     * @param sequence without it: by its arrival
     * @return this builder
     */
    public Builder afterInputSequence(long sequence) {
      this.afterInputSequence = OptionalLong.of(sequence);
      return this;
    }

    /**
     * Only for a {@link SettingsStream}: from now on also report everything else that changes on the session.
     *
     * @param on false unless set
     * @return this builder
     */
    public Builder watch(boolean on) {
      this.watch = on;
      return this;
    }

    /**
     * Makes the options.
     *
     * @return what was collected
     */
    public UpdateOptions build() {
      return new UpdateOptions(this);
    }
  }
}
