import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Flink, DataStream API: the same windows; heap state, a checkpoint every second, objects reused, rows discarded. */
public final class FlinkPeer {
  private static final Duration SIZE = Duration.ofSeconds(60);
  private static final Duration DISORDER = Duration.ofSeconds(5);

  public static void main(String[] args) throws Exception {
    String brokers = args[0], topic = args[1], schema = Reading.schema(args[2]), group = args[3];
    int slots = Integer.parseInt(args[4]);
    Configuration c = new Configuration();
    c.setString("taskmanager.memory.network.min", "256mb");
    c.setString("taskmanager.memory.network.max", "256mb");
    StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(slots, c);
    env.enableCheckpointing(1000);
    env.getConfig().enableObjectReuse();
    KafkaSource<Reading> source =
        KafkaSource.<Reading>builder()
            .setBootstrapServers(brokers)
            .setTopics(topic)
            .setGroupId(group)
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setBounded(OffsetsInitializer.latest())
            .setDeserializer(new Deserializer(schema))
            .setProperty("max.poll.records", "10000")
            .setProperty("max.partition.fetch.bytes", "8388608")
            .build();
    WatermarkStrategy<Reading> watermarks =
        WatermarkStrategy.<Reading>forBoundedOutOfOrderness(DISORDER).withTimestampAssigner((r, t) -> r.time);
    env.fromSource(source, watermarks, "readings")
        .keyBy(r -> r.sensor)
        .window(TumblingEventTimeWindows.of(SIZE))
        .aggregate(new Statistics())
        .sinkTo(new DiscardingSink<>());
    Progress.report();
    env.execute();
  }

  public static final class Deserializer implements KafkaRecordDeserializationSchema<Reading> {
    private final String schema;
    private transient Reading.Reader reader;

    Deserializer(String schema) {
      this.schema = schema;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Reading> out) throws IOException {
      if (reader == null) {
        reader = new Reading.Reader(schema);
      }
      out.collect(reader.read(record.value()));
    }

    @Override
    public TypeInformation<Reading> getProducedType() {
      return TypeInformation.of(Reading.class);
    }
  }

  public static final class Accumulator {
    public long count;
    public double sum;
    public double min = Double.MAX_VALUE;
    public double max = -Double.MAX_VALUE;

    public Accumulator() {}
  }

  public static final class Statistics implements AggregateFunction<Reading, Accumulator, Accumulator> {
    private transient AtomicLong added;

    @Override
    public Accumulator createAccumulator() {
      return new Accumulator();
    }

    @Override
    public Accumulator add(Reading r, Accumulator a) {
      a.count += 1;
      a.sum += r.value;
      a.min = Math.min(a.min, r.value);
      a.max = Math.max(a.max, r.value);
      if (added == null) {
        added = Progress.counter();
      }
      added.lazySet(added.get() + 1);
      return a;
    }

    @Override
    public Accumulator getResult(Accumulator a) {
      return a;
    }

    @Override
    public Accumulator merge(Accumulator a, Accumulator b) {
      a.count += b.count;
      a.sum += b.sum;
      a.min = Math.min(a.min, b.min);
      a.max = Math.max(a.max, b.max);
      return a;
    }
  }
}
