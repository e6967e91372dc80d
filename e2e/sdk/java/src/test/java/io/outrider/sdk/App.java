package io.outrider.sdk;

import com.google.protobuf.Empty;
import com.sun.net.httpserver.HttpServer;
import io.dapr.v1.AppCallbackGrpc;
import io.dapr.v1.CommonProtos.InvokeRequest;
import io.dapr.v1.CommonProtos.InvokeResponse;
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
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** An application with its sidecar. */
final class App implements AutoCloseable {
  final Sidecar sidecar;
  final BlockingQueue<TopicEventRequest> events = new LinkedBlockingQueue<>();
  private final Runnable stop;

  private App(String protocol) throws Exception {
    int port = Sidecar.freePort();
    InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
    if (protocol.equals("grpc")) {
      Server server = NettyServerBuilder.forAddress(address).addService(new Callback()).build();
      server.start();
      stop = server::shutdownNow;
    } else {
      HttpServer server = HttpServer.create(address, 0);
      server.createContext(
          "/",
          exchange -> {
            boolean known = exchange.getRequestURI().getPath().equals("/echo");
            byte[] body = exchange.getRequestBody().readAllBytes();
            exchange.getResponseHeaders().set("content-type", "application/json");
            exchange.sendResponseHeaders(known ? 200 : 404, body.length == 0 ? -1 : body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
          });
      server.start();
      stop = () -> server.stop(0);
    }
    sidecar = Sidecar.ready(null, "--app-port=" + port, "--app-protocol=" + protocol);
  }

  static App start(String protocol) throws Exception {
    return new App(protocol);
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
  }
}
