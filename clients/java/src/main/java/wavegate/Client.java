package wavegate;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.ref.Cleaner;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Objects;
import java.util.concurrent.CancellationException;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import wavegate.speech.v1.CloseSessionRequest;
import wavegate.speech.v1.GetSessionRequest;
import wavegate.speech.v1.GetTraceRequest;
import wavegate.speech.v1.GetTraceResponse;
import wavegate.speech.v1.ListSessionsRequest;
import wavegate.speech.v1.ListSessionsResponse;
import wavegate.speech.v1.ListVoicesRequest;
import wavegate.speech.v1.ListVoicesResponse;
import wavegate.speech.v1.RecognizeRequest;
import wavegate.speech.v1.RecognizeResponse;
import wavegate.speech.v1.Session;
import wavegate.speech.v1.SessionServiceGrpc;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SynthesisServiceGrpc;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.SynthesizeRequest;
import wavegate.speech.v1.SynthesizeResponse;
import wavegate.speech.v1.TraceSpan;
import wavegate.speech.v1.TranscriptionServiceGrpc;
import wavegate.speech.v1.TranscriptionSettings;
import wavegate.speech.v1.UtteranceCompleted;
import wavegate.speech.v1.Voice;
import wavegate.speech.v1.Warning;
import wavegate.speech.v1.WordTimings;

/**
 * A connection to the gateway, and everything that can be asked of it.
 *
 * <pre>{@code
 * try (Client client = Client.connect();
 *     SynthesisSession session = client.synthesize(SynthesisOptions.builder().voice("magnus").build())) {
 *   Utterance utterance = session.say("Hello there.");
 *   for (byte[] audio : utterance.audio()) {
 *     play(audio);
 *   }
 * }
 * }</pre>
 *
 * <p>It connects with the first call, and again by itself after a loss. Any number of threads, calls and sessions may use
 * it at once, over one connection a target. Whatever goes wrong is a {@link WavegateException}. A call that waits can be
 * interrupted: it throws a {@link CancellationException} and keeps the thread's interrupted status.
 *
 * <p>In a program that has OpenTelemetry's API on its class path, the span that is current when a call is made, or a session
 * opened, is the parent of the gateway's spans.
 */
public final class Client implements AutoCloseable {
  static final String VERSION = "0.1.0";

  private static final Duration UNARY_TIMEOUT = Duration.ofSeconds(30);
  private static final Duration TRANSCRIBE_TIMEOUT = Duration.ofMinutes(5);
  private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(2);

  private final Channels channels;
  private final Background background;
  private final Cleaner.Cleanable forgotten;

  private Client(Channels channels, Background background) {
    this.channels = channels;
    this.background = background;
    this.forgotten = Forgotten.watch(this, channels::close);
  }

  /**
   * A client of the gateway that {@code WAVEGATE_TARGET} names, else at 127.0.0.1:50051, with the token that {@code
   * WAVEGATE_TOKEN} holds if it does.
   *
   * @return the client, not connected yet
   */
  public static Client connect() {
    return builder().build();
  }

  /**
   * A client of the gateway at a target, in clear text.
   *
   * @param target {@code HOST:PORT}, or any gRPC name such as {@code dns:///gateway.internal:50051}
   * @return the client, not connected yet
   * @throws IllegalArgumentException for a target that is written wrong
   */
  public static Client connect(String target) {
    return builder().target(target).build();
  }

  /**
   * Begins with the defaults.
   *
   * @return a new builder
   */
  public static Builder builder() {
    return new Builder();
  }

  /**
   * Where the gateway is.
   *
   * @return the target; of several, the one in use
   */
  public String target() {
    return channels.current().target;
  }

  /**
   * How many sessions and streams have a call open, those that are just ending included.
   *
   * @return their number, over all targets
   */
  public int openStreams() {
    return channels.lines();
  }

  // --- sessions of this caller --------------------------------------------------------------------

