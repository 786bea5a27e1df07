package wavegate;

import java.time.Duration;

/**
 * A session's lost connection was made again; nothing was lost, and nothing comes twice.
 *
 * @param sessionId the session
 * @param outage how long it had no connection
 * @param attempts how many tries it took
 * @param cause what had ended the connection
 */
public record SessionResumed(String sessionId, Duration outage, int attempts, WavegateException cause) {}
