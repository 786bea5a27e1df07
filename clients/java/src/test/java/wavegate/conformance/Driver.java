package wavegate.conformance;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.Scope;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Stream;
import wavegate.Client;
import wavegate.SessionChange;
import wavegate.SessionEvent;
import wavegate.SessionMoved;
import wavegate.SessionOptions;
import wavegate.SessionResumed;
import wavegate.SettingsStream;
import wavegate.Speech;
import wavegate.SynthesisOptions;
import wavegate.SynthesisSession;
import wavegate.TranscriptionOptions;
import wavegate.TranscriptionSession;
import wavegate.UpdateOptions;
import wavegate.Utterance;
import wavegate.UtteranceOutcome;
import wavegate.WavegateException;
import wavegate.speech.v1.ApplyPolicy;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.RecognizeRequest;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.SynthesisSettings;
import wavegate.speech.v1.TranscriptionSettings;

/** The driver of the conformance suite: does with the client's public API what the judge says, in JSON lines. */
public final class Driver {
  private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
  private static final JsonFormat.TypeRegistry TYPES =
      JsonFormat.TypeRegistry.newBuilder()
          .add(
              List.of(
                  ErrorInfo.getDescriptor(),
                  RetryInfo.getDescriptor(),
                  BadRequest.getDescriptor(),
                  QuotaFailure.getDescriptor()))
          .build();
  private static final JsonFormat.Printer PRINTER =
      JsonFormat.printer()
          .usingTypeRegistry(TYPES)
          .preservingProtoFieldNames()
          .omittingInsignificantWhitespace();
  private static final JsonFormat.Parser PARSER = JsonFormat.parser().usingTypeRegistry(TYPES);

  /** How long the next command waits for one that should be quick, so that commands take effect in their order. */
  private static final long IN_ORDER_MS = 50;

  private static final Set<String> SLOW =
      Set.of(
          "open_synthesis",
          "open_transcription",
          "wait",
          "read_utterance",
          "synthesize_once",
          "transcribe_once",
          "list_voices",
          "get_trace",
          "leaks");

  private final PrintStream out;
  private final Map<String, Client> clients = new ConcurrentHashMap<>();
  private final Map<String, Open> sessions = new ConcurrentHashMap<>();
  private final Map<String, SettingsStream> controls = new ConcurrentHashMap<>();

  private Driver(PrintStream out) {
    this.out = out;
  }

  /** The caller's own exception. */
  private static final class CallerFailure extends RuntimeException {
    private static final long serialVersionUID = 1;

    CallerFailure(String message) {
      super(message);
    }
  }

  /** A session that is open here, of one kind or the other, and whoever reads its events. */
  private static final class Open {
    final SynthesisSession synthesis;
    final TranscriptionSession transcription;
    final Map<String, Utterance> utterances = new ConcurrentHashMap<>();
    Thread reader;

    Open(SynthesisSession synthesis, TranscriptionSession transcription) {
      this.synthesis = synthesis;
      this.transcription = transcription;
    }

    Iterable<? extends SessionEvent> events() {
      return synthesis != null ? synthesis.events() : transcription.events();
    }
  }

  /**
   * Speaks with the judge on standard input and output.
   *
   * @param args none
   * @throws IOException where standard input cannot be read
   */
  public static void main(String[] args) throws IOException {
    PrintStream out = System.out;
    System.setOut(System.err); // standard output is the judge's
    new Driver(out).serve();
  }

  private void serve() throws IOException {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      if (line.isBlank()) {
        continue;
      }
      JsonObject command = JsonParser.parseString(line).getAsJsonObject();
      String name = string(command, "do", "");
      if (name.equals("quit")) {
        answer(command, "ok", new JsonObject());
        break;
      }
      CountDownLatch done = new CountDownLatch(1);
      Thread thread =
          new Thread(
              () -> {
                answer(command, name);
                done.countDown();
              },
              "driver-" + name);
      thread.setDaemon(true);
      thread.start();
      if (!SLOW.contains(name)) {
        try {
          done.await(IN_ORDER_MS, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
          break;
        }
      }
    }
    out.flush();
    Runtime.getRuntime().halt(0);
  }

