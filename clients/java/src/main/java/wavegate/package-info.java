/**
 * Client of the wavegate speech gateway: text to speech and speech to text over gRPC.
 *
 * <p>Begin with {@link wavegate.Client}. Settings, audio formats and what sessions report are the contract's own messages,
 * of the package {@code wavegate.speech.v1}. Failures are {@link wavegate.WavegateException}.
 */
package wavegate;
