package io.outrider.sdk;

import io.dapr.client.DaprClientBuilder;
import io.dapr.config.Properties;
import java.io.File;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A running daprd. OUTRIDER_DAPRD names the binary, ours or any other. Sidecars find each other
 * through a database of each test; OUTRIDER_NAMES=mdns is for binaries that do not know this.
 */
final class Sidecar implements AutoCloseable {
  /** What anything may take on a busy machine. */
  static final Duration TIMEOUT = Duration.ofSeconds(30);

  static final String STORE = "store";
  static final String BROKER = "broker";
  static final String SECRETS = "secrets";

  private static final AtomicInteger TURNS = new AtomicInteger();

  final String id = unique("app");
  final Path names;
  final int httpPort = freePort();
  final int grpcPort = freePort();
  private final Path output;
  private final Process process;

  /** Starts it without waiting. */
  Sidecar(Path names, String... flags) throws IOException {
    this(names, List.of(), flags);
  }

  /** The same with components besides those that all have. */
  Sidecar(Path names, List<String> parts, String... flags) throws IOException {
    Path folder = Files.createTempDirectory("sdk-");
    this.names = names == null ? folder : names;
    Path resources = Files.createDirectory(folder.resolve("resources"));
    Path secrets = folder.resolve("secrets.json");
    Files.writeString(secrets, "{\"password\": \"s3cret\", \"user\": {\"name\": \"ada\"}}");
    String file = "{name: secretsFile, value: \"" + secrets + "\"}";
    List<String> all = new ArrayList<>(parts);
    all.add(component(STORE, "state.in-memory", "{name: actorStateStore, value: \"true\"}"));
    all.add(component(BROKER, "pubsub.in-memory", ""));
    all.add(component(SECRETS, "secretstores.local.file", file));
    Files.writeString(resources.resolve("all.yaml"), String.join("---\n", all));
    List<String> command =
        new ArrayList<>(
            List.of(
                Program.binary("OUTRIDER_DAPRD"),
                "--app-id=" + id,
                "--dapr-http-port=" + httpPort,
                "--dapr-grpc-port=" + grpcPort,
                "--dapr-internal-grpc-port=" + freePort(),
                "--metrics-port=" + freePort(),
                "--resources-path=" + resources,
                "--dapr-listen-addresses=127.0.0.1",
                "--dapr-internal-grpc-listen-address=127.0.0.1",
                "--metrics-listen-address=127.0.0.1"));
    if (!"mdns".equals(System.getenv("OUTRIDER_NAMES"))) {
      Path config = folder.resolve("config.yaml");
      Files.writeString(
          config,
          "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: config}\nspec:\n"
              + "  nameResolution: {component: sqlite, version: v1, configuration: {connectionString: \""
              + this.names.resolve("names.db")
              + "\"}}\n");
      command.add("--config=" + config);
    }
    command.addAll(List.of(flags));
    output = folder.resolve("output");
    File log = output.toFile();
    process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log).start();
  }

  static Sidecar ready(Path names, String... flags) throws Exception {
    return new Sidecar(names, flags).healthy();
  }

  /** One with components besides those that all have. */
  static Sidecar with(String... parts) throws Exception {
    return new Sidecar(null, List.of(parts)).healthy();
  }

  /** Waits until it is healthy. */
  Sidecar healthy() throws Exception {
    String page = "http://127.0.0.1:" + httpPort + "/v1.0/healthz";
    try {
      until(id + " is healthy", () -> Program.answers(page, 204));
    } catch (AssertionError late) {
      close();
      throw late;
    }
    return this;
  }

  DaprClientBuilder client() {
    return new DaprClientBuilder()
        .withPropertyOverride(Properties.SIDECAR_IP, "127.0.0.1")
        .withPropertyOverride(Properties.HTTP_PORT, String.valueOf(httpPort))
        .withPropertyOverride(Properties.GRPC_PORT, String.valueOf(grpcPort));
  }

  boolean ended() {
    return !process.isAlive();
  }

  @Override
  public void close() throws Exception {
    // SIGTERM, as an orchestrator does it.
    process.destroy();
    if (!process.waitFor(10, TimeUnit.SECONDS)) {
      process.destroyForcibly().waitFor();
    }
    if (System.getenv("OUTRIDER_OUTPUT") != null) {
      System.out.println(Files.readString(output));
    }
  }

  /** Asks again until it is so. */
  static void until(String what, Callable<Boolean> ask) throws Exception {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    while (System.nanoTime() < deadline) {
      try {
        if (ask.call()) {
          return;
        }
      } catch (IOException notYet) {
        // The port is free.
      }
      TimeUnit.MILLISECONDS.sleep(20);
    }
    throw new AssertionError("not so after " + TIMEOUT + ": " + what);
  }

  static String unique(String name) {
    return name + "-" + ProcessHandle.current().pid() + "-" + TURNS.incrementAndGet();
  }

  /**
   * A free port, different in every call. All are below what the kernel gives to
   * outgoing connections.
   */
  static int freePort() {
    int start = (int) (ProcessHandle.current().pid() % 200) * 100;
    while (true) {
      int port = 10_000 + (start + TURNS.incrementAndGet()) % 20_000;
      try (ServerSocket probe = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
        return probe.getLocalPort();
      } catch (IOException taken) {
        // The next one.
      }
    }
  }

  static String component(String name, String kind, String metadata) {
    return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: "
        + name
        + "}\nspec:\n  type: "
        + kind
        + "\n  version: v1\n  metadata: ["
        + metadata
        + "]\n";
  }
}
