package wavegate;

import com.google.protobuf.Message;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Flow;
import java.util.concurrent.FutureTask;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.CancelUtterance;
import wavegate.speech.v1.EndSession;
import wavegate.speech.v1.EndUtterance;
import wavegate.speech.v1.Flush;
import wavegate.speech.v1.PlaybackReport;
import wavegate.speech.v1.StartSynthesis;
import wavegate.speech.v1.SynthesisServiceGrpc;
import wavegate.speech.v1.SynthesizeStreamRequest;
import wavegate.speech.v1.SynthesizeStreamResponse;
import wavegate.speech.v1.TextInput;
import wavegate.speech.v1.UpdateSynthesisSettings;
import wavegate.speech.v1.UtteranceCancelled;
import wavegate.speech.v1.UtteranceFailed;
import wavegate.speech.v1.Warning;

/** What a {@link SynthesisSession} does. The session is a handle on it, so that a forgotten one can be noticed. */
final class SynthesisCore
    extends SessionCore<SynthesizeStreamRequest, SynthesizeStreamResponse, StartSynthesis, SynthesisEvent> {
  /**
   * Audio that may lie unread in this process before reading stops: 1.4 s of the default format. What is not read waits
   * in the gateway, which can still drop it when the listener interrupts.
   */
  private static final int BUFFER_LIMIT_BYTES = 64 * 1024;

  private static final int REMEMBERED_UTTERANCES = 256;

  private final Map<String, Spoken> utterances = new LinkedHashMap<>();
  private final String idPrefix = String.format("%08x", ThreadLocalRandom.current().nextInt());
  private int idNumber;
  private String openId;

  /** Who has text to send, in order; one at a time, since the next one's text would end the utterance. */
  private final Deque<TextJob> jobs = new ArrayDeque<>();

  private final Map<String, Throwable> unseenTextErrors = new LinkedHashMap<>();

  /** What is known of an utterance. */
  static final class Spoken {
    final String id;

    /** Whether this side has cancelled it. The gateway's word on it is the outcome. */
    boolean cancelled;

    SynthesisEvent outcome;
    private Throwable textError;
    private TextJob job;

    /** Its last event has been taken out of the session's buffer. */
    private boolean consumed;

    private boolean started;
    private boolean heard;

    /** Playing time of its audio so far. */
    private double heardSeconds;

    /** Which of the gateway's sessions has its text; -1 while nothing is sent. */
    private int sessionNumber = -1;

    Spoken(String id) {
      this.id = id;
    }

    boolean isOver() {
      return cancelled || outcome != null;
    }
  }

  /** Sends the text of an utterance when its turn has come. */
  private abstract static class TextJob {
    final Spoken utterance;
    boolean running;
    boolean done;

    TextJob(Spoken utterance) {
      this.utterance = utterance;
    }

    /** Its turn has come. */
    abstract void begin();

    /** It is not wanted any more. */
    abstract void interrupt();
  }

  SynthesisCore(Background background, Channels channels, SynthesisOptions options) {
    super(background, channels, start(options), options, BUFFER_LIMIT_BYTES);
  }

  private static StartSynthesis start(SynthesisOptions options) {
    StartSynthesis.Builder start =
        StartSynthesis.newBuilder()
            .setSettings(options.settings())
            .setClientSessionId(options.clientSessionId())
            .putAllLabels(options.labels());
    if (options.audioFormat() != null) {
      start.setAudioFormat(options.audioFormat());
    }
    if (options.maxAudioLead() != null) {
      start.setMaxAudioLead(Times.toWire(options.maxAudioLead()));
    }
    if (!options.resumeWindow().isZero()) {
      start.setResumeWindow(Times.toWire(options.resumeWindow()));
    }
    return start.build();
  }

  // --- the contract -------------------------------------------------------------------------------

  @Override
  MethodDescriptor<SynthesizeStreamRequest, SynthesizeStreamResponse> method() {
    return SynthesisServiceGrpc.getSynthesizeStreamMethod();
  }

  @Override
  SynthesizeStreamRequest request(long sequence, Object message) {
    SynthesizeStreamRequest.Builder request =
        SynthesizeStreamRequest.newBuilder().setInputSequence(sequence);
    if (message instanceof StartSynthesis start) {
      request.setStart(start);
    } else if (message instanceof TextInput text) {
      request.setText(text);
    } else if (message instanceof EndUtterance end) {
      request.setEndUtterance(end);
    } else if (message instanceof CancelUtterance cancel) {
      request.setCancel(cancel);
    } else if (message instanceof UpdateSynthesisSettings update) {
      request.setUpdateSettings(update);
    } else if (message instanceof PlaybackReport report) {
      request.setPlayback(report);
    } else if (message instanceof EndSession end) {
      request.setEndSession(end);
    } else if (message instanceof Flush flush) {
      request.setFlush(flush);
    } else {
      throw new AssertionError(message.getClass());
    }
    return request.build();
  }

  @Override
  StartSynthesis startOfResumed(String sessionId, long lastReceived) {
    return StartSynthesis.newBuilder()
        .setResumeSessionId(sessionId)
        .setLastReceivedSequence(lastReceived)
        .build();
  }

  @Override
  long sequence(SynthesizeStreamResponse response) {
    return response.getSequence();
  }

  @Override
  long acknowledged(SynthesizeStreamResponse response) {
    return response.getAcknowledgedInputSequence();
  }

  @Override
  SynthesisEvent event(SessionEvent.Kind kind, Object value) {
    return new SynthesisEvent(kind, value);
  }

  @Override
  SynthesisEvent convert(SynthesizeStreamResponse response) {
    return switch (response.getEventCase()) {
      case SESSION_STARTED -> event(SessionEvent.Kind.SESSION_STARTED, response.getSessionStarted());
      case UTTERANCE_STARTED -> event(SessionEvent.Kind.UTTERANCE_STARTED, response.getUtteranceStarted());
      case AUDIO -> event(SessionEvent.Kind.AUDIO, response.getAudio());
      case WORD_TIMINGS -> event(SessionEvent.Kind.WORD_TIMINGS, response.getWordTimings());
      case UTTERANCE_COMPLETED ->
          event(SessionEvent.Kind.UTTERANCE_COMPLETED, response.getUtteranceCompleted());
      case UTTERANCE_CANCELLED ->
          event(SessionEvent.Kind.UTTERANCE_CANCELLED, response.getUtteranceCancelled());
      case UTTERANCE_FAILED -> event(SessionEvent.Kind.UTTERANCE_FAILED, response.getUtteranceFailed());
      case SETTINGS_ACK -> event(SessionEvent.Kind.SETTINGS_ACK, response.getSettingsAck());
      case CONNECTION -> event(SessionEvent.Kind.CONNECTION, response.getConnection());
      case WARNING -> event(SessionEvent.Kind.WARNING, response.getWarning());
      case GO_AWAY -> event(SessionEvent.Kind.GO_AWAY, response.getGoAway());
      case SESSION_ENDED -> event(SessionEvent.Kind.SESSION_ENDED, response.getSessionEnded());
      case EVENT_NOT_SET -> null;
    };
  }

  @Override
  int sizeBytes(SynthesisEvent event) {
    return event.kind() == SessionEvent.Kind.AUDIO ? event.audio().getAudio().size() : 0;
  }

  // --- text ---------------------------------------------------------------------------------------

  /** Speaks a whole text: at once, or behind the texts that are still coming. */
  Spoken say(String text, String utteranceId) {
    Ticket ticket;
    Spoken utterance;
    lock.lock();
    try {
      utterance = unspoken(utteranceId);
      if (!jobs.isEmpty()) {
        checkOpen();
        enqueue(new IteratorJob(utterance, List.of(text).iterator(), null, true));
        return utterance;
      }
      ticket = sendText(text, utterance, true);
    } finally {
      lock.unlock();
    }
    awaitTaken(ticket);
    return utterance;
  }

  /** Speaks a text that comes in pieces, asked for on a borrowed thread. {@code close} is closed in the end. */
  Spoken say(Iterator<String> pieces, AutoCloseable close, String utteranceId) {
    lock.lock();
    try {
      Spoken utterance = unspoken(utteranceId);
      checkOpen();
      enqueue(new IteratorJob(utterance, pieces, close, false));
      return utterance;
    } finally {
      lock.unlock();
    }
  }

  /** Speaks a text that is published in pieces; one is asked for when the one before has been taken. */
  Spoken say(Flow.Publisher<String> pieces, String utteranceId) {
    lock.lock();
    try {
      Spoken utterance = unspoken(utteranceId);
      checkOpen();
      enqueue(new PublisherJob(utterance, pieces));
      return utterance;
    } finally {
      lock.unlock();
    }
  }

  /** Speaks a text that comes in pieces, on the calling thread; returns when the last one is sent. */
  Spoken streamText(Iterator<String> pieces, AutoCloseable close, String utteranceId) {
    Spoken utterance;
    CallerJob job;
    lock.lock();
    try {
      utterance = unspoken(utteranceId);
      checkOpen();
      job = new CallerJob(utterance);
      enqueue(job);
    } finally {
      lock.unlock();
    }
    try (close) {
      until(() -> (job.running || job.done) ? Boolean.TRUE : null);
      feed(job, pieces);
    } catch (RuntimeException e) {
      throw e;
    } catch (Exception e) {
      throw new CompletionException(e);
    } finally {
      locked(() -> finish(job));
    }
    return utterance;
  }

  /** A piece of text: of the named utterance, else of the open one, else of a new one. */
  Spoken sendText(String text, String utteranceId, boolean end) {
    Spoken utterance;
    List<String> rest;
    Ticket ticket;
    lock.lock();
    try {
      checkOpen();
      utterance = utterance(utteranceId != null ? utteranceId : openId);
      List<String> pieces = Texts.split(Texts.toWire(text), started.getLimits().getMaxTextMessageChars());
      rest = pieces.subList(1, pieces.size());
      ticket = sendPiece(pieces.get(0), utterance, end, rest.isEmpty());
    } finally {
      lock.unlock();
    }
    if (ticket != null) {
      sendRest(utterance, ticket, rest, end);
    }
    return utterance;
  }

  private void sendRest(Spoken utterance, Ticket first, List<String> rest, boolean end) {
    awaitTaken(first);
    for (int at = 0; at < rest.size(); at++) {
      String piece = rest.get(at);
      boolean last = at == rest.size() - 1;
      Ticket ticket = lockedGet(() -> sendPiece(piece, utterance, end, last));
      if (ticket == null) {
        return;
      }
      awaitTaken(ticket);
    }
  }

  /** All of a text with the lock held; the wait for the last piece stands for all. */
  private Ticket sendText(String text, Spoken utterance, boolean end) {
    checkOpen();
    List<String> pieces = Texts.split(Texts.toWire(text), started.getLimits().getMaxTextMessageChars());
    Ticket ticket = null;
    for (int at = 0; at < pieces.size(); at++) {
      ticket = sendPiece(pieces.get(at), utterance, end, at == pieces.size() - 1);
    }
    return ticket;
  }

  /** Sends a piece that is short enough; null if it was dropped. */
  private Ticket sendPiece(String piece, Spoken utterance, boolean end, boolean last) {
    checkOpen();
    if (utterance.isOver() && utterance.sessionNumber != moves) {
      // The gateway's session of now has never heard that it is over, and would speak it.
      deliver(
          event(
              SessionEvent.Kind.WARNING,
              Warning.newBuilder()
                  .setReason("STALE_TEXT")
                  .setMessage("text for an utterance that is over was dropped")
                  .setUtteranceId(utterance.id)
                  .build()));
      notifyChanged();
      return null;
    }
    if (utterance.sessionNumber < 0) {
      utterance.sessionNumber = moves;
    }
    openId = (end && last) ? null : utterance.id;
    return send(
        TextInput.newBuilder()
            .setText(piece)
            .setUtteranceId(utterance.id)
            .setEndUtterance(end && last)
            .build());
  }

  void flush(String utteranceId) {
    awaitTaken(
        lockedGet(
            () ->
                send(
                    Flush.newBuilder()
                        .setUtteranceId(orOpen(utteranceId))
                        .build())));
  }

  void endUtterance(String utteranceId) {
    awaitTaken(lockedGet(() -> endText(utteranceId)));
  }

  private String orOpen(String utteranceId) {
    if (utteranceId != null) {
      return utteranceId;
    }
    return openId != null ? openId : "";
  }

  private Ticket endText(String utteranceId) {
    checkOpen();
    String id = orOpen(utteranceId);
    if (id.equals(openId)) {
      openId = null;
    }
    return send(EndUtterance.newBuilder().setUtteranceId(id).build());
  }

  // --- text that comes in pieces ------------------------------------------------------------------

  private void enqueue(TextJob job) {
    job.utterance.job = job;
    jobs.add(job);
    beginNext();
  }

  private void beginNext() {
    TextJob next = jobs.peek();
    if (next != null && !next.running) {
      next.running = true;
      next.begin();
      notifyChanged();
    }
  }

  private void finish(TextJob job) {
    if (!job.done) {
      job.done = true;
      jobs.remove(job);
      notifyChanged();
      beginNext();
    }
  }

  private void stop(TextJob job) {
    if (job != null && !job.done) {
      finish(job);
      job.interrupt();
    }
  }

  private void stopText() {
    while (!jobs.isEmpty()) {
      stop(jobs.peekLast());
    }
  }

  /** Sends what an iterator gives, to its end or to that of the utterance. The lock is not held meanwhile. */
  private void feed(TextJob job, Iterator<String> pieces) {
    boolean begun = false;
    while (pieces.hasNext()) {
      String piece = java.util.Objects.requireNonNull(pieces.next(), "a piece of text is null");
      boolean open =
          lockedGet(
              () -> {
                if (job.done || job.utterance.isOver()) {
                  return false;
                }
                checkOpen();
                return true;
              });
      if (!open) {
        return;
      }
      if (!piece.isEmpty()) {
        begun = true;
        sendOwn(job, piece, false);
      }
    }
    endOwn(job, begun);
  }

  private void sendOwn(TextJob job, String piece, boolean end) {
    Ticket ticket =
        lockedGet(
            () -> job.done || job.utterance.isOver() ? null : sendText(piece, job.utterance, end));
    if (ticket != null) {
      awaitTaken(ticket);
    }
  }

  private void endOwn(TextJob job, boolean begun) {
    if (!begun) { // none at all ends like any other
      sendOwn(job, "", true);
      return;
    }
    Ticket ticket =
        lockedGet(() -> job.done || job.utterance.isOver() ? null : endText(job.utterance.id));
    if (ticket != null) {
      awaitTaken(ticket);
    }
  }

  /** The caller's own code failed: that cancels the utterance, and comes out of its handle. */
  private void textFailed(TextJob job, Throwable why) {
    Ticket ticket;
    lock.lock();
    try {
      if (job.done) {
        return; // it was told to stop
      }
      Spoken utterance = job.utterance;
      utterance.textError = why;
      unseenTextErrors.put(utterance.id, why);
      finish(job);
      ticket = finished || inputEnded ? null : cancelNow(utterance.id, null);
      notifyChanged();
    } finally {
      lock.unlock();
    }
    if (ticket != null) {
      try {
        awaitTaken(ticket);
      } catch (WavegateException e) {
        return; // the session's own failure: whoever waits for the session hears of it
      }
    }
  }

  /** Text of an iterator, which may block. */
  private final class IteratorJob extends TextJob {
    private final FutureTask<Void> task;
    private final AutoCloseable close;

    /** Whether it is this job's thread that closes the pieces. */
    private final AtomicBoolean begun = new AtomicBoolean();

    IteratorJob(Spoken utterance, Iterator<String> pieces, AutoCloseable close, boolean whole) {
      super(utterance);
      this.close = close;
      this.task =
          new FutureTask<>(
              () -> {
                if (whole) {
                  sendWhole(pieces.next());
                } else if (begun.compareAndSet(false, true)) {
                  run(pieces);
                }
                return null;
              });
    }

    @Override
    void begin() {
      background.run(task);
    }

    @Override
    void interrupt() {
      task.cancel(true);
      if (close != null && begun.compareAndSet(false, true)) {
        background.run(() -> closeUnread());
      }
    }

    private void closeUnread() {
      try {
        close.close();
      } catch (Exception e) {
        return; // nobody waits for it: the utterance is over
      }
    }

    private void sendWhole(String text) {
      try {
        sendOwn(this, text, true);
      } catch (WavegateException e) {
        return; // the session's own failure
      } finally {
        locked(() -> finish(this));
      }
    }

    private void run(Iterator<String> pieces) {
      Watched watched = new Watched(pieces);
      try (close) {
        feed(this, watched);
      } catch (Throwable e) {
        if (watched.failed || !(e instanceof WavegateException)) {
          textFailed(this, e);
        }
      } finally {
        locked(() -> finish(this));
      }
    }
  }

  /** Tells the failures of the caller's iterator from those of the session. */
  private static final class Watched implements Iterator<String> {
    private final Iterator<String> pieces;
    private boolean failed;

    Watched(Iterator<String> pieces) {
      this.pieces = pieces;
    }

    @Override
    public boolean hasNext() {
      failed = true;
      boolean more = pieces.hasNext();
      failed = false;
      return more;
    }

    @Override
    public String next() {
      failed = true;
      String piece = pieces.next();
      failed = false;
      return piece;
    }
  }

  /** Text that the caller's own thread sends. */
  private final class CallerJob extends TextJob {
    CallerJob(Spoken utterance) {
      super(utterance);
    }

    @Override
    void begin() {
      notifyChanged();
    }

    @Override
    void interrupt() {
      notifyChanged();
    }
  }

  /** Text of a publisher, which is asked for a piece when the one before has been taken. */
  private final class PublisherJob extends TextJob implements Flow.Subscriber<String> {
    private final Flow.Publisher<String> pieces;
    private Flow.Subscription subscription;
    private boolean begun;

    PublisherJob(Spoken utterance, Flow.Publisher<String> pieces) {
      super(utterance);
      this.pieces = pieces;
    }

    @Override
    void begin() {
      background.run(
          () -> {
            try {
              pieces.subscribe(this);
            } catch (RuntimeException e) {
              textFailed(this, e);
            }
          });
    }

    @Override
    void interrupt() {
      Flow.Subscription taken = subscription;
      if (taken != null) {
        background.run(taken::cancel);
      }
    }

    @Override
    public void onSubscribe(Flow.Subscription given) {
      boolean wanted =
          lockedGet(
              () -> {
                if (done || subscription != null) {
                  return false;
                }
                subscription = given;
                return true;
              });
      if (wanted) {
        given.request(1);
      } else {
        given.cancel();
      }
    }

    @Override
    public void onNext(String piece) {
      java.util.Objects.requireNonNull(piece, "piece");
      boolean more;
      lock.lock();
      try {
        more = take(piece);
      } finally {
        lock.unlock();
      }
      if (more) {
        subscription.request(1);
      }
    }

    /** True if another piece can be asked for at once. */
    private boolean take(String piece) {
      if (done || utterance.isOver() || finished || inputEnded) {
        stop(this);
        return false;
      }
      if (piece.isEmpty()) {
        return true;
      }
      begun = true;
      Ticket ticket = sendText(piece, utterance, false);
      if (ticket == null || ticket.isTaken()) {
        return true;
      }
      watch(
          () -> {
            if (done || finished) {
              return true;
            }
            if (!ticket.isTaken()) {
              return false;
            }
            background.run(() -> subscription.request(1));
            return true;
          });
      return false;
    }

    @Override
    public void onError(Throwable why) {
      textFailed(this, why);
    }

    @Override
    public void onComplete() {
      lock.lock();
      try {
        if (!done && !utterance.isOver() && !finished && !inputEnded) {
          if (begun) {
            endText(utterance.id);
          } else {
            sendText("", utterance, true);
          }
        }
        finish(this);
      } finally {
        lock.unlock();
      }
    }
  }

  // --- barge-in -----------------------------------------------------------------------------------

  /** Stops an utterance, or with null every one that has not ended. */
  void cancel(String utteranceId, Duration playbackOffset) {
    Ticket ticket = lockedGet(() -> cancelNow(utteranceId, playbackOffset));
    if (ticket != null) {
      awaitTaken(ticket);
    }
  }

  private Ticket cancelNow(String utteranceId, Duration playbackOffset) {
    checkOpen();
    List<Spoken> meant = new ArrayList<>();
    for (Spoken utterance : utterances.values()) {
      if (utterance.outcome == null && (utteranceId == null || utteranceId.equals(utterance.id))) {
        meant.add(utterance);
      }
    }
    for (Spoken utterance : meant) {
      utterance.cancelled = true;
      if (utterance.sessionNumber < 0) {
        // The gateway has never heard of it.
        SynthesisEvent event =
            event(
                SessionEvent.Kind.UTTERANCE_CANCELLED,
                UtteranceCancelled.newBuilder()
                    .setUtteranceId(utterance.id)
                    .setMethod(UtteranceCancelled.Method.METHOD_NOT_SENT)
                    .build());
        note(event);
        deliver(event);
      }
    }
    meant.forEach(utterance -> stop(utterance.job));
    notifyChanged();
    if (utteranceId != null && !meant.isEmpty() && meant.get(0).sessionNumber < 0) {
      return null;
    }
    if (utteranceId == null || utteranceId.equals(openId)) {
      openId = null;
    }
    drop(event -> isSound(event) && (utteranceId == null || utteranceId.equals(utteranceOf(event))));
    notifyChanged(); // whoever waits for audio of it has waited long enough
    CancelUtterance.Builder cancel =
        CancelUtterance.newBuilder().setUtteranceId(utteranceId == null ? "" : utteranceId);
    if (playbackOffset != null) {
      cancel.setPlaybackOffset(Times.toWire(playbackOffset));
    }
    return send(cancel.build());
  }

  void reportPlayback(String utteranceId, Duration playbackOffset) {
    awaitTaken(
        lockedGet(
            () ->
                send(
                    PlaybackReport.newBuilder()
                        .setUtteranceId(utteranceId)
                        .setPlaybackOffset(Times.toWire(playbackOffset))
                        .build())));
  }

  // --- reading ------------------------------------------------------------------------------------

  /** The audio of one utterance; events of other kinds, and audio of utterances before it, are passed over. */
  Reader<byte[]> audioReader(Spoken utterance) {
    return new Reader<>(this) {
      @Override
      Object poll() {
        while (!utterance.consumed && !utterance.cancelled) {
          if (!hasEvents() && !finished) {
            return PENDING;
          }
          SynthesisEvent event = take();
          if (event == null) {
            break;
          }
          if (!utterance.id.equals(utteranceOf(event))) {
            continue;
          }
          if (event.kind() == SessionEvent.Kind.AUDIO) {
            return event.audio().getAudio().toByteArray();
          }
          if (isOutcome(event)) {
            break;
          }
        }
        raiseIfFailed(utterance);
        return END;
      }
    };
  }

  /** The audio of all utterances; raises an utterance's failure, and goes on behind it when asked again. */
  Reader<byte[]> audioReader() {
    return new Reader<>(this) {
      @Override
      Object poll() {
        while (true) {
          if (!hasEvents() && !finished) {
            return PENDING;
          }
          SynthesisEvent event = take();
          if (event == null) {
            return END;
          }
          if (event.kind() == SessionEvent.Kind.AUDIO) {
            return event.audio().getAudio().toByteArray();
          }
          if (event.kind() == SessionEvent.Kind.UTTERANCE_FAILED) {
            throw Errors.fromStatus(event.utteranceFailed().getError());
          }
        }
      }
    };
  }

  UtteranceOutcome await(Spoken utterance) {
    until(() -> utterance.outcome);
    return lockedGet(
        () -> {
          raiseIfFailed(utterance);
          return outcome(utterance);
        });
  }

  /** Null while it is being made, and where it failed. */
  UtteranceOutcome outcome(Spoken utterance) {
    SynthesisEvent event = utterance.outcome;
    if (event == null || event.kind() == SessionEvent.Kind.UTTERANCE_FAILED) {
      return null;
    }
    return event.kind() == SessionEvent.Kind.UTTERANCE_COMPLETED
        ? new UtteranceOutcome(event.utteranceCompleted(), null)
        : new UtteranceOutcome(null, event.utteranceCancelled());
  }

  private void raiseIfFailed(Spoken utterance) {
    if (utterance.textError != null) {
      unseenTextErrors.remove(utterance.id);
      throw unchecked(utterance.textError);
    }
    if (utterance.outcome != null && utterance.outcome.kind() == SessionEvent.Kind.UTTERANCE_FAILED) {
      throw Errors.fromStatus(utterance.outcome.utteranceFailed().getError());
    }
  }

  private static RuntimeException unchecked(Throwable thrown) {
    if (thrown instanceof Error error) {
      throw error;
    }
    return thrown instanceof RuntimeException exception ? exception : new CompletionException(thrown);
  }

  @Override
  SynthesisEvent take() {
    SynthesisEvent event = super.take();
    if (event != null && isOutcome(event)) {
      Spoken utterance = utterances.get(utteranceOf(event));
      if (utterance != null) {
        utterance.consumed = true;
      }
    }
    return event;
  }

  // --- beginning and end --------------------------------------------------------------------------

  /** Waits until every iterator has ended, and says that no text follows. */
  @Override
  void end() {
    lock.lock();
    try {
      while (!jobs.isEmpty()) {
        awaitChange();
      }
    } finally {
      lock.unlock();
    }
    super.end();
  }

  @Override
  void discardAll() {
    locked(this::stopText);
    super.discardAll();
  }

  @Override
  void close() {
    super.close();
    Throwable unseen =
        lockedGet(
            () -> {
              Iterator<Throwable> errors = unseenTextErrors.values().iterator();
              if (!errors.hasNext()) {
                return null;
              }
              Throwable first = errors.next();
              unseenTextErrors.clear();
              return first;
            });
    if (unseen != null) {
      throw unchecked(unseen);
    }
  }

  @Override
  void leaveAtOnce() {
    locked(this::stopText);
    super.leaveAtOnce();
  }

  @Override
  void finish(WavegateException why) {
    super.finish(why);
    stopText();
  }

  // --- inside -------------------------------------------------------------------------------------

  private Spoken utterance(String utteranceId) {
    String id = utteranceId != null ? utteranceId : idPrefix + "-" + ++idNumber;
    Spoken known = utterances.get(id);
    if (known == null) {
      forgetOldUtterances();
      known = new Spoken(id);
      utterances.put(id, known);
    }
    return known;
  }

  private Spoken unspoken(String utteranceId) {
    Spoken utterance = utterance(utteranceId);
    if (utterance.isOver()) {
      throw new IllegalArgumentException(
          "utterance '" + utteranceId + "' is over; what is new needs an id of its own, or none");
    }
    return utterance;
  }

  private void forgetOldUtterances() {
    // The ended ones are kept for a while: late text must find that its utterance is over.
    int excess = utterances.size() - REMEMBERED_UTTERANCES;
    Iterator<Spoken> all = utterances.values().iterator();
    while (excess > 0 && all.hasNext()) {
      if (all.next().outcome != null) {
        all.remove();
        excess--;
      }
    }
  }

  private static boolean isSound(SynthesisEvent event) {
    return event.kind() == SessionEvent.Kind.AUDIO || event.kind() == SessionEvent.Kind.WORD_TIMINGS;
  }

  private static boolean isOutcome(SynthesisEvent event) {
    return switch (event.kind()) {
      case UTTERANCE_COMPLETED, UTTERANCE_CANCELLED, UTTERANCE_FAILED -> true;
      default -> false;
    };
  }

  private static String utteranceOf(SynthesisEvent event) {
    return switch (event.kind()) {
      case UTTERANCE_STARTED -> event.utteranceStarted().getUtteranceId();
      case AUDIO -> event.audio().getUtteranceId();
      case WORD_TIMINGS -> event.wordTimings().getUtteranceId();
      case UTTERANCE_COMPLETED -> event.utteranceCompleted().getUtteranceId();
      case UTTERANCE_CANCELLED -> event.utteranceCancelled().getUtteranceId();
      case UTTERANCE_FAILED -> event.utteranceFailed().getUtteranceId();
      default -> "";
    };
  }

  @Override
  SynthesisEvent note(SynthesisEvent event) {
    Spoken utterance = utterances.get(utteranceOf(event));
    if (utterance == null) {
      return event;
    }
    switch (event.kind()) {
      case UTTERANCE_COMPLETED, UTTERANCE_CANCELLED, UTTERANCE_FAILED -> {
        boolean unheard = !utterance.heard && !utterance.cancelled;
        if (event.kind() == SessionEvent.Kind.UTTERANCE_FAILED
            && mayMove
            && unheard
            && Errors.fromStatus(event.utteranceFailed().getError()).reason().equals("GATEWAY_DRAINING")) {
          return null; // it is spoken elsewhere
        }
        settle(key(utterance.id));
        utterance.outcome = event;
        stop(utterance.job); // a failed utterance takes no more text
        return event;
      }
      case AUDIO, WORD_TIMINGS -> {
        utterance.heard = true;
        if (event.kind() == SessionEvent.Kind.AUDIO) {
          utterance.heardSeconds =
              Times.toSeconds(event.audio().getStartOffset())
                  + playingSeconds(event.audio().getAudio().size());
        }
        return utterance.cancelled ? null : event;
      }
      case UTTERANCE_STARTED -> {
        boolean again = utterance.started;
        utterance.started = true;
        return again ? null : event;
      }
      default -> {
        return event;
      }
    }
  }

  private double playingSeconds(int bytes) {
    int rate =
        started.getAudioFormat().getEncoding() == AudioEncoding.AUDIO_ENCODING_WAV
            ? 0
            : AudioMath.bytesPerSecond(started.getAudioFormat());
    return rate == 0 ? 0 : (double) bytes / rate;
  }

  // --- moving -------------------------------------------------------------------------------------

  private static Object key(String utteranceId) {
    return List.of("utterance", utteranceId);
  }

  @Override
  void keep(Object message) {
    String id = "";
    boolean isText = false;
    if (message instanceof TextInput text) {
      id = text.getUtteranceId();
      isText = true;
    } else if (message instanceof Flush flush) {
      id = flush.getUtteranceId();
    } else if (message instanceof EndUtterance end) {
      id = end.getUtteranceId();
    }
    Spoken utterance = utterances.get(id);
    if (utterance == null || utterance.outcome != null) {
      return;
    }
    Object key = key(id);
    if (isText || unfinished.stream().anyMatch(item -> item.key().equals(key))) {
      unfinished.add(new Unfinished(key, message, 0, 0));
    }
  }

  /** What was sent and has not ended, in order. */
  private Set<Spoken> pending() {
    Set<Spoken> pending = new LinkedHashSet<>();
    for (Unfinished item : unfinished) {
      if (item.message() instanceof TextInput text) {
        pending.add(utterances.get(text.getUtteranceId()));
      }
    }
    return pending;
  }

  @Override
  boolean isIdle() {
    return pending().stream().noneMatch(utterance -> utterance.heard || utterance.cancelled);
  }

  @Override
  boolean canMove() {
    return true;
  }

  @Override
  StartSynthesis startElsewhere() {
    return settings == null
        ? startMessage
        : startMessage.toBuilder().setSettings(settings.getSynthesis()).build();
  }

  @Override
  double carryOver() {
    for (Spoken utterance : pending()) {
      utterance.sessionNumber = moves + 1;
      if (utterance.heard || utterance.cancelled) { // its gateway is gone: it would have ended there
        WavegateException why = lastFailure();
        if (why == null) {
          why = Errors.connectionLost("the gateway has gone", "", null);
        }
        SynthesisEvent failed =
            event(
                SessionEvent.Kind.UTTERANCE_FAILED,
                UtteranceFailed.newBuilder()
                    .setUtteranceId(utterance.id)
                    .setError(why.toStatus())
                    .setRetryable(true)
                    .setAudioSentDuration(Times.toWire(utterance.heardSeconds))
                    .build());
        SynthesisEvent seen = note(failed);
        if (seen != null) {
          deliver(seen);
        }
      }
    }
    return 0;
  }

  @Override
  String whatIsLost() {
    List<String> lost = new ArrayList<>();
    for (Spoken utterance : pending()) {
      lost.add((utterance.heard ? "the rest of utterance " : "utterance ") + utterance.id);
    }
    return String.join(", ", lost);
  }

  /** The message of a change of settings. */
  Message update(wavegate.speech.v1.SynthesisSettings delta, UpdateOptions options, String updateId) {
    UpdateSynthesisSettings.Builder update =
        UpdateSynthesisSettings.newBuilder()
            .setUpdateId(updateId)
            .setSettings(delta)
            .setResetMask(mask(options))
            .setApplyPolicy(options.apply())
            .setValidateOnly(options.validateOnly());
    options.expectedRevision().ifPresent(update::setExpectedRevision);
    return update.build();
  }
}
