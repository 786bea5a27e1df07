package wavegate;

import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import io.grpc.MethodDescriptor;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Predicate;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;
import wavegate.speech.v1.AudioInput;
import wavegate.speech.v1.EndSession;
import wavegate.speech.v1.Finalize;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.StartTranscription;
import wavegate.speech.v1.TranscribeStreamRequest;
import wavegate.speech.v1.TranscribeStreamResponse;
import wavegate.speech.v1.Transcript;
import wavegate.speech.v1.TranscriptionServiceGrpc;
import wavegate.speech.v1.TranscriptionSettings;
import wavegate.speech.v1.UpdateTranscriptionSettings;

/** What a {@link TranscriptionSession} does. The session is a handle on it, so that a forgotten one can be noticed. */
final class TranscriptionCore
    extends SessionCore<
        TranscribeStreamRequest, TranscribeStreamResponse, StartTranscription, TranscriptionEvent> {
  /** Largest audio message where the gateway names no limit. */
  private static final int MESSAGE_BYTES = 64 * 1024;

  /** Audio behind the last final transcript that is kept for another gateway. */
  private static final int KEPT_AUDIO_SECONDS = 30;

  private static final String AUDIO = "audio";
  private static final AudioFormat DEFAULT_FORMAT =
      AudioFormat.newBuilder()
          .setEncoding(AudioEncoding.AUDIO_ENCODING_LINEAR16)
          .setSampleRateHertz(16_000)
          .build();

  /** An open segment, under the name that the caller knows, and the revision that it has reached. */
  private record Segment(String name, int revision) {}

  private final String idPrefix = String.format("%08x", ThreadLocalRandom.current().nextInt());
  private int finalizeNumber;
  private final Map<String, Transcript> finals = new HashMap<>();
  private final Set<String> awaitedFinals = new HashSet<>();

  // Where audio lies is counted in bytes of a raw format, in samples at 48 kHz of Opus packets.
  private final double zeroSeconds;
  private long position;

  /** Up to here there are final transcripts. */
  private long covered;

  private long keptFrom;

  /** How much was kept no longer before a final covered it. */
  private long fallenOut;

  private Segment hanging;

  /** What segments of this session are called since a move. */
  private final Map<String, Segment> names = new HashMap<>();

  private String fullText = "";
  private String fullTextBefore = "";
  private boolean voiceOn;
  private double voiceAtSeconds = -1;

  TranscriptionCore(Background background, Channels channels, TranscriptionOptions options) {
    // No limit on what waits to be read: a transcript is small, and the gateway must not stop taking audio because its
    // caller sends a whole file before reading the first word.
    super(background, channels, start(options), options, 0);
    this.zeroSeconds =
        options.initialAudioOffset() == null ? 0 : options.initialAudioOffset().toNanos() / 1e9;
  }

  private static StartTranscription start(TranscriptionOptions options) {
    StartTranscription.Builder start =
        StartTranscription.newBuilder()
            .setAudioFormat(options.audioFormat() == null ? DEFAULT_FORMAT : options.audioFormat())
            .setSettings(options.settings())
            .setClientSessionId(options.clientSessionId())
            .putAllLabels(options.labels());
    if (options.keepAlive() != null) {
      start.setKeepAlive(options.keepAlive());
    }
    if (options.initialAudioOffset() != null) {
      start.setInitialAudioOffset(Times.toWire(options.initialAudioOffset()));
    }
    if (!options.resumeWindow().isZero()) {
      start.setResumeWindow(Times.toWire(options.resumeWindow()));
    }
    return start.build();
  }

  // --- the contract -------------------------------------------------------------------------------

  @Override
  MethodDescriptor<TranscribeStreamRequest, TranscribeStreamResponse> method() {
    return TranscriptionServiceGrpc.getTranscribeStreamMethod();
  }

  @Override
  TranscribeStreamRequest request(long sequence, Object message) {
    TranscribeStreamRequest.Builder request =
        TranscribeStreamRequest.newBuilder().setInputSequence(sequence);
    if (message instanceof AudioInput audio) {
      request.setAudio(audio);
    } else if (message instanceof StartTranscription start) {
      request.setStart(start);
    } else if (message instanceof Finalize turn) {
      request.setFinalize(turn);
    } else if (message instanceof UpdateTranscriptionSettings update) {
      request.setUpdateSettings(update);
    } else if (message instanceof EndSession end) {
      request.setEndSession(end);
    } else {
      throw new AssertionError(message.getClass());
    }
    return request.build();
  }

  @Override
  StartTranscription startOfResumed(String sessionId, long lastReceived) {
    return StartTranscription.newBuilder()
        .setResumeSessionId(sessionId)
        .setLastReceivedSequence(lastReceived)
        .build();
  }

  @Override
  long sequence(TranscribeStreamResponse response) {
    return response.getSequence();
  }

  @Override
  long acknowledged(TranscribeStreamResponse response) {
    return response.getAcknowledgedInputSequence();
  }

  @Override
  TranscriptionEvent event(SessionEvent.Kind kind, Object value) {
    return new TranscriptionEvent(kind, value);
  }

  @Override
  TranscriptionEvent convert(TranscribeStreamResponse response) {
    return switch (response.getEventCase()) {
      case SESSION_STARTED -> event(SessionEvent.Kind.SESSION_STARTED, response.getSessionStarted());
      case TRANSCRIPT -> event(SessionEvent.Kind.TRANSCRIPT, response.getTranscript());
      case SPEECH_STARTED -> event(SessionEvent.Kind.SPEECH_STARTED, response.getSpeechStarted());
      case SPEECH_ENDED -> event(SessionEvent.Kind.SPEECH_ENDED, response.getSpeechEnded());
      case PROGRESS -> event(SessionEvent.Kind.PROGRESS, response.getProgress());
      case SETTINGS_ACK -> event(SessionEvent.Kind.SETTINGS_ACK, response.getSettingsAck());
      case CONNECTION -> event(SessionEvent.Kind.CONNECTION, response.getConnection());
      case WARNING -> event(SessionEvent.Kind.WARNING, response.getWarning());
      case GO_AWAY -> event(SessionEvent.Kind.GO_AWAY, response.getGoAway());
      case SESSION_ENDED -> event(SessionEvent.Kind.SESSION_ENDED, response.getSessionEnded());
      case EVENT_NOT_SET -> null;
    };
  }

  // --- audio --------------------------------------------------------------------------------------

  /** How many bytes a message of this much audio may have. */
  int pieceBytes(int length) {
    return lockedGet(
        () -> {
          int limit = started.getLimits().getMaxAudioMessageBytes();
          return AudioMath.pieceBytes(length, format(), limit == 0 ? MESSAGE_BYTES : limit);
        });
  }

  void sendAudio(byte[] content, int offset, int length, Instant captureTime) {
    int step = pieceBytes(length);
    for (int at = 0; at < length; at += step) {
      AudioInput.Builder audio =
          AudioInput.newBuilder()
              .setContent(ByteString.copyFrom(content, offset + at, Math.min(step, length - at)));
      if (captureTime != null && at == 0) {
        audio.setCaptureTime(Times.toWire(captureTime));
      }
      AudioInput message = audio.build();
      awaitTaken(lockedGet(() -> send(message)));
    }
  }

  Transcript finalizeTurn(String wanted) {
    String id;
    Ticket ticket;
    lock.lock();
    try {
      checkOpen();
      id = wanted != null ? wanted : idPrefix + "-" + ++finalizeNumber;
      if (!awaitedFinals.add(id)) {
        throw new IllegalArgumentException("finalize '" + id + "' of this session is still under way");
      }
      ticket = send(Finalize.newBuilder().setFinalizeId(id).build());
    } finally {
      lock.unlock();
    }
    try {
      awaitTaken(ticket);
      return until(() -> finals.get(id));
    } finally {
      locked(
          () -> {
            awaitedFinals.remove(id);
            finals.remove(id);
          });
    }
  }

  AudioFormat format() {
    return started.getAudioFormat();
  }

  // --- transcripts --------------------------------------------------------------------------------

  Reader<Transcript> transcriptReader(Predicate<Transcript> wanted) {
    return new Reader<>(this) {
      @Override
      Object poll() {
        while (true) {
          if (!hasEvents() && !finished) {
            return PENDING;
          }
          TranscriptionEvent event = take();
          if (event == null) {
            return END;
          }
          if (event.kind() == SessionEvent.Kind.TRANSCRIPT && wanted.test(event.transcript())) {
            return event.transcript();
          }
        }
      }
    };
  }

  @Override
  TranscriptionEvent note(TranscriptionEvent event) {
    switch (event.kind()) {
      case TRANSCRIPT -> {
        Transcript seen = noteTranscript(event.transcript());
        if (seen == null) {
          return null;
        }
        return event(SessionEvent.Kind.TRANSCRIPT, seen);
      }
      case SETTINGS_ACK -> {
        SettingsAck ack = event.settingsAck();
        if (ack.getState() == SettingsAck.State.STATE_APPLIED
            && ack.getMechanism() == SettingsAck.Mechanism.MECHANISM_RECONNECT) {
          // All before it is final with the old settings; a session elsewhere would hear it with the new ones.
          cover(positionAt(Times.toSeconds(ack.getAudioOffset())));
        }
        return event;
      }
      case SPEECH_STARTED -> {
        return noteVoice(true, Times.toSeconds(event.speechStarted().getAudioOffset())) ? event : null;
      }
      case SPEECH_ENDED -> {
        return noteVoice(false, Times.toSeconds(event.speechEnded().getAudioOffset())) ? event : null;
      }
      default -> {
        return event;
      }
    }
  }

  private boolean noteVoice(boolean begins, double atSeconds) {
    boolean repeated = begins == voiceOn || atSeconds <= voiceAtSeconds;
    if (moves > 0 && repeated) {
      return false; // heard again, where audio was sent again
    }
    voiceOn = begins;
    voiceAtSeconds = atSeconds;
    return true;
  }

  private Transcript noteTranscript(Transcript received) {
    Transcript transcript = received;
    long end = positionAt(Times.toSeconds(received.getEndOffset()));
    if (moves > 0) {
      if (!received.getText().isEmpty() && received.getFinalizeId().isEmpty() && end <= covered) {
        return null; // a final of the session before has said it
      }
      transcript = renamed(received);
    }
    if (!transcript.getIsFinal()) {
      if (!transcript.getText().isEmpty()) {
        hanging = new Segment(transcript.getSegmentId(), transcript.getSegmentRevision());
      }
    } else {
      if (hanging != null && hanging.name().equals(transcript.getSegmentId())) {
        hanging = null;
      }
      Object key = finalizeKey(transcript.getFinalizeId());
      if (!transcript.getText().isEmpty()) {
        long until = end;
        for (Unfinished item : unfinished) {
          if (item.key().equals(key)) {
            until = Math.max(until, item.end());
          }
        }
        cover(until);
      }
      if (!transcript.getFullText().isEmpty()) {
        fullText = transcript.getFullText();
      }
      settle(key);
    }
    if (awaitedFinals.contains(transcript.getFinalizeId())) {
      finals.put(transcript.getFinalizeId(), transcript);
    }
    return transcript;
  }

  private static Object finalizeKey(String finalizeId) {
    return List.of("finalize", finalizeId);
  }

  // --- moving -------------------------------------------------------------------------------------

  /** A transcript of a later session: the open segment is said again there, and goes on under its name. */
  private Transcript renamed(Transcript transcript) {
    String id = transcript.getSegmentId();
    Segment known = names.get(id);
    if (known == null) {
      known = new Segment(id + "." + moves, 0);
      if (!transcript.getText().isEmpty()
          && hanging != null
          && names.values().stream().noneMatch(other -> other.name().equals(hanging.name()))) {
        known = hanging;
      }
      names.put(id, known);
    }
    if (transcript.getIsFinal()) {
      names.remove(id);
    }
    Transcript.Builder named =
        transcript.toBuilder()
            .setSegmentId(known.name())
            .setSegmentRevision(known.revision() + transcript.getSegmentRevision());
    if (!transcript.getFullText().isEmpty()) {
      named.setFullText((fullTextBefore + " " + transcript.getFullText()).stripLeading());
    }
    return named.build();
  }

  private int unitsPerSecond() {
    return AudioMath.isOpus(format()) ? 48_000 : AudioMath.bytesPerSecond(format());
  }

  private int unit() {
    return AudioMath.isOpus(format()) ? 1 : AudioMath.sampleBytes(format());
  }

  private long positionAt(double offsetSeconds) {
    if (!canMove()) {
      return 0;
    }
    int width = unit();
    return (long) Math.rint((offsetSeconds - zeroSeconds) * unitsPerSecond() / width) * width;
  }

  @Override
  void keep(Object message) {
    long from = position;
    if (message instanceof AudioInput audio && canMove()) {
      ByteString content = audio.getContent();
      position +=
          AudioMath.isOpus(format()) ? AudioMath.opusSamples(content.toByteArray()) : content.size();
      unfinished.add(new Unfinished(AUDIO, message, from, position));
      // While another session is being opened, what that one starts from has to stay.
      while (!paused && position - keptFrom > (long) KEPT_AUDIO_SECONDS * unitsPerSecond()) {
        dropOldest();
      }
    } else if (message instanceof Finalize turn) {
      unfinished.add(new Unfinished(finalizeKey(turn.getFinalizeId()), message, from, from));
    }
  }

  private void dropOldest() {
    Iterator<Unfinished> items = unfinished.iterator();
    while (items.hasNext()) {
      Unfinished item = items.next();
      if (item.key().equals(AUDIO)) {
        if (hanging != null || givenUp) { // else it was heard, and there was nothing in it
          fallenOut += item.end() - keptFrom;
        }
        items.remove();
        keptFrom = item.end();
        return;
      }
    }
  }

  private void cover(long until) {
    covered = Math.max(covered, Math.min(until, position));
    keptFrom = Math.max(keptFrom, covered);
    fallenOut = 0;
    unfinished.removeIf(item -> item.key().equals(AUDIO) && item.end() <= covered);
  }

  @Override
  boolean isIdle() {
    return !inputEnded; // else it ends by itself, soon
  }

  @Override
  boolean canMove() {
    // An Ogg stream would have to be cut between pages.
    return format().getEncoding() != AudioEncoding.AUDIO_ENCODING_OGG_OPUS;
  }

  /** Where another session begins: a sample that is there whole, of a packet its beginning. */
  private long goesOnAt() {
    for (Unfinished item : unfinished) {
      if (item.key().equals(AUDIO)) {
        if (AudioMath.isOpus(format())) {
          return item.start();
        }
        long width = unit();
        return (Math.max(item.start(), covered) + width - 1) / width * width;
      }
    }
    return position;
  }

  @Override
  StartTranscription startElsewhere() {
    StartTranscription.Builder start = startMessage.toBuilder();
    if (settings != null) {
      start.setSettings(settings.getTranscription());
    }
    return start
        .setInitialAudioOffset(Times.toWire(zeroSeconds + (double) goesOnAt() / unitsPerSecond()))
        .build();
  }

  @Override
  double carryOver() {
    final double lostSeconds = (double) fallenOut / unitsPerSecond();
    long at = goesOnAt();
    Deque<Unfinished> cut = new ArrayDeque<>();
    boolean first = true;
    for (Unfinished item : unfinished) {
      if (first && item.key().equals(AUDIO)) {
        first = false;
        if (item.start() < at) {
          ByteString content = ((AudioInput) item.message()).getContent();
          cut.add(
              new Unfinished(
                  AUDIO,
                  AudioInput.newBuilder().setContent(content.substring((int) (at - item.start()))).build(),
                  at,
                  item.end()));
          continue;
        }
      }
      cut.add(item);
    }
    unfinished = cut;
    fallenOut = 0;
    names.clear();
    fullTextBefore = fullText;
    return lostSeconds;
  }

  @Override
  String whatIsLost() {
    if (position <= covered) {
      return "";
    }
    double since = zeroSeconds + (double) covered / unitsPerSecond();
    return String.format("the transcript of the audio from %.2f s on", since);
  }

  /** The message of a change of settings. */
  Message update(TranscriptionSettings delta, UpdateOptions options, String updateId) {
    UpdateTranscriptionSettings.Builder update =
        UpdateTranscriptionSettings.newBuilder()
            .setUpdateId(updateId)
            .setSettings(delta)
            .setResetMask(mask(options))
            .setApplyPolicy(options.apply())
            .setValidateOnly(options.validateOnly());
    options.expectedRevision().ifPresent(update::setExpectedRevision);
    return update.build();
  }
}
