import java.io.Closeable;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** Writes 16-bit samples as a WAV file while they come: what is on disk can be played at any moment. */
final class Wav implements Closeable {
  private static final int HEADER_BYTES = 44;

  private final RandomAccessFile file;
  private final int rate;
  private int bytes;

  Wav(Path path, int rate) throws IOException {
    this.file = new RandomAccessFile(path.toFile(), "rw");
    this.rate = rate;
    file.setLength(0);
    file.write(header(Integer.MAX_VALUE - HEADER_BYTES)); // "to the end", until the length is known
  }

  void write(byte[] samples) throws IOException {
    file.write(samples);
    bytes += samples.length;
  }

  double seconds() {
    return bytes / 2.0 / rate;
  }

  @Override
  public void close() throws IOException {
    file.seek(0);
    file.write(header(bytes));
    file.close();
  }

  private byte[] header(int dataBytes) {
    return ByteBuffer.allocate(HEADER_BYTES)
        .order(ByteOrder.LITTLE_ENDIAN)
        .put("RIFF".getBytes(StandardCharsets.US_ASCII))
        .putInt(HEADER_BYTES - 8 + dataBytes)
        .put("WAVEfmt ".getBytes(StandardCharsets.US_ASCII))
        .putInt(16)
        .putShort((short) 1)
        .putShort((short) 1)
        .putInt(rate)
        .putInt(rate * 2)
        .putShort((short) 2)
        .putShort((short) 16)
        .put("data".getBytes(StandardCharsets.US_ASCII))
        .putInt(dataBytes)
        .array();
  }
}