  /**
   * Opens a session of speech synthesis; returns once the upstream has accepted it. It has no deadline but for its
   * opening.
   *
   * @param options how to open it
   * @return the session; close it
   * @throws GatewayUnavailableException where there is no gateway
   * @throws DeadlineException where opening takes too long
   * @throws WavegateException as the gateway or the upstream says against it
   */
  public SynthesisSession synthesize(SynthesisOptions options) {
    SynthesisCore core = new SynthesisCore(background, channels, options);
    core.open();
    return new SynthesisSession(core, this);
  }

  /**
   * Opens a session of speech synthesis; see {@link #synthesize(SynthesisOptions)}.
   *
   * @param settings the settings to begin with
   * @return the session; close it
   */
  public SynthesisSession synthesize(SynthesisSettings settings) {
    return synthesize(SynthesisOptions.builder().settings(settings).build());
  }

  /**
   * Opens a session of transcription; returns once the upstream has accepted it. It has no deadline but for its opening.
   *
   * @param options how to open it
   * @return the session; close it
   * @throws GatewayUnavailableException where there is no gateway
   * @throws DeadlineException where opening takes too long
   * @throws WavegateException as the gateway or the upstream says against it
   */
  public TranscriptionSession transcribe(TranscriptionOptions options) {
    TranscriptionCore core = new TranscriptionCore(background, channels, options);
    core.open();
    return new TranscriptionSession(core, this);
  }

  /**
   * Opens a session of transcription; see {@link #transcribe(TranscriptionOptions)}.
   *
   * @param settings the settings to begin with
   * @return the session; close it
   */
  public TranscriptionSession transcribe(TranscriptionSettings settings) {
    return transcribe(TranscriptionOptions.builder().settings(settings).build());
  }

  // --- whole texts and recordings -----------------------------------------------------------------

  /**
   * Speaks one text, and returns all of its audio.
   *
   * @param text the text
   * @param options settings and audio format; the rest is for sessions
   * @return the speech
   * @throws WavegateException as the gateway says against it
   */
  public Speech synthesizeOnce(String text, SynthesisOptions options) {
    return synthesizeOnce(text, options, "");
  }

  /**
   * Speaks one text, and returns all of its audio.
   *
   * @param text the text
   * @param options settings and audio format; the rest is for sessions
   * @param requestId the caller's own id of the request, for traces and logs; empty: the gateway makes one
   * @return the speech
   * @throws WavegateException as the gateway says against it
   */
  public Speech synthesizeOnce(String text, SynthesisOptions options, String requestId) {
    ByteArrayOutputStream audio = new ByteArrayOutputStream();
    List<WordTimings.Word> words = new ArrayList<>();
    List<Warning> warnings = new ArrayList<>();
    SessionStarted started = null;
    UtteranceCompleted completed = null;
    try (SpeechStream stream = streamOnce(text, options, requestId)) {
      for (SynthesizeResponse event : stream.events()) {
        switch (event.getEventCase()) {
          case SESSION_STARTED -> started = event.getSessionStarted();
          case AUDIO -> audio.writeBytes(event.getAudio().getAudio().toByteArray());
          case WORD_TIMINGS -> words.addAll(event.getWordTimings().getWordsList());
          case WARNING -> warnings.add(event.getWarning());
          case UTTERANCE_COMPLETED -> completed = event.getUtteranceCompleted();
          default -> {}
        }
      }
    }
    if (started == null) {
      throw Errors.connectionLost("the gateway at " + target() + " did not say what it sends", "", null);
    }
    return new Speech(audio.toByteArray(), started, completed, words, warnings);
  }

  /**
   * Speaks one text, and gives its audio as it is made.
   *
   * @param text the text
   * @param options settings and audio format; the rest is for sessions
   * @return the speech; close it
   */
  public SpeechStream streamOnce(String text, SynthesisOptions options) {
    return streamOnce(text, options, "");
  }

