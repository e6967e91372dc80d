package io.outrider.sdk;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * A running program. OUTRIDER_PLACEMENT and OUTRIDER_SCHEDULER name the binaries of the control
 * plane.
 */
final class Program implements AutoCloseable {
  /** What others have to know: a flag of sidecars, or the metadata of components. */
  final String address;

  private final Process process;
  private final Path output;
  private int port;

  Program(String address, List<String> command, Map<String, String> variables) throws IOException {
    this.address = address;
    output = Files.createTempFile("sdk-", ".txt");
    ProcessBuilder builder =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(output.toFile());
    builder.environment().putAll(variables);
    process = builder.start();
  }

  static Program placement() throws Exception {
    int port = Sidecar.freePort();
    String peers = "--initial-cluster=dapr-placement-0=127.0.0.1:" + Sidecar.freePort();
    String flag = "--placement-host-address=127.0.0.1:" + port;
    return service("OUTRIDER_PLACEMENT", port, flag, peers);
  }

  static Program scheduler() throws Exception {
    int port = Sidecar.freePort();
    return service(
        "OUTRIDER_SCHEDULER",
        port,
        "--scheduler-host-address=127.0.0.1:" + port,
        "--etcd-data-dir=" + Files.createTempDirectory("sdk-"),
        "--etcd-client-port=" + Sidecar.freePort(),
        "--etcd-initial-cluster=dapr-scheduler-server-0=http://127.0.0.1:" + Sidecar.freePort());
  }

  private static Program service(String variable, int port, String address, String... flags)
      throws Exception {
    int health = Sidecar.freePort();
    List<String> command =
        new ArrayList<>(
            List.of(
                binary(variable),
                "--port=" + port,
                "--healthz-port=" + health,
                "--metrics-port=" + Sidecar.freePort(),
                "--listen-address=127.0.0.1",
                "--healthz-listen-address=127.0.0.1",
                "--metrics-listen-address=127.0.0.1"));
    command.addAll(List.of(flags));
    Program program = new Program(address, command, Map.of());
    String page = "http://127.0.0.1:" + health + "/healthz";
    Sidecar.until(variable + " is healthy", () -> answers(page, 200));
    return program;
  }

  static Program redis() throws Exception {
    int port = Sidecar.freePort();
    String folder = Files.createTempDirectory("sdk-").toString();
    String[] flags = {"--bind", "127.0.0.1", "--save", "", "--dir", folder};
    List<String> command = new ArrayList<>(List.of("redis-server", "--port", "" + port));
    command.addAll(List.of(flags));
    String host = "{name: redisHost, value: \"127.0.0.1:" + port + "\"}";
    Program program = new Program(host, command, Map.of());
    program.port = port;
    Sidecar.until("redis listens", () -> listens(port));
    return program;
  }

  /** Sets a key of a Redis. */
  void set(String key, String value) throws IOException {
    try (Socket socket = new Socket("127.0.0.1", port)) {
      socket.setSoTimeout((int) Sidecar.TIMEOUT.toMillis());
      String command = "SET " + key + " " + value + "\r\n";
      socket.getOutputStream().write(command.getBytes(StandardCharsets.UTF_8));
      String answer =
          new String(socket.getInputStream().readNBytes(5), StandardCharsets.UTF_8);
      if (!answer.equals("+OK\r\n")) {
        throw new IOException("redis answered " + answer);
      }
    }
  }

  static String binary(String variable) {
    String path = System.getenv(variable);
    if (path == null) {
      throw new IllegalStateException("set " + variable + " to the path of a binary");
    }
    return path;
  }

  static boolean answers(String page, int status) throws IOException, InterruptedException {
    HttpRequest request = HttpRequest.newBuilder(URI.create(page)).build();
    return HttpClient.newHttpClient()
            .send(request, HttpResponse.BodyHandlers.discarding())
            .statusCode()
        == status;
  }

  static boolean listens(int port) throws IOException {
    try (Socket socket = new Socket()) {
      socket.connect(new InetSocketAddress("127.0.0.1", port));
      return true;
    }
  }

  @Override
  public void close() throws Exception {
    process.destroy();
    if (!process.waitFor(10, TimeUnit.SECONDS)) {
      process.destroyForcibly().waitFor();
    }
    if (System.getenv("OUTRIDER_OUTPUT") != null) {
      System.out.println(Files.readString(output));
    }
  }
}
