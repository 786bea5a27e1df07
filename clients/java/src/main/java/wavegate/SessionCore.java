package wavegate;

import com.google.protobuf.FieldMask;
import com.google.protobuf.Message;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BiConsumer;
import wavegate.speech.v1.CloseSessionRequest;
import wavegate.speech.v1.EffectiveSettings;
import wavegate.speech.v1.EndSession;
import wavegate.speech.v1.GoAway;
import wavegate.speech.v1.SessionEnded;
import wavegate.speech.v1.SessionServiceGrpc;
import wavegate.speech.v1.SessionStarted;
import wavegate.speech.v1.SettingsAck;

/**
 * What a synthesis and a transcription session have in common: numbers, settings, beginning and end, and survival.
 *
 * <p>A session that lost its call is <em>resumed</em>: the same session of the same gateway, over another call. Input is
 * numbered and kept until it is acknowledged, and what came is numbered too, so nothing is lost and nothing comes twice.
 *
 * <p>A session whose gateway shuts down is <em>moved</em>: another session, of another gateway, goes on where the first
 * one stood. What its gateway has not brought to an end is said again there, so it is kept until then; the kinds of
 * session say what that is, and at what point one session may follow the other.
 *
 * @param <Q> what is sent
 * @param <R> what is received
 * @param <S> the first input
 * @param <E> what the caller sees
 */