  private SpeechStream streamOnce(String text, SynthesisOptions options, String requestId) {
    SynthesizeRequest.Builder request =
        SynthesizeRequest.newBuilder()
            .setText(Texts.toWire(text))
            .setSettings(options.settings())
            .setRequestId(requestId);
    if (options.audioFormat() != null) {
      request.setAudioFormat(options.audioFormat());
    }
    return new SpeechStream(new OnceCore(background, channels.current(), request.build()), this);
  }

  /**
   * Transcribes a recording of up to 32 MiB, within 300 s. What is larger can be streamed.
   *
   * @param recording a file: WAV, FLAC, MP3 or Ogg, which says itself what it holds
   * @param settings the settings
   * @return the transcript
   * @throws IOException for a file that cannot be read
   * @throws InvalidRequestException for a recording that is too large
   * @throws WavegateException as the gateway says against it
   */
  public RecognizeResponse transcribeOnce(Path recording, TranscriptionSettings settings) throws IOException {
    long size = Files.size(recording);
    if (size > Errors.MAX_MESSAGE_BYTES) {
      throw Errors.requestTooLarge(size, Errors.MAX_MESSAGE_BYTES, "content");
    }
    return transcribeOnce(Files.readAllBytes(recording), settings);
  }

  /**
   * Transcribes a recording of up to 32 MiB, within 300 s. What is larger can be streamed.
   *
   * @param recording what a file of WAV, FLAC, MP3 or Ogg holds
   * @param settings the settings
   * @return the transcript
   * @throws InvalidRequestException for a recording that is too large
   * @throws WavegateException as the gateway says against it
   */
  public RecognizeResponse transcribeOnce(byte[] recording, TranscriptionSettings settings) {
    return transcribeOnce(
        RecognizeRequest.newBuilder().setContent(ByteString.copyFrom(recording)).setSettings(settings).build(),
        TRANSCRIBE_TIMEOUT);
  }

  /**
   * Transcribes what a request names: a recording, raw samples with their format, or an address that the upstream fetches.
   *
   * @param request the contract's request
   * @param timeout how long it may take; null: as long as it takes
   * @return the transcript
   * @throws InvalidRequestException for a request that is too large
   * @throws DeadlineException where it takes too long
   * @throws WavegateException as the gateway says against it
   */
  public RecognizeResponse transcribeOnce(RecognizeRequest request, Duration timeout) {
    int size = request.getSerializedSize();
    if (size > Errors.MAX_MESSAGE_BYTES) {
      throw Errors.requestTooLarge(size, Errors.MAX_MESSAGE_BYTES, "content");
    }
    return unary(TranscriptionServiceGrpc.getRecognizeMethod(), request, timeout);
  }

  /**
   * The voices of the catalogue, asked for page by page.
   *
   * @return the voices; each page may throw a {@link WavegateException}
   */
  public Stream<Voice> listVoices() {
    return listVoices("", "");
  }

  /**
   * Voices of the catalogue, asked for page by page.
   *
   * @param model only voices of this model; empty: of all
   * @param languageCode only voices that speak this language, BCP-47; empty: any
   * @return the voices; each page may throw a {@link WavegateException}
   */
  public Stream<Voice> listVoices(String model, String languageCode) {
    ListVoicesRequest.Builder request =
        ListVoicesRequest.newBuilder().setModel(model).setLanguageCode(languageCode);
    return pages(
        token -> {
          ListVoicesResponse page =
              unary(
                      SynthesisServiceGrpc.getListVoicesMethod(),
                      request.setPageToken(token).build(),
                      UNARY_TIMEOUT);
          return new Page<>(page.getVoicesList(), page.getNextPageToken());
        });
  }

  // --- control over live sessions -----------------------------------------------------------------

