import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.WindowStore;

/** Kafka Streams: count, sum, least and greatest value per sensor and minute, at least once. */
public final class KafkaStreamsPeer {
  private static final Duration SIZE = Duration.ofSeconds(60);
  private static final Duration GRACE = Duration.ofSeconds(5);
  private static final ThreadLocal<AtomicLong> COUNT = ThreadLocal.withInitial(Progress::counter);

  public static void main(String[] args) throws IOException {
    String brokers = args[0], topic = args[1], schema = Reading.schema(args[2]), group = args[3], output = args[4], state = args[5];
    int threads = Integer.parseInt(args[6]);
    Properties p = new Properties();
    p.put("application.id", group);
    p.put("bootstrap.servers", brokers);
    p.put("num.stream.threads", threads);
    p.put("processing.guarantee", "at_least_once");
    p.put("auto.offset.reset", "earliest");
    p.put("state.dir", state);
    p.put("statestore.cache.max.bytes", 64L << 20);
    p.put("commit.interval.ms", 1000);
    p.put("max.poll.records", 10_000);
    p.put("max.partition.fetch.bytes", 8 << 20);

    StreamsBuilder builder = new StreamsBuilder();
    ReadingSerde readings = new ReadingSerde(schema);
    builder
        .stream(topic, Consumed.with(Serdes.ByteArray(), readings).withTimestampExtractor(new EventTime()))
        .groupByKey(Grouped.with(Serdes.ByteArray(), readings))
        .windowedBy(TimeWindows.ofSizeAndGrace(SIZE, GRACE))
        .aggregate(
            () -> new double[] {0, 0, Double.MAX_VALUE, -Double.MAX_VALUE},
            KafkaStreamsPeer::add,
            Materialized.<byte[], double[], WindowStore<Bytes, byte[]>>as("minutes")
                .withKeySerde(Serdes.ByteArray())
                .withValueSerde(new DoublesSerde()))
        .toStream()
        .to(output, Produced.with(WindowedSerdes.timeWindowedSerdeFrom(byte[].class, SIZE.toMillis()), new DoublesSerde()));
    KafkaStreams streams = new KafkaStreams(builder.build(), p);
    Progress.report();
    streams.start();
  }

  private static double[] add(byte[] key, Reading r, double[] before) {
    double[] a = before.clone();
    a[0] += 1;
    a[1] += r.value;
    a[2] = Math.min(a[2], r.value);
    a[3] = Math.max(a[3], r.value);
    AtomicLong count = COUNT.get();
    count.lazySet(count.get() + 1);
    return a;
  }

  public static final class EventTime implements TimestampExtractor {
    @Override
    public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
      return ((Reading) record.value()).time;
    }
  }

  private static final class ReadingSerde implements Serde<Reading>, Deserializer<Reading>, Serializer<Reading> {
    private final ThreadLocal<Reading.Reader> reader;

    ReadingSerde(String schema) {
      reader = ThreadLocal.withInitial(() -> new Reading.Reader(schema));
    }

    @Override
    public Reading deserialize(String topic, byte[] data) {
      try {
        return reader.get().read(data);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    @Override
    public byte[] serialize(String topic, Reading reading) {
      throw new UnsupportedOperationException("readings are not written");
    }

    @Override
    public Serializer<Reading> serializer() {
      return this;
    }

    @Override
    public Deserializer<Reading> deserializer() {
      return this;
    }

    @Override
    public void configure(Map<String, ?> settings, boolean isKey) {}

    @Override
    public void close() {}
  }

  private static final class DoublesSerde implements Serde<double[]>, Deserializer<double[]>, Serializer<double[]> {
    @Override
    public double[] deserialize(String topic, byte[] data) {
      if (data == null) {
        return null;
      }
      double[] numbers = new double[data.length / Double.BYTES];
      ByteBuffer.wrap(data).asDoubleBuffer().get(numbers);
      return numbers;
    }

    @Override
    public byte[] serialize(String topic, double[] numbers) {
      if (numbers == null) {
        return null;
      }
      ByteBuffer data = ByteBuffer.allocate(numbers.length * Double.BYTES);
      data.asDoubleBuffer().put(numbers);
      return data.array();
    }

    @Override
    public Serializer<double[]> serializer() {
      return this;
    }

    @Override
    public Deserializer<double[]> deserializer() {
      return this;
    }

    @Override
    public void configure(Map<String, ?> settings, boolean isKey) {}

    @Override
    public void close() {}
  }
}