  private void answer(JsonObject command, String name) {
    try {
      answer(command, "ok", run(name, command));
    } catch (Throwable e) {
      answer(command, "error", error(e));
    }
  }

  private void answer(JsonObject command, String key, JsonElement value) {
    JsonObject line = new JsonObject();
    line.add("id", command.get("id"));
    line.add(key, value);
    write(line);
  }

  private void write(JsonObject line) {
    byte[] bytes = (GSON.toJson(line) + "\n").getBytes(StandardCharsets.UTF_8);
    synchronized (out) {
      out.write(bytes, 0, bytes.length);
      out.flush();
    }
  }

  // --- commands -----------------------------------------------------------------------------------

  private JsonElement run(String name, JsonObject args) throws Exception {
    return switch (name) {
      case "hello" -> hello();
      case "connect" -> connect(args);
      case "close_client" -> {
        Client client = clients.remove(string(args, "client", ""));
        if (client != null) {
          client.close();
        }
        yield none();
      }
      case "open_synthesis" -> openSynthesis(args);
      case "open_transcription" -> openTranscription(args);
      case "say" ->
          said(args, session -> session.say(string(args, "text", ""), string(args, "utterance_id", null)));
      case "say_tokens" ->
          said(args, session -> session.say(tokens(args), string(args, "utterance_id", null)));
      case "send_text" ->
          said(
              args,
              session ->
                  session.sendText(
                      string(args, "text", ""),
                      string(args, "utterance_id", null),
                      flag(args, "end_utterance", false)));
      case "flush" -> {
        speaking(args).flush(string(args, "utterance_id", null));
        yield none();
      }
      case "end_utterance" -> {
        speaking(args).endUtterance(string(args, "utterance_id", null));
        yield none();
      }
      case "cancel" -> {
        speaking(args).cancel(string(args, "utterance_id", null), duration(args, "playback_offset"));
        yield none();
      }
      case "report_playback" -> {
        Duration offset = duration(args, "playback_offset");
        speaking(args)
            .reportPlayback(string(args, "utterance_id", ""), offset == null ? Duration.ZERO : offset);
        yield none();
      }
      case "wait" -> outcome(utterance(args).await());
      case "read_utterance" -> object("audio", base64(utterance(args).read()));
      case "send_audio" -> sendAudio(args);
      case "finalize" -> object("transcript", json(listening(args).finalizeTurn()));
      case "update_settings" -> updateSettings(args);
      case "end" -> {
        Open open = open(args);
        if (open.synthesis != null) {
          open.synthesis.end();
        } else {
          open.transcription.end();
        }
        yield none();
      }
      case "discard" -> {
        Open open = open(args);
        if (open.synthesis != null) {
          open.synthesis.discard();
        } else {
          open.transcription.discard();
        }
        yield none();
      }
      case "close" -> {
        Open open = open(args);
        if (open.synthesis != null) {
          open.synthesis.close();
        } else {
          open.transcription.close();
        }
        yield none();
      }
      case "abort" -> {
        Open open = open(args);
        if (open.synthesis != null) {
          open.synthesis.abort();
        } else {
          open.transcription.abort();
        }
        yield none();
      }
      case "drop" -> drop(args);
      case "events" -> {
        read(string(args, "session", ""), open(args), flag(args, "on", true));
        yield none();
      }
      case "synthesize_once" -> synthesizeOnce(args);
      case "transcribe_once" -> transcribeOnce(args);
      case "list_voices" ->
          object(
              "voices",
              all(client(args).listVoices(string(args, "model", ""), string(args, "language_code", ""))));
      case "get_session" ->
          object("session", json(client(args).getSession(string(args, "session_id", ""))));
      case "close_session" -> {
        client(args).closeSession(string(args, "session_id", ""), flag(args, "discard", false));
        yield none();
      }
      case "list_sessions" ->
          object("sessions", all(client(args).listSessions(strings(args, "labels"))));
      case "get_trace" -> {
        String traceId = string(args, "trace_id", "");
        yield object(
            "spans",
            all(
                (traceId.isEmpty()
                        ? client(args).getTraceOfSession(string(args, "session_id", ""))
                        : client(args).getTrace(traceId))
                    .stream()));
      }
      case "open_control" -> openControl(args);
      case "control_update" -> controlUpdate(args);
      case "close_control" -> {
        SettingsStream control = controls.remove(string(args, "control", ""));
        if (control != null) {
          control.close();
        }
        yield none();
      }
      case "leaks" -> leaks();
      default -> throw new UnsupportedOperationException(name);
    };
  }