  /**
   * Opens a stream for changing the settings of live sessions. That there is no gateway shows with the first update.
   *
   * @return the stream; close it
   */
  public SettingsStream settingsStream() {
    ControlCore core = new ControlCore(background);
    core.open(channels.current());
    return new SettingsStream(core, this);
  }

  /**
   * One live session.
   *
   * @param sessionId the session
   * @return what it is doing
   * @throws SessionNotFoundException where this caller has no live session of that id
   */
  public Session getSession(String sessionId) {
    return unary(
            SessionServiceGrpc.getGetSessionMethod(),
            GetSessionRequest.newBuilder().setSessionId(sessionId).build(),
            UNARY_TIMEOUT)
        .getSession();
  }

  /**
   * The caller's live sessions on the gateway in use, the oldest first, asked for page by page.
   *
   * @return the sessions; each page may throw a {@link WavegateException}
   */
  public Stream<Session> listSessions() {
    return listSessions(Map.of());
  }

  /**
   * The caller's live sessions on the gateway in use that have all of these labels, asked for page by page.
   *
   * @param labels names and values
   * @return the sessions; each page may throw a {@link WavegateException}
   */
  public Stream<Session> listSessions(Map<String, String> labels) {
    ListSessionsRequest.Builder request = ListSessionsRequest.newBuilder().putAllLabels(labels);
    return pages(
        token -> {
          ListSessionsResponse page =
              unary(
                      SessionServiceGrpc.getListSessionsMethod(),
                      request.setPageToken(token).build(),
                      UNARY_TIMEOUT);
          return new Page<>(page.getSessionsList(), page.getNextPageToken());
        });
  }

  /**
   * Ends a live session.
   *
   * @param sessionId the session
   * @param discard whether it ends at once; else it finishes what is queued
   * @throws SessionNotFoundException where this caller has no live session of that id
   */
  public void closeSession(String sessionId, boolean discard) {
    unary(
            SessionServiceGrpc.getCloseSessionMethod(),
            CloseSessionRequest.newBuilder().setSessionId(sessionId).setDiscard(discard).build(),
            UNARY_TIMEOUT);
  }

  // --- traces -------------------------------------------------------------------------------------

  /**
   * The spans of a trace that the gateway still holds: the newest of this caller's calls. One that has not ended is not
   * among them.
   *
   * @param traceId 32 hex digits, as {@code session_started} names it
   * @return the spans, in the order in which they ended
   * @throws SessionNotFoundException where none is held
   */
  public List<TraceSpan> getTrace(String traceId) {
    return trace(GetTraceRequest.newBuilder().setTraceId(traceId).build());
  }

  /**
   * The spans of all traces of a session that the gateway still holds; see {@link #getTrace(String)}.
   *
   * @param sessionId the session, live or ended
   * @return the spans, in the order in which they ended
   * @throws SessionNotFoundException where none is held
   */
  public List<TraceSpan> getTraceOfSession(String sessionId) {
    return trace(GetTraceRequest.newBuilder().setSessionId(sessionId).build());
  }

  /** One request, one answer. */
  private <Q, R> R unary(MethodDescriptor<Q, R> method, Q request, Duration timeout) {
    return Forgotten.holding(this, () -> channels.current().unary(method, request, timeout));
  }

  private List<TraceSpan> trace(GetTraceRequest request) {
    return Forgotten.holding(this, () -> traceOf(request));
  }

  private List<TraceSpan> traceOf(GetTraceRequest request) {
    GatewayChannel channel = channels.current();
    List<TraceSpan> spans = new ArrayList<>();
    try {
      return channel.inUse(
          () -> {
            Iterator<GetTraceResponse> responses =
                channel.serverStreaming(SessionServiceGrpc.getGetTraceMethod(), request, UNARY_TIMEOUT);
            while (responses.hasNext()) {
              spans.addAll(responses.next().getSpansList());
            }
            return List.copyOf(spans);
          });
    } catch (StatusRuntimeException e) {
      throw channel.failed(e.getStatus(), e.getTrailers(), !spans.isEmpty());
    }
  }

