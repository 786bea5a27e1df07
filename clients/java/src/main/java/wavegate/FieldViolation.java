package wavegate;

import java.io.Serializable;

/**
 * One field that the gateway refused.
 *
 * @param field path from the request message, such as {@code start.settings.speed}
 * @param description what is wrong with it
 */
public record FieldViolation(String field, String description) implements Serializable {}