  private static JsonObject hello() {
    JsonObject hello = new JsonObject();
    hello.addProperty("language", "java");
    hello.addProperty("version", "0.1.0");
    hello.add("features", new JsonArray());
    return hello;
  }

  private JsonElement connect(JsonObject args) {
    Client.Builder builder = Client.builder();
    List<String> targets = new ArrayList<>();
    if (given(args, "targets")) {
      args.getAsJsonArray("targets").forEach(target -> targets.add(target.getAsString()));
      builder.targets(targets);
    }
    if (given(args, "tls")) {
      JsonObject tls = args.getAsJsonObject("tls");
      builder.tls();
      if (given(tls, "root_certificates")) {
        builder.rootCertificates(bytes(tls, "root_certificates"));
      }
      if (given(tls, "private_key")) {
        builder.clientCertificate(bytes(tls, "private_key"), bytes(tls, "certificate_chain"));
      }
    }
    if (given(args, "token")) {
      builder.token(string(args, "token", ""));
    }
    strings(args, "metadata").forEach(builder::metadata);
    clients.put(string(args, "client", ""), builder.build());
    return none();
  }

  private static byte[] bytes(JsonObject args, String name) {
    return string(args, name, "").getBytes(StandardCharsets.UTF_8);
  }

  private <B extends SessionOptions.Builder<B>> B common(JsonObject args, B builder) throws IOException {
    if (given(args, "audio_format")) {
      AudioFormat.Builder format = AudioFormat.newBuilder();
      merge(args.get("audio_format"), format);
      builder.audioFormat(format.build());
    }
    builder.labels(strings(args, "labels"));
    builder.clientSessionId(string(args, "client_session_id", ""));
    if (given(args, "resume_window")) {
      builder.resumeWindow(duration(args, "resume_window"));
    }
    if (given(args, "open_timeout")) {
      builder.openTimeout(duration(args, "open_timeout"));
    }
    return builder.move(flag(args, "move", true));
  }

  private JsonElement openSynthesis(JsonObject args) throws IOException {
    SynthesisOptions.Builder options = common(args, SynthesisOptions.builder());
    SynthesisSettings.Builder settings = SynthesisSettings.newBuilder();
    merge(args.get("settings"), settings);
    options.settings(settings.build());
    if (given(args, "max_audio_lead")) {
      options.maxAudioLead(duration(args, "max_audio_lead"));
    }
    SynthesisSession session;
    try (Scope scope = callersContext(args).makeCurrent()) {
      session = client(args).synthesize(options.build());
    }
    return opened(args, new Open(session, null), session.started());
  }

  private JsonElement openTranscription(JsonObject args) throws IOException {
    TranscriptionOptions.Builder options = common(args, TranscriptionOptions.builder());
    TranscriptionSettings.Builder settings = TranscriptionSettings.newBuilder();
    merge(args.get("settings"), settings);
    options.settings(settings.build());
    if (given(args, "keep_alive")) {
      options.keepAlive(flag(args, "keep_alive", true));
    }
    if (given(args, "initial_audio_offset")) {
      options.initialAudioOffset(duration(args, "initial_audio_offset"));
    }
    TranscriptionSession session;
    try (Scope scope = callersContext(args).makeCurrent()) {
      session = client(args).transcribe(options.build());
    }
    return opened(args, new Open(null, session), session.started());
  }

  private JsonElement opened(JsonObject args, Open open, Message started) {
    String name = string(args, "session", "");
    sessions.put(name, open);
    if (flag(args, "events", true)) {
      read(name, open, true);
    }
    return object("session_started", json(started));
  }