  // --- end ----------------------------------------------------------------------------------------

  /** Ends every call and closes every connection. Sessions that are open end at once. A second call does nothing. */
  @Override
  public void close() {
    forgotten.clean();
    channels.close();
    channels.awaitClosed(CLOSE_TIMEOUT);
  }

  @Override
  public String toString() {
    return "Client[" + target() + "]";
  }

  // --- pages --------------------------------------------------------------------------------------

  private record Page<T>(List<T> items, String nextToken) {}

  private interface Pages<T> {
    Page<T> get(String token);
  }

  private static <T> Stream<T> pages(Pages<T> pages) {
    Iterator<T> items =
        new Iterator<>() {
          private Iterator<T> page = List.<T>of().iterator();
          private String token = "";
          private boolean last;

          @Override
          public boolean hasNext() {
            while (!page.hasNext() && !last) {
              Page<T> next = pages.get(token);
              page = next.items().iterator();
              token = next.nextToken();
              last = token.isEmpty();
            }
            return page.hasNext();
          }

          @Override
          public T next() {
            if (!hasNext()) {
              throw new NoSuchElementException();
            }
            return page.next();
          }
        };
    Iterable<T> iterable = () -> items;
    return StreamSupport.stream(iterable.spliterator(), false);
  }

  // --- building -----------------------------------------------------------------------------------

  /** Says where the gateway is, and how to connect to it. */
  public static final class Builder {
    private final LinkedHashSet<String> targets = new LinkedHashSet<>();
    private boolean tls;
    private ByteString rootCertificates;
    private ByteString privateKey;
    private ByteString certificateChain;
    private String token;
    private final List<Map.Entry<String, String>> metadata = new ArrayList<>();
    private String loadBalancing;
    private final List<Consumer<? super ManagedChannelBuilder<?>>> customizers = new ArrayList<>();
    private Executor executor;

    private Builder() {}

    /**
     * Where the gateway is; the only target.
     *
     * @param target {@code HOST:PORT}, without a scheme in front, or any gRPC name such as {@code
     *     dns:///gateway.internal:50051}; with TLS the port may be left out and is 443
     * @return this builder
     */
    public Builder target(String target) {
      targets.clear();
      targets.add(Objects.requireNonNull(target, "target"));
      return this;
    }

    /**
     * Several gateways: a session opens on the first that takes it, and moves to another one when its own shuts down.
     * Calls that are no session go to the one in use.
     *
     * @param several targets, in the order of preference
     * @return this builder
     */
    public Builder targets(String... several) {
      return targets(Arrays.asList(several));
    }

    /**
     * Several gateways; see {@link #targets(String...)}.
     *
     * @param several targets, in the order of preference
     * @return this builder
     */
    public Builder targets(Collection<String> several) {
      targets.clear();
      targets.addAll(several);
      return this;
    }

    /**
     * Encrypts, and trusts the authorities that this Java trusts unless {@link #rootCertificates(byte[])} says otherwise.
     *
     * @return this builder
     */
    public Builder tls() {
      this.tls = true;
      return this;
    }

    /**
     * The authorities to trust. Encrypts.
     *
     * @param pem certificates in PEM
     * @return this builder
     */
    public Builder rootCertificates(byte[] pem) {
      this.rootCertificates = ByteString.copyFrom(pem);
      return tls();
    }

    /**
     * This client's own certificate, for a gateway that asks for one (mutual TLS). Encrypts.
     *
     * @param key the private key in PEM, PKCS #8 ({@code BEGIN PRIVATE KEY}), not encrypted
     * @param chain the certificates in PEM, this client's own first
     * @return this builder
     */
    public Builder clientCertificate(byte[] key, byte[] chain) {
      this.privateKey = ByteString.copyFrom(key);
      this.certificateChain = ByteString.copyFrom(chain);
      return tls();
    }

