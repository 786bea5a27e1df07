package wavegate;

import wavegate.speech.v1.SynthesisServiceGrpc;
import wavegate.speech.v1.SynthesizeRequest;
import wavegate.speech.v1.SynthesizeResponse;

/** What a {@link SpeechStream} does: one text in, audio out. */
final class OnceCore extends Duplex<SynthesizeRequest, SynthesizeResponse, SynthesizeResponse> {
  private static final int BUFFER_LIMIT_BYTES = 64 * 1024;

  private final String target;
  private boolean completed;

  OnceCore(Background background, GatewayChannel channel, SynthesizeRequest request) {
    super(background, BUFFER_LIMIT_BYTES);
    this.target = channel.target;
    lock.lock();
    try {
      line = new Line<>(this, lock, background, channel);
      line.start(SynthesisServiceGrpc.getSynthesizeMethod(), TraceContext.current());
      line.put(request);
      line.end();
    } finally {
      lock.unlock();
    }
  }

  @Override
  SynthesizeResponse receive(SynthesizeResponse response) {
    completed |= response.hasUtteranceCompleted();
    return response.getEventCase() == SynthesizeResponse.EventCase.EVENT_NOT_SET ? null : response;
  }

  @Override
  int sizeBytes(SynthesizeResponse event) {
    return event.getAudio().getAudio().size();
  }

  @Override
  void finish(WavegateException why) {
    boolean cut = why == null && !completed && !line.cancelled;
    super.finish(
        cut
            ? Errors.connectionLost(
                "the gateway at " + target + " ended the speech before it was complete; ask again", "", null)
            : why);
  }

  Reader<byte[]> audioReader() {
    return new Reader<>(this) {
      @Override
      Object poll() {
        while (true) {
          if (!hasEvents() && !finished) {
            return PENDING;
          }
          SynthesizeResponse event = take();
          if (event == null) {
            return END;
          }
          if (event.hasAudio()) {
            return event.getAudio().getAudio().toByteArray();
          }
        }
      }
    };
  }

  /** Ends the call if it lives. */
  void leaveAtOnce() {
    lock.lock();
    try {
      line.stop();
      discard();
    } finally {
      lock.unlock();
    }
  }
}