  /** The context with the span that the judge names, as a span of the caller's own would be. */
  private static Context callersContext(JsonObject args) {
    String traceparent = string(args, "traceparent", "");
    if (traceparent.isEmpty()) {
      return Context.current();
    }
    String[] parts = traceparent.split("-", -1);
    return Context.current()
        .with(
            Span.wrap(
                SpanContext.create(
                    parts[1], parts[2], TraceFlags.fromHex(parts[3], 0), TraceState.getDefault())));
  }

  private JsonElement said(JsonObject args, Function<SynthesisSession, Utterance> say) {
    Open open = open(args);
    Utterance utterance = say.apply(speaking(args));
    open.utterances.put(utterance.id(), utterance);
    JsonObject ok = new JsonObject();
    ok.addProperty("utterance_id", utterance.id());
    return ok;
  }

  private static Iterator<String> tokens(JsonObject args) {
    Iterator<JsonElement> tokens = args.getAsJsonArray("tokens").iterator();
    Duration interval = duration(args, "interval");
    int failAfter = given(args, "fail_after") ? args.get("fail_after").getAsInt() : -1;
    return new Iterator<>() {
      private int count;

      @Override
      public boolean hasNext() {
        if (count == failAfter) {
          throw new CallerFailure("the iterator failed after " + failAfter);
        }
        return tokens.hasNext();
      }

      @Override
      public String next() {
        if (!hasNext()) {
          throw new NoSuchElementException();
        }
        if (interval != null && count > 0) {
          try {
            Thread.sleep(interval.toMillis());
          } catch (InterruptedException e) {
            throw new CancellationException("interrupted");
          }
        }
        count++;
        return tokens.next().getAsString();
      }
    };
  }

  private static JsonElement outcome(UtteranceOutcome outcome) {
    return outcome.wasCancelled()
        ? object("utterance_cancelled", json(outcome.cancelled().orElseThrow()))
        : object("utterance_completed", json(outcome.completed().orElseThrow()));
  }

  private JsonElement sendAudio(JsonObject args) throws IOException, InterruptedException {
    TranscriptionSession session = listening(args);
    byte[] content = Base64.getDecoder().decode(string(args, "content", ""));
    Double pace = number(args, "pace");
    Double piece = number(args, "piece");
    if (pace == null && piece == null) {
      session.sendAudio(content);
      return none();
    }
    if (piece == null) {
      session.streamAudioPaced(new ByteArrayInputStream(content), pace);
      return none();
    }
    AudioFormat format = session.started().getAudioFormat();
    int width = format.getEncoding() == AudioEncoding.AUDIO_ENCODING_LINEAR32 ? 4 : 2;
    if (format.getEncoding() == AudioEncoding.AUDIO_ENCODING_MULAW
        || format.getEncoding() == AudioEncoding.AUDIO_ENCODING_ALAW) {
      width = 1;
    }
    int size = Math.max(width, width * (int) (format.getSampleRateHertz() * piece));
    long due = System.nanoTime();
    for (int at = 0; at < content.length; at += size) {
      byte[] part = Arrays.copyOfRange(content, at, Math.min(content.length, at + size));
      if (pace != null) {
        due += (long) (1e9 * part.length / width / format.getSampleRateHertz() / pace);
        TimeUnit.NANOSECONDS.sleep(due - System.nanoTime());
      }
      session.sendAudio(part);
    }
    return none();
  }

  private UpdateOptions updateOptions(JsonObject args) {
    UpdateOptions.Builder options =
        UpdateOptions.builder()
            .updateId(string(args, "update_id", ""))
            .validateOnly(flag(args, "validate_only", false))
            .watch(flag(args, "watch", false));
    if (given(args, "reset")) {
      args.getAsJsonArray("reset").forEach(name -> options.reset(name.getAsString()));
    }
    if (given(args, "apply")) {
      options.apply(
          ApplyPolicy.valueOf("APPLY_POLICY_" + string(args, "apply", "").toUpperCase(Locale.ROOT)));
    }
    if (given(args, "expected_revision")) {
      options.expectedRevision(args.get("expected_revision").getAsLong());
    }
    if (given(args, "after_input_sequence")) {
      options.afterInputSequence(args.get("after_input_sequence").getAsLong());
    }
    return options.build();
  }

