package wavegate;

import wavegate.speech.v1.UpdateSettingsResponse;

/**
 * Something that happened to a session, as a {@link SettingsStream} reports it: an acknowledgement, or of a watched
 * session anything that changes.
 *
 * @param sessionId the session
 * @param response the contract's message; which event it holds is told by {@code response().getEventCase()}
 */
public record SessionChange(String sessionId, UpdateSettingsResponse response) {}
