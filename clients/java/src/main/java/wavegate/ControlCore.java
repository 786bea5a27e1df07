package wavegate;

import com.google.protobuf.FieldMask;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import wavegate.speech.v1.SessionServiceGrpc;
import wavegate.speech.v1.SettingsAck;
import wavegate.speech.v1.UpdateSettingsRequest;
import wavegate.speech.v1.UpdateSettingsResponse;

/** What a {@link SettingsStream} does. */
final class ControlCore extends Duplex<UpdateSettingsRequest, UpdateSettingsResponse, SessionChange> {
  private final Map<String, SettingsAck> acks = new HashMap<>();
  private final Set<String> awaited = new HashSet<>();

  // Ids must not meet those of the session's own updates, nor of other callers' streams.
  private final String idPrefix = String.format("%08x", ThreadLocalRandom.current().nextInt());
  private int idNumber;

  ControlCore(Background background) {
    super(background, 0);
  }

  /** Opens the stream; that there is no gateway shows with the first update. */
  void open(GatewayChannel channel) {
    lock.lock();
    try {
      line = new Line<>(this, lock, background, channel);
      line.start(SessionServiceGrpc.getUpdateSettingsMethod(), TraceContext.current());
    } finally {
      lock.unlock();
    }
  }

  SettingsAck update(UpdateSettingsRequest.Builder request, UpdateOptions options) {
    String updateId;
    Ticket ticket;
    lock.lock();
    try {
      checkOpen();
      updateId = options.updateId().isEmpty() ? idPrefix + "-" + ++idNumber : options.updateId();
      if (!awaited.add(updateId)) {
        throw new IllegalArgumentException("update '" + updateId + "' of this stream is still under way");
      }
      request
          .setUpdateId(updateId)
          .setResetMask(FieldMask.newBuilder().addAllPaths(options.reset()))
          .setApplyPolicy(options.apply())
          .setValidateOnly(options.validateOnly())
          .setWatch(options.watch());
      options.expectedRevision().ifPresent(request::setExpectedRevision);
      options.afterInputSequence().ifPresent(request::setAfterInputSequence);
      ticket = put(request.build());
    } finally {
      lock.unlock();
    }
    try {
      awaitTaken(ticket);
      return SessionCore.checkAck(until(() -> acks.get(updateId)));
    } finally {
      lock.lock();
      try {
        awaited.remove(updateId);
        acks.remove(updateId);
      } finally {
        lock.unlock();
      }
    }
  }

  @Override
  SessionChange receive(UpdateSettingsResponse response) {
    switch (response.getEventCase()) {
      case ACK -> {
        SettingsAck ack = response.getAck();
        if (awaited.contains(ack.getUpdateId()) && ack.getState() != SettingsAck.State.STATE_QUEUED) {
          acks.put(ack.getUpdateId(), ack);
        }
        return new SessionChange(response.getSessionId(), response);
      }
      case CONNECTION, SESSION_ENDED -> {
        return new SessionChange(response.getSessionId(), response);
      }
      default -> {
        return null; // of a newer gateway
      }
    }
  }

  /** Ends the stream; a watched session may outlive our interest, so it is not waited for long. */
  void close() {
    boolean open;
    lock.lock();
    try {
      open = !finished && !inputEnded;
      if (open) {
        inputEnded = true;
        line.end();
      }
      discard();
    } finally {
      lock.unlock();
    }
    try {
      awaitFinished(GOODBYE);
    } finally {
      leaveAtOnce();
    }
    awaitQuietly(line.ended, GOODBYE);
    lock.lock();
    try {
      if (failure != null && !failureRaised) {
        throw closedError();
      }
    } finally {
      lock.unlock();
    }
  }

  void leaveAtOnce() {
    lock.lock();
    try {
      line.stop();
    } finally {
      lock.unlock();
    }
  }
}