  private JsonElement updateSettings(JsonObject args) throws IOException {
    Open open = open(args);
    SettingsAck ack;
    if (open.synthesis != null) {
      SynthesisSettings.Builder settings = SynthesisSettings.newBuilder();
      merge(args.get("settings"), settings);
      ack = open.synthesis.updateSettings(settings.build(), updateOptions(args));
    } else {
      TranscriptionSettings.Builder settings = TranscriptionSettings.newBuilder();
      merge(args.get("settings"), settings);
      ack = open.transcription.updateSettings(settings.build(), updateOptions(args));
    }
    return object("settings_ack", json(ack));
  }

  private JsonElement drop(JsonObject args) throws InterruptedException {
    String name = string(args, "session", "");
    Open open = sessions.remove(name);
    if (open != null) {
      stopReading(open);
      open = null;
    }
    for (int round = 0; round < 5; round++) {
      System.gc();
      Thread.sleep(50);
    }
    return none();
  }

  private void read(String name, Open open, boolean on) {
    synchronized (open) {
      if (on && open.reader == null) {
        open.reader = new Thread(() -> readAll(name, open.events()), "driver-reader");
        open.reader.setDaemon(true);
        open.reader.start();
      } else if (!on) {
        stopReading(open);
      }
    }
  }

  private static void stopReading(Open open) {
    synchronized (open) {
      if (open.reader != null) {
        open.reader.interrupt();
        try {
          open.reader.join(2000);
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
        }
        open.reader = null;
      }
    }
  }

  private void readAll(String name, Iterable<? extends SessionEvent> events) {
    JsonObject line = new JsonObject();
    line.addProperty("session", name);
    try {
      for (SessionEvent event : events) {
        JsonObject told = new JsonObject();
        told.addProperty("session", name);
        told.add("event", object(event.kind().name().toLowerCase(Locale.ROOT), value(event.value())));
        write(told);
      }
      line.add("over", JsonNull.INSTANCE);
    } catch (CancellationException e) {
      return; // the judge wants no more events
    } catch (RuntimeException e) {
      line.add("over", error(e));
    }
    write(line);
  }

  private static JsonElement value(Object value) {
    if (value instanceof SessionResumed resumed) {
      JsonObject told = new JsonObject();
      told.addProperty("session_id", resumed.sessionId());
      told.addProperty("outage", resumed.outage().toNanos() / 1e9);
      told.addProperty("attempts", resumed.attempts());
      return told;
    }
    if (value instanceof SessionMoved moved) {
      JsonObject told = new JsonObject();
      told.add("session_started", json(moved.started()));
      told.addProperty("previous_session_id", moved.previousSessionId());
      told.addProperty("target", moved.target());
      told.addProperty("lost_audio", moved.lostAudio().toNanos() / 1e9);
      return told;
    }
    return json((Message) value);
  }

  private JsonElement synthesizeOnce(JsonObject args) throws IOException {
    SynthesisOptions.Builder options = common(args, SynthesisOptions.builder());
    SynthesisSettings.Builder settings = SynthesisSettings.newBuilder();
    merge(args.get("settings"), settings);
    options.settings(settings.build());
    Speech speech =
        client(args)
            .synthesizeOnce(string(args, "text", ""), options.build(), string(args, "request_id", ""));
    JsonObject ok = new JsonObject();
    ok.add("audio", base64(speech.audio()));
    ok.add("session_started", json(speech.started()));
    ok.add("utterance_completed", json(speech.completed()));
    ok.add("warnings", all(speech.warnings().stream()));
    ok.add("words", all(speech.words().stream()));
    return ok;
  }

  private JsonElement transcribeOnce(JsonObject args) throws IOException {
    RecognizeRequest.Builder request =
        RecognizeRequest.newBuilder().setRequestId(string(args, "request_id", ""));
    if (given(args, "content")) {
      request.setContent(ByteString.copyFrom(Base64.getDecoder().decode(string(args, "content", ""))));
    }
    if (given(args, "uri")) {
      request.setUri(string(args, "uri", ""));
    }
    if (given(args, "audio_format")) {
      merge(args.get("audio_format"), request.getAudioFormatBuilder());
    }
    if (given(args, "settings")) {
      merge(args.get("settings"), request.getSettingsBuilder());
    }
    Duration timeout = given(args, "timeout") ? duration(args, "timeout") : Duration.ofMinutes(5);
    return json(client(args).transcribeOnce(request.build(), timeout));
  }

