package io.outrider.sdk;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.dapr.actors.client.ActorClient;
import io.dapr.actors.runtime.ActorRuntime;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import reactor.core.publisher.Mono;

/** Hosts counters: the routes that a sidecar calls lead to the SDK's runtime. */
public final class CounterServer {
  private static final ActorRuntime RUNTIME = ActorRuntime.getInstance();

  private CounterServer() {}

  /** APP_PORT is where it listens; the SDK reads where its sidecar is. */
  public static void main(String[] args) throws IOException {
    ActorClient client = new ActorClient();
    RUNTIME.registerActor(
        CounterActor.class, (context, id) -> new CounterActor(context, id, client));
    int port = Integer.parseInt(System.getenv("APP_PORT"));
    InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
    HttpServer server = HttpServer.create(address, 0);
    server.createContext("/", CounterServer::serve);
    server.setExecutor(Executors.newCachedThreadPool());
    server.start();
  }

  private static void serve(HttpExchange exchange) throws IOException {
    byte[] body = exchange.getRequestBody().readAllBytes();
    int status = 200;
    byte[] answer;
    try {
      answer = answer(exchange, body);
    } catch (RuntimeException error) {
      status = 500;
      answer = String.valueOf(error.getMessage()).getBytes(StandardCharsets.UTF_8);
    }
    exchange.getResponseHeaders().set("content-type", "application/json");
    if (answer == null) {
      answer = new byte[0];
    }
    exchange.sendResponseHeaders(status, answer.length == 0 ? -1 : answer.length);
    exchange.getResponseBody().write(answer);
    exchange.close();
  }

  /** Paths are /actors/{type}/{id}, with /method, /method/timer or /method/remind and a name. */
  private static byte[] answer(HttpExchange exchange, byte[] body) throws IOException {
    String path = exchange.getRequestURI().getPath();
    if (path.equals("/dapr/config")) {
      return RUNTIME.serializeConfig();
    }
    String[] parts = path.split("/");
    if (!path.startsWith("/actors/") || parts.length < 4) {
      return null;
    }
    String type = parts[2];
    String id = parts[3];
    String name = parts[parts.length - 1];
    Mono<?> call;
    if (exchange.getRequestMethod().equals("DELETE")) {
      call = RUNTIME.deactivate(type, id);
    } else if (parts.length == 6) {
      call = RUNTIME.invoke(type, id, name, body);
    } else if (parts[5].equals("timer")) {
      call = RUNTIME.invokeTimer(type, id, name, body);
    } else {
      call = RUNTIME.invokeReminder(type, id, name, body);
    }
    return (byte[]) call.block();
  }
}
