import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/** What the windows need of a reading, and how it is decoded: Avro's generic reader, its record and decoder reused. */
public class Reading {
  private static final int FRAME = 5;

  public String sensor;
  public long time;
  public double value;

  public Reading() {}

  /** One per thread. */
  static final class Reader {
    private final GenericDatumReader<GenericRecord> reader;
    private BinaryDecoder decoder;
    private GenericRecord record;

    Reader(String schema) {
      reader = new GenericDatumReader<>(new Schema.Parser().parse(schema));
    }

    Reading read(byte[] data) throws IOException {
      decoder = DecoderFactory.get().binaryDecoder(data, FRAME, data.length - FRAME, decoder);
      record = reader.read(record, decoder);
      Reading reading = new Reading();
      reading.sensor = record.get("sensor_id").toString();
      reading.time = (Long) record.get("event_time");
      reading.value = (Double) record.get("value");
      return reading;
    }
  }

  static String schema(String path) throws IOException {
    return Files.readString(Path.of(path));
  }
}