  private JsonElement openControl(JsonObject args) {
    String name = string(args, "control", "");
    SettingsStream control = client(args).settingsStream();
    controls.put(name, control);
    Iterable<SessionChange> changes = control.changes();
    Thread reader =
        new Thread(
            () -> {
              try {
                for (SessionChange change : changes) {
                  JsonObject line = new JsonObject();
                  line.addProperty("control", name);
                  line.addProperty("session_id", change.sessionId());
                  JsonObject event = json(change.response()).getAsJsonObject();
                  event.remove("session_id");
                  line.add("event", event);
                  write(line);
                }
              } catch (RuntimeException e) {
                return; // whoever updates or closes hears of it
              }
            },
            "driver-control");
    reader.setDaemon(true);
    reader.start();
    return none();
  }

  private JsonElement controlUpdate(JsonObject args) throws IOException {
    SettingsStream control = controls.get(string(args, "control", ""));
    String sessionId = string(args, "session_id", "");
    SettingsAck ack;
    if (given(args, "transcription")) {
      TranscriptionSettings.Builder settings = TranscriptionSettings.newBuilder();
      merge(args.get("transcription"), settings);
      ack = control.updateTranscription(sessionId, settings.build(), updateOptions(args));
    } else {
      SynthesisSettings.Builder settings = SynthesisSettings.newBuilder();
      merge(args.get("synthesis"), settings);
      ack = control.updateSynthesis(sessionId, settings.build(), updateOptions(args));
    }
    return object("ack", json(ack));
  }

  // --- leaks --------------------------------------------------------------------------------------

  private JsonElement leaks() throws InterruptedException {
    List<String> leaked = List.of();
    for (int round = 0; round < 50; round++) {
      leaked = leakedNow();
      if (leaked.isEmpty()) {
        break;
      }
      System.gc();
      Thread.sleep(100);
    }
    JsonArray lines = new JsonArray();
    leaked.forEach(lines::add);
    return object("leaked", lines);
  }

  private List<String> leakedNow() {
    List<String> leaked = new ArrayList<>();
    long open =
        sessions.values().stream()
                .filter(
                    session ->
                        session.synthesis != null
                            ? session.synthesis.ended().isEmpty()
                            : session.transcription.ended().isEmpty())
                .count()
            + controls.size();
    int streams = clients.values().stream().mapToInt(Client::openStreams).sum();
    if (streams > open) {
      leaked.add(streams + " calls are open, for " + open + " sessions and streams");
    }
    for (Thread thread : Thread.getAllStackTraces().keySet()) {
      String name = thread.getName();
      boolean ours = name.startsWith("wavegate-worker-") || name.startsWith("wavegate-clock-");
      boolean transport = name.startsWith("grpc-") && clients.isEmpty();
      if ((ours && open == 0) || transport) {
        leaked.add("thread " + name);
      }
    }
    return leaked;
  }

  // --- objects ------------------------------------------------------------------------------------

  private Client client(JsonObject args) {
    Client client = clients.get(string(args, "client", ""));
    if (client == null) {
      throw new IllegalArgumentException("there is no client " + args.get("client"));
    }
    return client;
  }

  private Open open(JsonObject args) {
    Open open = sessions.get(string(args, "session", ""));
    if (open == null) {
      throw new IllegalArgumentException("there is no session " + args.get("session"));
    }
    return open;
  }

  private SynthesisSession speaking(JsonObject args) {
    return java.util.Objects.requireNonNull(open(args).synthesis, "the session does not speak");
  }

  private TranscriptionSession listening(JsonObject args) {
    return java.util.Objects.requireNonNull(open(args).transcription, "the session does not listen");
  }