abstract class SessionCore<Q extends Message, R extends Message, S extends Message, E extends SessionEvent>
    extends Duplex<Q, R, E> {
  /** Input that is taken while there is no call: half a minute of 16-bit samples at 16000 Hz. Then senders wait. */
  private static final int KEPT_BYTES = 1024 * 1024;

  /** How long a session that was told to go away looks for another gateway, beyond the time that it was given. */
  private static final Duration MOVE_PATIENCE = Duration.ofSeconds(30);

  /** How long to wait, in seconds, before asking again where every gateway that answered shuts down. */
  private static final double[] DRAINING_DELAYS = {0.1, 0.3, 1};

  /** How long one try for that may take. */
  private static final Duration OPEN_ELSEWHERE = Duration.ofSeconds(5);

  /** How long a lost call is tried again where another session is about to take over anyway. */
  private static final Duration MOVING_RESUME = Duration.ofSeconds(2);

  /** How long one try to resume may take. */
  private static final Duration RESUME_TRY = Duration.ofSeconds(5);

  /** For ending a session from outside, where its own call does not let us. */
  private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(1);

  /** How long leaving may take in all: a last write, a last answer, an end from outside and a goodbye. */
  private static final Duration LEAVE_TIMEOUT = Duration.ofSeconds(4);

  final Channels channels;
  final S startMessage;
  final boolean mayMove;

  /** The trace context of the span in which the session was opened; all of its calls are parts of that. */
  private final Map<String, String> trace = TraceContext.current();

  private final Duration openTimeout;

  /** Asked for; then, what was granted. */
  private Duration resumeWindow;

  InputLog<Q> log = new InputLog<>();
  Deque<Unfinished> unfinished = new ArrayDeque<>();
  SessionStarted started;
  long settingsRevision;
  SessionEnded ended;
  GoAway goAway;

  /** The settings in force, for the caller and for a session elsewhere. */
  EffectiveSettings settings;

  /** How often the session went to another gateway. */
  int moves;

  /** Whether the session at the gateway is over before its work is done; its last words wait then. */
  boolean givenUp;

  private SessionEnded lastWord;
  private WavegateException lastFailure;

  private long lastReceivedSequence;
  private final Map<String, SettingsAck> acks = new HashMap<>();
  private final Set<String> awaitedAcks = new HashSet<>();
  private int updateNumber;
  private final List<CompletableFuture<Void>> leaving = new ArrayList<>();

  private Attempt resuming;
  private Outage outage;
  private Move moving;
  private Successor<Q, R, S> successor;

  /** An input that another session would need, until what it belongs to ({@code key}) has come to its end. */
  record Unfinished(Object key, Object message, long start, long end) {}

  /** A session that was opened or taken up on a line. */
  private record Opened<Q, R>(Line<Q, R> line, R response, int attempts) {}

  /** A session that is open elsewhere, and the start that it was opened with. */
  private record Successor<Q, R, S>(Line<Q, R> line, R response, S start) {}

  /** Since when nothing has come, over any number of calls, and when to try again. */
  private record Outage(long sinceNanos, Delays delays) {}

  /** A search for another gateway. */
  private final class Move {
    final long deadlineNanos;
    final Delays delays = new Delays();
    Attempt attempt;
    Future<?> timer;

    Move(long deadlineNanos) {
      this.deadlineNanos = deadlineNanos;
    }

    void cancel() {
      if (timer != null) {
        timer.cancel(false);
      }
      if (attempt != null) {
        attempt.cancel();
      }
    }
  }

  /** Tries to open or to resume a session. Its result completes with the lock held. */
  private final class Attempt {
    final CompletableFuture<Opened<Q, R>> result = new CompletableFuture<>();
    private boolean cancelled;
    private Line<Q, R> current;
    private Future<?> timer;

    void after(Duration delay, Runnable work) {
      timer = background.later(delay, () -> locked(() -> {
        if (!cancelled) {
          work.run();
        }
      }));
    }

    void fail(Throwable why) {
      result.completeExceptionally(why);
    }

    void cancel() {
      if (cancelled || result.isDone()) {
        return;
      }
      cancelled = true;
      if (timer != null) {
        timer.cancel(false);
      }
      if (current != null) {
        retire(current);
      }
      result.cancel(false);
    }
  }

  SessionCore(
      Background background, Channels channels, S startMessage, SessionOptions options, int bufferLimitBytes) {
    super(background, bufferLimitBytes);
    this.channels = channels;
    this.startMessage = startMessage;
    this.resumeWindow = options.resumeWindow();
    this.openTimeout = options.openTimeout();
    this.mayMove = options.move();
  }

  // --- what a kind of session says ----------------------------------------------------------------

  abstract MethodDescriptor<Q, R> method();

  /** An input. */
  abstract Q request(long sequence, Object message);

  abstract S startOfResumed(String sessionId, long lastReceived);

  abstract long sequence(R response);

  abstract long acknowledged(R response);

  /** The event of a response, or null if this client does not know its kind. */
  abstract E convert(R response);

  abstract E event(SessionEvent.Kind kind, Object value);

  /** Takes note of an event of this kind of session; gives what the caller shall see of it. */
  abstract E note(E event);

  /** Puts an input among the unfinished, if another session would need it. */
  abstract void keep(Object message);

  /** Whether another session can go on from here. */
  abstract boolean isIdle();

  /** Whether it can at all. */
  abstract boolean canMove();

  /** The start of a session that goes on where this one stands. */
  abstract S startElsewhere();

  /** Prepares the unfinished input for another session; the playing time of the audio that is lost, in seconds. */
  abstract double carryOver();

  /** What will not come where this session is lost; empty for nothing. */
  abstract String whatIsLost();

  // --- beginning and end --------------------------------------------------------------------------

  /** Opens the session; returns once the upstream has accepted it. */
  void open() {
    Attempt attempt = new Attempt();
    locked(
        () -> {
          react(
              attempt.result,
              (opened, thrown) -> {
                if (opened != null) {
                  log.add(sequence -> request(sequence, startMessage));
                  E event = receive(opened.response());
                  if (event != null) {
                    deliver(event);
                  }
                  attach(opened.line());
                }
              });
          openSomewhere(startMessage, attempt);
        });
    try {
      if (openTimeout == null) {
        attempt.result.get();
      } else {
        attempt.result.get(openTimeout.toNanos(), TimeUnit.NANOSECONDS);
      }
    } catch (ExecutionException e) {
      leaveAtOnce();
      if (e.getCause() instanceof WavegateException failed) {
        throw failed.again();
      }
      if (e.getCause() instanceof RuntimeException failed) {
        throw failed;
      }
      throw new IllegalStateException(e.getCause());
    } catch (TimeoutException e) {
      if (!gaveUpOpening(attempt)) {
        return;
      }
      throw Errors.deadline(
          "the gateway at "
              + channels.current().target
              + " did not open the session in "
              + openTimeout.toMillis() / 1e3
              + " s");
    } catch (InterruptedException e) {
      if (!gaveUpOpening(attempt)) {
        Thread.currentThread().interrupt();
        return;
      }
      throw interrupted();
    } catch (CancellationException e) {
      throw Errors.sessionClosed("the client was closed");
    }
  }

  /** False where it was opened in the last moment. */
  private boolean gaveUpOpening(Attempt attempt) {
    lock.lock();
    try {
      if (line != null) {
        return false;
      }
      attempt.cancel();
      leaveAtOnce();
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** Says that no input follows. */
  void end() {
    awaitTaken(lockedGet(() -> send(EndSession.getDefaultInstance())));
  }

  /** Ends the session now: what is not finished is dropped. */
  void discardAll() {
    awaitTaken(lockedGet(() -> send(EndSession.newBuilder().setDiscard(true).build())));
  }

  /** Finishes the session, and raises its failure if nobody has seen it yet. */
  void close() {
    try {
      boolean open = lockedGet(() -> !finished && !inputEnded);
      if (open) {
        try {
          end();
        } catch (SessionClosedException e) {
          open = false; // it has ended by itself meanwhile
        }
      }
      drain();
    } finally {
      leave();
    }
  }

  /** Ends the session at once. */
  void leave() {
    leaveAtOnce();
    CompletableFuture<Void> all =
        lockedGet(
            () -> {
              discard();
              return CompletableFuture.allOf(leaving.toArray(CompletableFuture[]::new));
            });
    awaitQuietly(all, LEAVE_TIMEOUT);
  }

  /** Ends the session at once, and waits for nothing. */
  void leaveAtOnce() {
    locked(
        () -> {
          if (line != null) {
            if (finished) {
              stopLine(line);
            } else {
              finish(null);
              retire(line);
            }
          } else if (!finished) {
            finish(null);
          }
          if (resuming != null) {
            resuming.cancel();
          }
          if (moving != null) {
            moving.cancel();
          }
        });
  }

  // --- events -------------------------------------------------------------------------------------

  @Override
  public boolean onResponse(Line<Q, R> from, R response) {
    if (from.opening != null) {
      return onOpening(from, response);
    }
    if (from != line || sequence(response) <= lastReceivedSequence) {
      return false;
    }
    E event = receive(response);
    if (event != null) {
      deliver(event);
    }
    notifyChanged();
    if (successor != null && isIdle()) {
      moveOver();
    }
    return ended != null || lastWord != null;
  }

  @Override
  E receive(R response) {
    lastReceivedSequence = sequence(response);
    outage = null;
    log.acknowledge(acknowledged(response));
    E event = convert(response);
    if (event == null) {
      return null;
    }
    switch (event.kind()) {
      case SESSION_STARTED -> {
        started = event.sessionStarted();
        settings = started.getSettings();
        settingsRevision = started.getSettingsRevision();
        resumeWindow = Times.toJava(started.getLimits().getResumeWindow());
        if (resumeWindow.isZero()) {
          log.keepNothing();
        }
      }
      case SETTINGS_ACK -> onAck(event.settingsAck());
      case GO_AWAY -> {
        goAway = event.goAway();
        if (!goAway.getResumable()) {
          beginMoving(Times.toJava(goAway.getTimeLeft()));
        }
      }
      case SESSION_ENDED -> {
        SessionEnded last = event.sessionEnded();
        if (last.getReason() == SessionEnded.Reason.REASON_DRAIN && mayMove && canMove()) {
          // Its time is up. What it has not brought to an end goes on elsewhere.
          lastWord = last;
          lastFailure = failureIn(last);
          beginMoving(Duration.ZERO);
          return null;
        }
        ended = last;
      }
      default -> {}
    }
    return note(event);
  }

  private void onAck(SettingsAck ack) {
    if (ack.getState() == SettingsAck.State.STATE_APPLIED && ack.hasSettings()) {
      settings = ack.getSettings();
      settingsRevision = ack.getSettingsRevision();
    }
    if (ack.getState() != SettingsAck.State.STATE_QUEUED) {
      settle(updateKey(ack.getUpdateId()));
      if (awaitedAcks.contains(ack.getUpdateId())) {
        acks.put(ack.getUpdateId(), ack);
      }
    }
  }

  private static WavegateException failureIn(SessionEnded last) {
    return last.hasStatus() && last.getStatus().getCode() != 0 ? Errors.fromStatus(last.getStatus()) : null;
  }

  @Override
  void finish(WavegateException why) {
    finished = true; // so that what is cancelled here is not tried again
    if (resuming != null) {
      resuming.cancel();
    }
    if (moving != null) {
      moving.cancel();
    }
    if (successor != null) {
      retire(successor.line());
      successor = null;
    }
    // What session_ended says counts: the call's own status is lost where the gateway ends it while we write.
    super.finish(ended != null ? failureIn(ended) : why);
  }

  // --- input --------------------------------------------------------------------------------------

  /** Sends one input, with the lock held. */
  Ticket send(Object message) {
    checkOpen();
    Q request = log.add(sequence -> request(sequence, message));
    if (message instanceof EndSession) {
      inputEnded = true;
      unfinished.add(new Unfinished("end", message, 0, 0));
    } else {
      keep(message);
    }
    return put(request);
  }

  private static Object updateKey(String updateId) {
    return List.of("update", updateId);
  }

  @Override
  boolean isTaken(Line<Q, R> sentOn, int number) {
    // What another call has to send again is in good hands as soon as there is one.
    boolean kept = sentOn.over && log.keptBytes() < KEPT_BYTES;
    return sentOn.written >= number || sentOn != line || kept;
  }

  /** What belongs to {@code key} has come to its end. */
  void settle(Object key) {
    unfinished.removeIf(item -> item.key().equals(key));
  }

  /** Sends a change of settings and waits for what becomes of it. */
  SettingsAck update(UpdateOptions options, UpdateMaker make) {
    String updateId;
    Ticket ticket;
    lock.lock();
    try {
      updateId = options.updateId().isEmpty() ? "update-" + ++updateNumber : options.updateId();
      checkOpen();
      if (!awaitedAcks.add(updateId)) {
        throw new IllegalArgumentException("update '" + updateId + "' of this session is still under way");
      }
      Message message = make.with(updateId);
      ticket = send(message);
      unfinished.add(new Unfinished(updateKey(updateId), message, 0, 0));
    } finally {
      lock.unlock();
    }
    try {
      awaitTaken(ticket);
      return checkAck(until(() -> acks.get(updateId)));
    } finally {
      locked(
          () -> {
            awaitedAcks.remove(updateId);
            acks.remove(updateId);
          });
    }
  }

  /** Makes the message of an update. */
  interface UpdateMaker {
    Message with(String updateId);
  }

  /** The terminal ack of a change that was not refused. */
  static SettingsAck checkAck(SettingsAck ack) {
    if (ack.getState() == SettingsAck.State.STATE_REJECTED) {
      throw ack.hasError()
          ? Errors.fromStatus(ack.getError())
          : Errors.other("the settings were refused without a reason", Status.Code.UNKNOWN, null);
    }
    if (ack.getState() == SettingsAck.State.STATE_SESSION_ENDED) {
      throw Errors.sessionClosed("the session ended before the settings were applied");
    }
    return ack;
  }

  static FieldMask mask(UpdateOptions options) {
    return FieldMask.newBuilder().addAllPaths(options.reset()).build();
  }

  // --- opening ------------------------------------------------------------------------------------

  /**
   * Opens a session on the first target that takes it; fails with what the last one says against it.
   *
   * <p>Where that is a gateway that shuts down, all are asked again a few times: a balancer may need a second until it
   * leads elsewhere.
   */
  private void openSomewhere(S start, Attempt attempt) {
    openRound(start, attempt, 0);
  }

  private void openRound(S start, Attempt attempt, int round) {
    openNext(start, attempt, round, new ArrayDeque<>(channels.candidates()), 0);
  }

  private void openNext(
      S start, Attempt attempt, int round, Deque<GatewayChannel> left, int freshOnes) {
    GatewayChannel channel = left.remove();
    react(
        openOn(channel, start, attempt),
        (opened, thrown) -> {
          if (attempt.cancelled) {
            if (opened != null) {
              retire(opened.line());
            }
            return;
          }
          if (opened != null) {
            channels.prefer(channel);
            attempt.result.complete(opened);
            return;
          }
          Throwable why = unwrapped(thrown);
          if (!(why instanceof GatewayUnavailableException unavailable)) {
            attempt.fail(why);
            return;
          }
          int fresh = freshOnes;
          boolean draining = unavailable.reason().equals("GATEWAY_DRAINING");
          if (draining) {
            // Behind the same address there may be another process; one look is enough.
            GatewayChannel other = channels.leave(channel);
            if (other != null && ++fresh <= channels.candidates().size()) {
              left.add(other);
            }
          }
          if (!left.isEmpty()) {
            openNext(start, attempt, round, left, fresh);
          } else if (draining && round < DRAINING_DELAYS.length) {
            attempt.after(
                Delays.about(DRAINING_DELAYS[round]), () -> openRound(start, attempt, round + 1));
          } else {
            attempt.fail(why);
          }
        });
  }

  /** Opens a session. One whose call is lost before the upstream has accepted it is resumed. */
  private CompletableFuture<Opened<Q, R>> openOn(GatewayChannel channel, S start, Attempt attempt) {
    CompletableFuture<Opened<Q, R>> result = new CompletableFuture<>();
    Line<Q, R> begun = begin(channel, start, "", attempt, null, result);
    if (begun == null) {
      return result;
    }
    CompletableFuture<Opened<Q, R>> survived = new CompletableFuture<>();
    react(
        result,
        (opened, thrown) -> {
          boolean lost = unwrapped(thrown) instanceof ConnectionLostException;
          if (opened != null) {
            survived.complete(opened);
          } else if (attempt.cancelled || !lost || begun.sessionId.isEmpty() || resumeWindow.isZero()) {
            survived.completeExceptionally(thrown);
          } else {
            long deadline = System.nanoTime() + resumeWindow.toNanos();
            takeUp(
                new TakeUp(begun, begun.sessionId, 0, deadline, new Delays(), attempt, survived),
                1,
                Errors.unavailable("the gateway at " + channel.target + " does not answer"));
          }
        });
    return survived;
  }

  /** What it takes to resume the session of a lost call. */
  private final class TakeUp {
    final Line<Q, R> lost;
    final S start;
    final long deadlineNanos;
    final Delays delays;
    final Attempt attempt;
    final CompletableFuture<Opened<Q, R>> result;

    TakeUp(
        Line<Q, R> lost,
        String sessionId,
        long lastReceived,
        long deadlineNanos,
        Delays delays,
        Attempt attempt,
        CompletableFuture<Opened<Q, R>> result) {
      this.lost = lost;
      this.start = startOfResumed(sessionId, lastReceived);
      this.deadlineNanos = deadlineNanos;
      this.delays = delays;
      this.attempt = attempt;
      this.result = result;
    }
  }

  /** Resumes a session. Fails with what made the last try fail. */
  private void takeUp(TakeUp work, int number, Throwable failed) {
    Duration delay = work.delays.next();
    long left = work.deadlineNanos - System.nanoTime() - delay.toNanos();
    if (left <= 0) {
      work.result.completeExceptionally(failed);
      return;
    }
    Duration patience = left < RESUME_TRY.toNanos() ? Duration.ofNanos(left) : RESUME_TRY;
    work.attempt.after(
        delay,
        () -> {
          CompletableFuture<Opened<Q, R>> tried = new CompletableFuture<>();
          begin(work.lost.channel, work.start, work.lost.route, work.attempt, patience, tried);
          react(
              tried,
              (opened, thrown) -> {
                Throwable why = unwrapped(thrown);
                if (work.attempt.cancelled) {
                  if (opened != null) {
                    retire(opened.line());
                  }
                } else if (opened != null) {
                  work.result.complete(new Opened<>(opened.line(), opened.response(), number));
                } else if (why instanceof GatewayUnavailableException) {
                  takeUp(work, number + 1, why);
                } else if (why instanceof DeadlineException) {
                  takeUp(work, number + 1, failed);
                } else {
                  work.result.completeExceptionally(why);
                }
              });
        });
  }

  /**
   * Begins a call, and waits for the first answer; nothing more is read until the line is attached.
   *
   * @param patience how long that may take; the session is left to another call then. Null: until it is there.
   */
  private Line<Q, R> begin(
      GatewayChannel channel,
      S start,
      String route,
      Attempt attempt,
      Duration patience,
      CompletableFuture<Opened<Q, R>> result) {
    Line<Q, R> begun = new Line<>(this, lock, background, channel, route);
    CompletableFuture<R> opening = new CompletableFuture<>();
    begun.opening = opening;
    try {
      begun.start(method(), trace);
    } catch (RuntimeException e) {
      result.completeExceptionally(e);
      return null;
    }
    attempt.current = begun;
    Future<?> timer =
        patience == null
            ? null
            : background.later(
                patience,
                () ->
                    locked(
                        () ->
                            opening.completeExceptionally(
                                Errors.deadline("the gateway at " + channel.target + " does not answer"))));
    react(
        opening,
        (response, thrown) -> {
          begun.opening = null;
          if (attempt.current == begun) {
            attempt.current = null;
          }
          if (timer != null) {
            timer.cancel(false);
          }
          if (response != null) {
            result.complete(new Opened<>(begun, response, 1));
          } else {
            stopLine(begun);
            result.completeExceptionally(thrown);
          }
        });
    begun.put(request(1, start));
    return begun;
  }

  private boolean onOpening(Line<Q, R> from, R response) {
    CompletableFuture<R> opening = from.opening;
    E event = convert(response);
    if (event == null) {
      return false;
    }
    if (event.kind() == SessionEvent.Kind.SESSION_ENDED) {
      WavegateException why = failureIn(event.sessionEnded());
      opening.completeExceptionally(
          why != null ? why : Errors.sessionClosed("the session ended before it was open"));
      return true;
    }
    // Of a session that is resumed before it was open the first answer, number 0, says little.
    if (event.kind() == SessionEvent.Kind.SESSION_STARTED && sequence(response) > 0) {
      from.sessionId = event.sessionStarted().getSessionId();
      from.setFlow(false);
      opening.complete(response);
    }
    return false;
  }

  private void attach(Line<Q, R> opened) {
    boolean over = opened.over; // else what it hands on now may end it
    line = opened;
    updateFlow();
    notifyChanged();
    if (over && line == opened && !finished) {
      onOver(opened, opened.failure);
    }
  }

  /** Does something, with the lock held, when a future is there. A fault in it must not leave anybody waiting. */
  private <T> void react(CompletableFuture<T> future, BiConsumer<T, Throwable> reaction) {
    CompletableFuture<T> unused =
        future.whenComplete(
            (value, thrown) -> {
              lock.lock(); // whoever waits for a future may come to help with what depends on it
              try {
                reaction.accept(value, thrown);
              } catch (RuntimeException | Error e) {
                finish(Errors.other("the client failed: " + e, Status.Code.INTERNAL, e));
                throw e;
              } finally {
                lock.unlock();
              }
            });
  }

  private static Throwable unwrapped(Throwable thrown) {
    return thrown instanceof CompletionException && thrown.getCause() != null ? thrown.getCause() : thrown;
  }

  // --- surviving ----------------------------------------------------------------------------------

  @Override
  public void onOver(Line<Q, R> lost, WavegateException why) {
    WavegateException failed = why;
    if (failed == null && !lost.cancelled) {
      failed =
          Errors.connectionLost(
              "the gateway at "
                  + lost.channel.target
                  + " ended the call without a last word; open a new session",
              "",
              null);
    }
    if (lost.opening != null) {
      lost.opening.completeExceptionally(
          failed != null ? failed : Errors.sessionClosed("the client was closed"));
    } else if (lost != line || finished) {
      return;
    } else if (ended != null || lost.cancelled) {
      finish(failed);
    } else if (lastWord != null) {
      giveUp(lastWord, lastFailure);
    } else if (!(failed instanceof ConnectionLostException)) {
      finish(failed);
    } else if (log.keeps() && !(moving != null && isIdle())) {
      resume(lost, failed);
      notifyChanged(); // whose input was not written yet need not wait: the next call sends it again
    } else {
      giveUp(null, toldWhatIsLost(failed, null));
    }
  }

  private void resume(Line<Q, R> lost, WavegateException cause) {
    long now = System.nanoTime();
    if (outage == null) {
      outage = new Outage(now, new Delays());
    }
    Duration window = moving == null ? resumeWindow : MOVING_RESUME;
    Attempt attempt = new Attempt();
    resuming = attempt;
    react(
        attempt.result,
        (opened, thrown) -> {
          if (attempt.cancelled || resuming != attempt || finished) {
            if (opened != null) {
              retire(opened.line());
            }
            return;
          }
          resuming = null;
          if (opened == null) {
            Throwable why = unwrapped(thrown);
            giveUp(
                null,
                toldWhatIsLost(
                    cause,
                    why instanceof WavegateException known
                        ? known
                        : Errors.other(String.valueOf(why.getMessage()), Status.Code.INTERNAL, why)));
            return;
          }
          stopLine(lost);
          SessionStarted again = convert(opened.response()).sessionStarted();
          log.acknowledge(again.getInputSequenceAcknowledged());
          log.unacknowledged().forEach(opened.line()::put);
          Duration gone = Duration.ofNanos(System.nanoTime() - now);
          deliver(
              event(
                  SessionEvent.Kind.SESSION_RESUMED,
                  new SessionResumed(started.getSessionId(), gone, opened.attempts(), cause)));
          attach(opened.line());
        });
    takeUp(
        new TakeUp(
            lost,
            started.getSessionId(),
            lastReceivedSequence,
            outage.sinceNanos() + window.toNanos(),
            outage.delays(),
            attempt,
            attempt.result),
        1,
        Errors.unavailable("the gateway at " + lost.channel.target + " does not answer"));
  }

  /** The session at the gateway is over. If another one can be had, that goes on; else this is the end. */
  private void giveUp(SessionEnded last, WavegateException why) {
    givenUp = true;
    lastWord = last;
    lastFailure = why;
    if (moving == null) {
      sayLastWords();
    } else if (successor != null) {
      moveOver();
    }
    notifyChanged();
  }

  private void sayLastWords() {
    if (lastWord != null) {
      ended = lastWord;
      E seen = note(event(SessionEvent.Kind.SESSION_ENDED, lastWord));
      if (seen != null) {
        deliver(seen);
      }
    }
    finish(lastFailure);
  }

  /** Why a session at another gateway cannot go on with what this one had begun. */
  WavegateException lastFailure() {
    return lastFailure;
  }

  private WavegateException toldWhatIsLost(WavegateException failed, WavegateException why) {
    StringBuilder message = new StringBuilder(failed.getMessage());
    if (why != null) {
      message.append("\n  it could not be resumed: ").append(why.getMessage());
    }
    String lost = whatIsLost();
    if (!lost.isEmpty()) {
      message.append("\n  lost: ").append(lost);
    }
    return Errors.connectionLost(
        message.toString(), why == null ? "" : why.reason(), why == null ? failed : why);
  }

  private void beginMoving(Duration timeLeft) {
    if (moving != null || !mayMove || !canMove() || finished) {
      return;
    }
    moving = new Move(System.nanoTime() + timeLeft.plus(MOVE_PATIENCE).toNanos());
    channels.leave(line.channel);
    moveAfterDelay(moving);
  }

  private void moveAfterDelay(Move move) {
    move.timer =
        background.later(
            move.delays.next(),
            () ->
                locked(
                    () -> {
                      if (moving == move && !finished) {
                        tryToMove(move);
                      }
                    }));
  }

  /** Opens a session elsewhere, which follows this one as soon as it may. */
  private void tryToMove(Move move) {
    if (System.nanoTime() >= move.deadlineNanos) {
      moving = null;
      pause(false);
      if (givenUp) {
        sayLastWords();
      }
      return;
    }
    // Where it can follow at once, what it starts from must not change until it does.
    pause(isBetween());
    if (moving != move || finished) {
      return;
    }
    S start = startElsewhere();
    Attempt attempt = new Attempt();
    move.attempt = attempt;
    Future<?> timer = background.later(OPEN_ELSEWHERE, () -> locked(attempt::cancel));
    react(
        attempt.result,
        (opened, thrown) -> {
          timer.cancel(false);
          if (moving != move || finished) {
            if (opened != null) {
              retire(opened.line());
            }
            return;
          }
          if (opened == null) {
            // The next try may do better, and the session lives on meanwhile.
            pause(false);
            if (moving == move && !finished) {
              moveAfterDelay(move);
            }
            return;
          }
          successor = new Successor<>(opened.line(), opened.response(), start);
          if (isBetween()) {
            moveOver();
          }
        });
    openSomewhere(start, attempt);
  }

  private boolean isBetween() {
    return givenUp || isIdle();
  }

  private void pause(boolean on) {
    paused = on;
    updateFlow();
  }

  /** Lets the session that was opened elsewhere follow this one. */
  private void moveOver() {
    Successor<Q, R, S> next = successor;
    successor = null;
    if (next.line().over || !next.start().equals(startElsewhere())) {
      // It was lost, or the settings have changed since: another one is opened.
      pause(true);
      retire(next.line());
      notifyChanged();
      moveAfterDelay(moving);
      return;
    }
    Line<Q, R> left = line;
    SessionStarted was = started;
    double lostSeconds = carryOver();
    log = new InputLog<>();
    log.add(sequence -> request(sequence, next.start()));
    receive(next.response());
    for (Unfinished item : unfinished) {
      next.line().put(log.add(sequence -> request(sequence, item.message())));
    }
    if (givenUp) {
      stopLine(left);
    } else {
      retire(left);
    }
    Attempt resumed = resuming;
    resuming = null;
    if (resumed != null) {
      resumed.cancel();
    }
    moving = null;
    goAway = null;
    givenUp = false;
    lastWord = null;
    lastFailure = null;
    moves++;
    paused = false;
    deliver(
        event(
            SessionEvent.Kind.SESSION_MOVED,
            new SessionMoved(
                started, was.getSessionId(), next.line().channel.target, Times.ofSeconds(lostSeconds))));
    attach(next.line());
  }

  // --- leaving ------------------------------------------------------------------------------------

  /** Ends a session that is not wanted any more, at the gateway too, which would keep it for its window. */
  private void retire(Line<Q, R> left) {
    if (resumeWindow.isZero()) {
      stopLine(left);
      return;
    }
    Q last = request(0, EndSession.newBuilder().setDiscard(true).build());
    CompletableFuture<Void> done =
        left.discard(last)
            .thenCompose(
                sent ->
                    sent || left.sessionId.isEmpty()
                        ? CompletableFuture.<Void>completedFuture(null)
                        : closeFromOutside(left))
            .thenRun(() -> locked(left::stop))
            .thenCompose(stopped -> left.ended);
    leaving(done);
  }

  private void stopLine(Line<Q, R> left) {
    left.stop();
    leaving(left.ended);
  }

  private void leaving(CompletableFuture<Void> done) {
    leaving.removeIf(CompletableFuture::isDone);
    leaving.add(done);
  }

  /** It takes no more input, or has no call. */
  private CompletableFuture<Void> closeFromOutside(Line<Q, R> left) {
    CloseSessionRequest request =
        CloseSessionRequest.newBuilder().setSessionId(left.sessionId).setDiscard(true).build();
    CompletableFuture<Void> done = new CompletableFuture<>();
    try {
      var answer =
          left.channel.future(
              SessionServiceGrpc.getCloseSessionMethod(), request, CLOSE_TIMEOUT, left.route);
      answer.addListener(() -> done.complete(null), Runnable::run);
    } catch (SessionClosedException e) {
      done.complete(null); // the client is closed, and so is its connection
    }
    return done;
  }

  /** State, id and number of inputs, for people. */
  String describe() {
    return lockedGet(
        () -> {
          String state = finished ? "ENDED" : inputEnded ? "ENDING" : "OPEN";
          return state + " " + (started == null ? "-" : started.getSessionId()) + " inputs=" + log.lastSequence();
        });
  }

  // --- locking ------------------------------------------------------------------------------------

  void locked(Runnable work) {
    lock.lock();
    try {
      work.run();
    } finally {
      lock.unlock();
    }
  }

  <T> T lockedGet(java.util.function.Supplier<T> work) {
    lock.lock();
    try {
      return work.get();
    } finally {
      lock.unlock();
    }
  }
}