    /**
     * The token that goes with every call, as {@code authorization: Bearer}.
     *
     * @param secret printable ASCII; without it: what {@code WAVEGATE_TOKEN} holds; empty: none
     * @return this builder
     */
    public Builder token(String secret) {
      this.token = Objects.requireNonNull(secret, "secret");
      return this;
    }

    /**
     * Metadata that goes with every call.
     *
     * @param name in lower case, not {@code -bin} at the end
     * @param value printable ASCII
     * @return this builder
     */
    public Builder metadata(String name, String value) {
      metadata.add(Map.entry(name, value));
      return this;
    }

    /**
     * Spreads calls over all addresses that a name has, such as {@code dns:///gateways.internal:50051}. Without it, all
     * calls go to the first address that answers.
     *
     * @return this builder
     */
    public Builder roundRobin() {
      this.loadBalancing = "round_robin";
      return this;
    }

    /**
     * Where the caller's own code runs that the client calls: iterators behind {@code say}, which may block, and
     * subscribers. A thread is borrowed for as long as there is something to do.
     *
     * @param threads such as one of virtual threads; it must not run on the calling thread. Without it: threads of the
     *     client's own, as many as it takes, which end when they are idle
     * @return this builder
     */
    public Builder executor(Executor threads) {
      this.executor = Objects.requireNonNull(threads, "threads");
      return this;
    }

    /**
     * Changes how gRPC connects, on top of what this client sets: interceptors, another authority, ...
     *
     * @param change is given each channel's builder, before it is built
     * @return this builder
     */
    public Builder channel(Consumer<? super ManagedChannelBuilder<?>> change) {
      customizers.add(Objects.requireNonNull(change, "change"));
      return this;
    }

    /**
     * Makes the client. Connects to nothing yet.
     *
     * @return the client; close it
     * @throws IllegalArgumentException for a target that is written wrong, certificates that cannot be read, or a token or
     *     metadata that no header takes
     */
    public Client build() {
      if (rootCertificates != null
          && !rootCertificates.toString(StandardCharsets.ISO_8859_1).contains("-----BEGIN ")) {
        // Nothing would be trusted by it, and nothing is sent in the clear because of it.
        throw new IllegalArgumentException("rootCertificates holds no certificate (PEM)");
      }
      String secret = token != null ? token : System.getenv("WAVEGATE_TOKEN");
      if (secret != null) {
        checkHeader("the token", secret);
      }
      for (Map.Entry<String, String> entry : metadata) {
        GatewayChannel.key(entry.getKey());
        checkHeader("the metadata " + entry.getKey(), entry.getValue());
      }
      GatewayChannel.Settings settings =
          new GatewayChannel.Settings(
              tls,
              rootCertificates,
              privateKey,
              certificateChain,
              secret == null || secret.isEmpty() ? null : secret,
              List.copyOf(metadata),
              loadBalancing,
              List.copyOf(customizers));
      List<GatewayChannel> channels = new ArrayList<>();
      for (String target : targets.isEmpty() ? List.of(defaultTarget()) : targets) {
        channels.add(new GatewayChannel(target, settings));
      }
      channels.get(0).check();
      return new Client(new Channels(channels), new Background(executor));
    }

    private static String defaultTarget() {
      String named = System.getenv("WAVEGATE_TARGET");
      return named == null || named.isEmpty() ? Targets.DEFAULT : named;
    }

    /** Refuses what no header takes, without repeating it. */
    private static void checkHeader(String what, String value) {
      for (int at = 0; at < value.length(); at++) {
        char c = value.charAt(at);
        if (c == '\n' || c == '\r') {
          throw new IllegalArgumentException(what + " holds a line break");
        }
        if (c < ' ' || c > '~') {
          throw new IllegalArgumentException(
              what + " holds a character that is not printable ASCII (at character " + at + ")");
        }
      }
    }
  }
}