  private Utterance utterance(JsonObject args) {
    Utterance utterance = open(args).utterances.get(string(args, "utterance_id", ""));
    if (utterance == null) {
      throw new IllegalArgumentException("there is no utterance " + args.get("utterance_id"));
    }
    return utterance;
  }

  // --- JSON ---------------------------------------------------------------------------------------

  private static boolean given(JsonObject args, String name) {
    return args.has(name) && !args.get(name).isJsonNull();
  }

  private static String string(JsonObject args, String name, String otherwise) {
    return given(args, name) ? args.get(name).getAsString() : otherwise;
  }

  private static boolean flag(JsonObject args, String name, boolean otherwise) {
    return given(args, name) ? args.get(name).getAsBoolean() : otherwise;
  }

  private static Double number(JsonObject args, String name) {
    return given(args, name) ? args.get(name).getAsDouble() : null;
  }

  private static Duration duration(JsonObject args, String name) {
    Double seconds = number(args, name);
    return seconds == null ? null : Duration.ofNanos(Math.round(seconds * 1e9));
  }

  private static Map<String, String> strings(JsonObject args, String name) {
    Map<String, String> strings = new HashMap<>();
    if (given(args, name)) {
      args.getAsJsonObject(name).entrySet().forEach(e -> strings.put(e.getKey(), e.getValue().getAsString()));
    }
    return strings;
  }

  private static void merge(JsonElement json, Message.Builder builder) throws IOException {
    if (json != null && !json.isJsonNull()) {
      PARSER.merge(GSON.toJson(json), builder);
    }
  }

  private static JsonElement json(Message message) {
    try {
      return JsonParser.parseString(PRINTER.print(message));
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalStateException(e);
    }
  }

  private static JsonElement base64(byte[] bytes) {
    return new com.google.gson.JsonPrimitive(Base64.getEncoder().encodeToString(bytes));
  }

  private static JsonArray all(Stream<? extends Message> messages) {
    JsonArray array = new JsonArray();
    messages.forEach(message -> array.add(json(message)));
    return array;
  }

  private static JsonObject object(String name, JsonElement value) {
    JsonObject object = new JsonObject();
    object.add(name, value);
    return object;
  }

  private static JsonObject none() {
    return new JsonObject();
  }

  private static JsonObject error(Throwable thrown) {
    JsonObject error = new JsonObject();
    if (thrown instanceof WavegateException e) {
      error.addProperty("kind", e.kind().name());
      error.addProperty("code", e.code().name());
      error.addProperty("reason", e.reason());
      error.addProperty("message", e.getMessage());
      error.addProperty("retryable", e.retryable());
      error.addProperty("retry_delay", e.retryDelay().map(d -> d.toNanos() / 1e9).orElse(null));
      JsonArray fields = new JsonArray();
      e.fieldViolations()
          .forEach(
              violation -> {
                JsonObject field = new JsonObject();
                field.addProperty("field", violation.field());
                field.addProperty("description", violation.description());
                fields.add(field);
              });
      error.add("field_violations", fields);
      JsonArray quotas = new JsonArray();
      e.quotaViolations()
          .forEach(
              violation -> {
                JsonObject quota = new JsonObject();
                quota.addProperty("subject", violation.subject());
                quota.addProperty("description", violation.description());
                quotas.add(quota);
              });
      error.add("quota_violations", quotas);
      JsonObject metadata = new JsonObject();
      e.metadata().forEach(metadata::addProperty);
      error.add("metadata", metadata);
      return error;
    }
    String kind = "OTHER";
    if (thrown instanceof UnsupportedOperationException) {
      kind = "NOT_IMPLEMENTED";
    } else if (thrown instanceof CallerFailure) {
      kind = "CALLER";
    } else if (thrown instanceof CancellationException) {
      kind = "CANCELLED";
    } else if (thrown instanceof IllegalArgumentException
        || thrown instanceof NullPointerException
        || thrown instanceof InvalidProtocolBufferException) {
      kind = "ARGUMENT";
    }
    error.addProperty("kind", kind);
    error.addProperty("message", String.valueOf(thrown.getMessage()));
    if (kind.equals("OTHER")) {
      thrown.printStackTrace();
    }
    return error;
  }
}
