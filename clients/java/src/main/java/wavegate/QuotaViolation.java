package wavegate;

import java.io.Serializable;

/**
 * One limit that was reached.
 *
 * @param subject whose limit: {@code caller}, {@code gateway} or {@code upstream-account}
 * @param description which limit
 */
public record QuotaViolation(String subject, String description) implements Serializable {}
