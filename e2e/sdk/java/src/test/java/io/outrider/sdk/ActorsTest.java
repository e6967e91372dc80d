package io.outrider.sdk;

import static io.outrider.sdk.Sidecar.TIMEOUT;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.dapr.actors.ActorId;
import io.dapr.actors.client.ActorClient;
import io.dapr.actors.client.ActorProxyBuilder;
import io.dapr.config.Properties;
import io.dapr.exceptions.DaprException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import reactor.core.publisher.Flux;

@Timeout(120)
class ActorsTest {
  @Test
  void callsTimersAndReminders() throws Exception {
    int port = Sidecar.freePort();
    String appPort = "--app-port=" + port;
    try (Program placement = Program.placement();
        Program scheduler = Program.scheduler();
        Sidecar sidecar = new Sidecar(null, appPort, placement.address, scheduler.address);
        Program app = new Program(null, server(), variables(port, sidecar));
        ActorClient client = new ActorClient(properties(sidecar))) {
      sidecar.healthy();
      var proxies = new ActorProxyBuilder<>(Counter.class, client);
      Sidecar.until(
          "the type is hosted",
          () -> {
            try {
              return counter(proxies, "first").add(Map.of("n", 1)).block(TIMEOUT) == 1;
            } catch (DaprException notYet) {
              return false;
            }
          });
      calls(proxies);
      alarms(proxies, "timer");
      alarms(proxies, "reminder");
    }
  }

  private static void calls(ActorProxyBuilder<Counter> proxies) {
    Counter a = counter(proxies, "a");
    assertEquals(1, a.add(Map.of("n", 1)).block(TIMEOUT));
    assertEquals(3, a.add(Map.of("n", 2)).block(TIMEOUT));
    Map<String, Object> other = Map.of("type", "java", "id", Sidecar.unique("b"), "n", 5);
    assertEquals(5, a.ask(other).block(TIMEOUT));
    assertEquals(10, a.ask(other).block(TIMEOUT));
    // Calls of one actor take turns, so that none is lost.
    List<Integer> totals =
        Flux.range(0, 20).flatMap(n -> a.add(Map.of("n", 1)), 20).collectSortedList().block(TIMEOUT);
    assertEquals(IntStream.range(4, 24).boxed().toList(), totals);
    DaprException error = assertThrows(DaprException.class, () -> a.fail().block(TIMEOUT));
    assertTrue(error.getMessage().contains("it went wrong"), error.getMessage());
  }

  private static void alarms(ActorProxyBuilder<Counter> proxies, String kind) throws Exception {
    Counter actor = counter(proxies, kind);
    actor.watch(Map.of("kind", kind, "name", "a")).block(TIMEOUT);
    Sidecar.until("a fires", () -> fired(actor, kind + ":a") >= 2);
    actor.unwatch(Map.of("kind", kind, "name", "a")).block(TIMEOUT);
    int stopped = fired(actor, kind + ":a");
    actor.watch(Map.of("kind", kind, "name", "b")).block(TIMEOUT);
    Sidecar.until("b fires", () -> fired(actor, kind + ":b") >= 4);
    // One may have been on its way.
    assertTrue(fired(actor, kind + ":a") <= stopped + 1);
    actor.unwatch(Map.of("kind", kind, "name", "b")).block(TIMEOUT);
  }

  private static int fired(Counter actor, String alarm) {
    return actor.fired().block(TIMEOUT).getOrDefault(alarm, 0);
  }

  private static Counter counter(ActorProxyBuilder<Counter> proxies, String name) {
    return proxies.build(new ActorId(Sidecar.unique(name)));
  }

  private static List<String> server() {
    String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
    String libraries = System.getProperty("java.class.path");
    return List.of(java, "-cp", libraries, CounterServer.class.getName());
  }

  private static Map<String, String> variables(int port, Sidecar sidecar) {
    return Map.of(
        "APP_PORT", "" + port,
        "DAPR_HTTP_PORT", "" + sidecar.httpPort,
        "DAPR_GRPC_PORT", "" + sidecar.grpcPort);
  }

  private static Properties properties(Sidecar sidecar) {
    return new Properties(
        Map.of(
            "dapr.sidecar.ip", "127.0.0.1",
            "dapr.http.port", "" + sidecar.httpPort,
            "dapr.grpc.port", "" + sidecar.grpcPort));
  }
}
