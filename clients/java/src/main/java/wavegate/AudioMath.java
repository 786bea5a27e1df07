package wavegate;

import wavegate.speech.v1.AudioEncoding;
import wavegate.speech.v1.AudioFormat;

/** Audio as bytes and as time. */
final class AudioMath {
  private AudioMath() {}

  /** The size of a sample of a raw format; 0 for a compressed one. */
  static int sampleBytes(AudioFormat format) {
    return switch (format.getEncoding()) {
      case AUDIO_ENCODING_UNSPECIFIED, AUDIO_ENCODING_LINEAR16 -> 2;
      case AUDIO_ENCODING_LINEAR32 -> 4;
      case AUDIO_ENCODING_MULAW, AUDIO_ENCODING_ALAW -> 1;
      default -> 0;
    };
  }

  /** The rate of a raw format; 0 for a compressed one, which has none. */
  static int bytesPerSecond(AudioFormat format) {
    return sampleBytes(format) * format.getSampleRateHertz();
  }

  static boolean isOpus(AudioFormat format) {
    return format.getEncoding() == AudioEncoding.AUDIO_ENCODING_OPUS;
  }

  /** The playing time of an Opus packet in samples at 48 kHz, as its first two bytes tell it (RFC 6716, 3.1 and 3.2). */
  static long opusSamples(byte[] packet) {
    if (packet.length == 0) {
      return 0;
    }
    int config = (packet[0] & 0xFF) >> 3;
    long samples;
    if (config < 12) { // SILK: 10, 20, 40, 60 ms
      samples = new int[] {480, 960, 1920, 2880}[config % 4];
    } else if (config < 16) { // hybrid: 10, 20 ms
      samples = new int[] {480, 960}[config % 2];
    } else { // CELT: 2.5, 5, 10, 20 ms
      samples = new int[] {120, 240, 480, 960}[config % 4];
    }
    int code = packet[0] & 3;
    int count =
        switch (code) {
          case 0 -> 1;
          case 1, 2 -> 2;
          default -> packet.length > 1 ? packet[1] & 63 : 0;
        };
    return samples * count;
  }

  /** Says how audio is cut into pieces of at most {@code limitBytes}, between samples; Opus packets stay whole. */
  static int pieceBytes(int length, AudioFormat format, int limitBytes) {
    if (isOpus(format)) {
      return Math.max(length, 1);
    }
    int width = Math.max(sampleBytes(format), 1);
    return Math.max(limitBytes - limitBytes % width, width);
  }
}
