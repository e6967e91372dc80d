package io.outrider.sdk;

import com.google.protobuf.Empty;
import com.sun.net.httpserver.HttpServer;
import io.dapr.v1.AppCallbackAlphaGrpc;
import io.dapr.v1.AppCallbackGrpc;
import io.dapr.v1.CommonProtos.InvokeRequest;
import io.dapr.v1.CommonProtos.InvokeResponse;
import io.dapr.v1.DaprAppCallbackProtos.BindingEventRequest;
import io.dapr.v1.DaprAppCallbackProtos.BindingEventResponse;
import io.dapr.v1.DaprAppCallbackProtos.JobEventRequest;
import io.dapr.v1.DaprAppCallbackProtos.JobEventResponse;
import io.dapr.v1.DaprAppCallbackProtos.ListInputBindingsResponse;
import io.dapr.v1.DaprAppCallbackProtos.ListTopicSubscriptionsResponse;
import io.dapr.v1.DaprAppCallbackProtos.TopicEventRequest;
import io.dapr.v1.DaprAppCallbackProtos.TopicEventResponse;
import io.dapr.v1.DaprAppCallbackProtos.TopicSubscription;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** An application with its sidecar. */
final class App implements AutoCloseable {
  /** The name of an input binding that applications know. */
  static final String TICK = "tick";

  final Sidecar sidecar;
  final BlockingQueue<TopicEventRequest> events = new LinkedBlockingQueue<>();
  /** Bindings and jobs that came. */
  final BlockingQueue<String> calls = new LinkedBlockingQueue<>();

  private final Runnable stop;

  private App(String protocol, List<String> parts, String... more) throws Exception {
    int port = Sidecar.freePort();
    InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
    if (protocol.equals("grpc")) {
      Server server =
          NettyServerBuilder.forAddress(address)
              .addService(new Callback())
              .addService(new AlphaCallback())
              .build();
      server.start();
      stop = server::shutdownNow;
    } else {
      HttpServer server = HttpServer.create(address, 0);
      server.createContext(
          "/",
          exchange -> {
            String path = exchange.getRequestURI().getPath();
            byte[] body = exchange.getRequestBody().readAllBytes();
            boolean posted = exchange.getRequestMethod().equals("POST");
            if (path.equals("/" + TICK) && posted) {
              calls.add(TICK);
            }
            if (path.startsWith("/job/")) {
              calls.add(path + " " + new String(body, StandardCharsets.UTF_8));
            }
            boolean known =
                path.equals("/echo") || path.equals("/" + TICK) || path.startsWith("/job/");
            int status = path.equals("/job/fails") ? 500 : known ? 200 : 404;
            exchange.getResponseHeaders().set("content-type", "application/json");
            exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
          });
      server.start();
      stop = () -> server.stop(0);
    }
    List<String> flags = new ArrayList<>(List.of(more));
    flags.add("--app-port=" + port);
    flags.add("--app-protocol=" + protocol);
    sidecar = new Sidecar(null, parts, flags.toArray(String[]::new)).healthy();
  }

  static App start(String protocol) throws Exception {
    return start(protocol, List.of());
  }

  /** One with components and flags of its own. */
  static App start(String protocol, List<String> parts, String... flags) throws Exception {
    return new App(protocol, parts, flags);
  }

  @Override
  public void close() throws Exception {
    sidecar.close();
    stop.run();
  }

  private final class Callback extends AppCallbackGrpc.AppCallbackImplBase {
    @Override
    public void onInvoke(InvokeRequest request, StreamObserver<InvokeResponse> answer) {
      if (!request.getMethod().equals("echo")) {
        answer.onError(Status.NOT_FOUND.withDescription("no such method").asException());
        return;
      }
      answer.onNext(
          InvokeResponse.newBuilder()
              .setContentType(request.getContentType())
              .setData(request.getData())
              .build());
      answer.onCompleted();
    }

    @Override
    public void listTopicSubscriptions(
        Empty request, StreamObserver<ListTopicSubscriptionsResponse> answer) {
      TopicSubscription orders =
          TopicSubscription.newBuilder().setPubsubName(Sidecar.BROKER).setTopic("orders").build();
      answer.onNext(ListTopicSubscriptionsResponse.newBuilder().addSubscriptions(orders).build());
      answer.onCompleted();
    }

    @Override
    public void onTopicEvent(TopicEventRequest event, StreamObserver<TopicEventResponse> answer) {
      events.add(event);
      answer.onNext(TopicEventResponse.getDefaultInstance());
      answer.onCompleted();
    }

    @Override
    public void listInputBindings(Empty request, StreamObserver<ListInputBindingsResponse> answer) {
      answer.onNext(ListInputBindingsResponse.newBuilder().addBindings(TICK).build());
      answer.onCompleted();
    }

    @Override
    public void onBindingEvent(
        BindingEventRequest event, StreamObserver<BindingEventResponse> answer) {
      calls.add(event.getName());
      answer.onNext(BindingEventResponse.getDefaultInstance());
      answer.onCompleted();
    }
  }

  private final class AlphaCallback extends AppCallbackAlphaGrpc.AppCallbackAlphaImplBase {
    @Override
    public void onJobEventAlpha1(JobEventRequest event, StreamObserver<JobEventResponse> answer) {
      calls.add("/job/" + event.getName() + " " + event.getData().getValue().toStringUtf8());
      if (event.getName().equals("fails")) {
        answer.onError(Status.INTERNAL.withDescription("never").asException());
        return;
      }
      answer.onNext(JobEventResponse.getDefaultInstance());
      answer.onCompleted();
    }
  }
}
