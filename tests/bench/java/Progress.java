import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicLong;

/** Says on standard output how many events have been aggregated: a line "at N" every few milliseconds while it grows. */
final class Progress {
  private static final List<AtomicLong> COUNTS = new CopyOnWriteArrayList<>();

  private Progress() {}

  /** Returns a counter for one thread: it alone calls lazySet. */
  static AtomicLong counter() {
    AtomicLong count = new AtomicLong();
    COUNTS.add(count);
    return count;
  }

  static void report() {
    Thread thread = new Thread(Progress::run, "progress");
    thread.setDaemon(true);
    thread.start();
  }

  private static void run() {
    long before = 0;
    while (true) {
      long now = 0;
      for (AtomicLong count : COUNTS) {
        now += count.get();
      }
      if (now > before) {
        System.out.println("at " + now);
        System.out.flush();
        before = now;
      }
      try {
        Thread.sleep(5);
      } catch (InterruptedException e) {
        return;
      }
    }
  }
}
