package wavegate;

import java.time.Duration;
import wavegate.speech.v1.SessionStarted;

/**
 * A session went on at another gateway, because its own one shut down. From here on it has another id.
 *
 * @param started the first answer of the session that goes on
 * @param previousSessionId the id until now
 * @param target where it is now
 * @param lostAudio transcription: audio that was not kept long enough to be sent again; zero for synthesis
 */
public record SessionMoved(SessionStarted started, String previousSessionId, String target, Duration lostAudio) {}
