package io.outrider.sdk;

import static io.outrider.sdk.Sidecar.BROKER;
import static io.outrider.sdk.Sidecar.TIMEOUT;
import static io.outrider.sdk.Sidecar.SECRETS;
import static io.outrider.sdk.Sidecar.STORE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.dapr.client.DaprClient;
import io.dapr.client.DaprPreviewClient;
import io.dapr.client.domain.HttpExtension;
import io.dapr.client.domain.PublishEventRequest;
import io.dapr.client.domain.State;
import io.dapr.client.domain.StateOptions;
import io.dapr.client.domain.TransactionalStateOperation;
import io.dapr.exceptions.DaprErrorDetails;
import io.dapr.exceptions.DaprException;
import io.dapr.utils.TypeRef;
import io.dapr.v1.DaprAppCallbackProtos.TopicEventRequest;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.Disposable;
import reactor.core.publisher.Mono;

@Timeout(120)
class SdkTest {
  private static final StateOptions FIRST_WRITE =
      new StateOptions(StateOptions.Consistency.STRONG, StateOptions.Concurrency.FIRST_WRITE);

  private static <T> T await(Mono<T> call) {
    return call.block(TIMEOUT);
  }

  private static DaprException refused(Mono<?> call, String code) {
    DaprException error = assertThrows(DaprException.class, () -> await(call));
    assertEquals(code, error.getErrorCode(), error.getMessage());
    return error;
  }

  private static String reason(DaprException error) {
    return error
        .getErrorDetails()
        .get(DaprErrorDetails.ErrorDetailType.ERROR_INFO, "reason", TypeRef.STRING);
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc"})
  void invoke(String protocol) throws Exception {
    try (App app = App.start(protocol);
        Sidecar caller = Sidecar.ready(app.sidecar.names);
        DaprClient client = caller.client().build()) {
      Map<String, Integer> sent = Map.of("n", 1);
      TypeRef<Map<String, Integer>> type = new TypeRef<>() {};
      assertEquals(
          sent,
          await(client.invokeMethod(app.sidecar.id, "echo", sent, HttpExtension.POST, type)));
      DaprException error =
          assertThrows(
              DaprException.class,
              () ->
                  await(
                      client.invokeMethod(
                          app.sidecar.id, "no-such-method", null, HttpExtension.GET)));
      assertEquals(404, error.getHttpStatusCode());
      refused(
          client.invokeMethod(Sidecar.unique("nobody"), "echo", null, HttpExtension.GET),
          "ERR_DIRECT_INVOKE");
    }
  }

  @Test
  void state() throws Exception {
    try (Sidecar sidecar = Sidecar.ready(null);
        DaprClient client = sidecar.client().build()) {
      assertNull(await(client.getState(STORE, "k", Integer.class)).getValue());
      await(client.saveState(STORE, "k", 1));
      State<Integer> got = await(client.getState(STORE, "k", Integer.class));
      assertEquals(1, got.getValue());
      assertNotNull(got.getEtag());
      await(client.saveState(STORE, "k", got.getEtag(), 2, FIRST_WRITE));
      refused(client.saveState(STORE, "k", got.getEtag(), 3, FIRST_WRITE), "ABORTED");
      refused(client.deleteState(STORE, "k", got.getEtag(), FIRST_WRITE), "ABORTED");
      await(client.deleteState(STORE, "k"));
      assertNull(await(client.getState(STORE, "k", Integer.class)).getValue());
    }
  }

  @Test
  void stateInBulk() throws Exception {
    try (Sidecar sidecar = Sidecar.ready(null);
        DaprClient client = sidecar.client().build()) {
      await(
          client.saveBulkState(
              STORE, List.of(new State<>("a", 1, null), new State<>("b", 2, null))));
      Map<String, Integer> rows = new HashMap<>();
      for (State<Integer> row :
          await(client.getBulkState(STORE, List.of("a", "b", "c"), Integer.class))) {
        assertNull(row.getError());
        rows.put(row.getKey(), row.getValue());
      }
      assertEquals(Set.of("a", "b", "c"), rows.keySet());
      assertEquals(2, rows.get("b"));
      assertNull(rows.get("c"));
    }
  }

  @Test
  void stateInTransactions() throws Exception {
    try (Sidecar sidecar = Sidecar.ready(null);
        DaprClient client = sidecar.client().build()) {
      await(client.saveState(STORE, "old", 1));
      var upsert = TransactionalStateOperation.OperationType.UPSERT;
      var delete = TransactionalStateOperation.OperationType.DELETE;
      await(
          client.executeStateTransaction(
              STORE,
              List.of(
                  new TransactionalStateOperation<>(upsert, new State<>("new", 2, null)),
                  new TransactionalStateOperation<>(delete, new State<>("old")))));
      assertEquals(2, await(client.getState(STORE, "new", Integer.class)).getValue());
      assertNull(await(client.getState(STORE, "old", Integer.class)).getValue());
      // One stale etag, and nothing happens.
      var stale =
          List.<TransactionalStateOperation<?>>of(
              new TransactionalStateOperation<>(upsert, new State<>("other", 3, null)),
              new TransactionalStateOperation<>(
                  delete, new State<Integer>("new", "12345", FIRST_WRITE)));
      assertThrows(
          DaprException.class, () -> await(client.executeStateTransaction(STORE, stale)));
      assertEquals(2, await(client.getState(STORE, "new", Integer.class)).getValue());
      assertNull(await(client.getState(STORE, "other", Integer.class)).getValue());
    }
  }

  @Test
  void errors() throws Exception {
    try (Sidecar sidecar = Sidecar.ready(null);
        DaprClient client = sidecar.client().build()) {
      DaprException error =
          refused(client.getState("nowhere", "k", Integer.class), "INVALID_ARGUMENT");
      assertEquals("DAPR_STATE_NOT_FOUND", reason(error));
      error = refused(client.publishEvent("nowhere", "t", "x"), "INVALID_ARGUMENT");
      assertEquals("DAPR_PUBSUB_NOT_FOUND", reason(error));
      refused(client.getSecret("nowhere", "k"), "INVALID_ARGUMENT");
    }
  }

  @Test
  void publishToAnApplication() throws Exception {
    try (App app = App.start("grpc");
        DaprClient client = app.sidecar.client().build()) {
      PublishEventRequest request =
          new PublishEventRequest(BROKER, "orders", Map.of("n", 1))
              .setMetadata(Map.of("cloudevent.id", "one"));
      await(client.publishEvent(request));
      TopicEventRequest event = next(app.events);
      assertEquals("one", event.getId());
      assertEquals(app.sidecar.id, event.getSource());
      assertEquals("application/json", event.getDataContentType());
      assertEquals("{\"n\":1}", event.getData().toStringUtf8());

      var done = await(client.publishEvents(BROKER, "orders", "text/plain", "a", "b", "c"));
      assertTrue(done.getFailedEntries().isEmpty());
      Set<String> texts = new HashSet<>();
      for (int i = 0; i < 3; i++) {
        texts.add(next(app.events).getData().toStringUtf8());
      }
      assertEquals(3, texts.size());
      var subscriptions = await(client.getMetadata()).getSubscriptions();
      assertEquals("orders", subscriptions.get(0).getTopic());
    }
  }

  @Test
  void streamedSubscription() throws Exception {
    try (Sidecar sidecar = Sidecar.ready(null);
        DaprClient client = sidecar.client().build();
        DaprPreviewClient preview = sidecar.client().buildPreviewClient()) {
      BlockingQueue<Integer> events = new LinkedBlockingQueue<>();
      Disposable subscription =
          preview.subscribeToTopic(BROKER, "pulled", TypeRef.INT).subscribe(events::add);
      Sidecar.until(
          "the stream subscribes",
          () -> !await(client.getMetadata()).getSubscriptions().isEmpty());
      await(client.publishEvent(BROKER, "pulled", 7));
      assertEquals(7, next(events));
      subscription.dispose();
    }
  }

  @Test
  void secrets() throws Exception {
    try (Sidecar sidecar = Sidecar.ready(null);
        DaprClient client = sidecar.client().build()) {
      assertEquals(Map.of("password", "s3cret"), await(client.getSecret(SECRETS, "password")));
      var all = await(client.getBulkSecret(SECRETS));
      assertEquals(Map.of("user:name", "ada"), all.get("user:name"));
      refused(client.getSecret(SECRETS, "absent"), "INTERNAL");
    }
  }

  @Test
  void waitingMetadataAndShutdown() throws Exception {
    try (Sidecar sidecar = new Sidecar(null);
        DaprClient client = sidecar.client().build()) {
      await(client.waitForSidecar((int) TIMEOUT.toMillis()));
      var metadata = await(client.getMetadata());
      assertEquals(sidecar.id, metadata.getId());
      assertFalse(metadata.getComponents().isEmpty());
      await(client.shutdown());
      Sidecar.until("the sidecar ended", sidecar::ended);
    }
  }

  private static <T> T next(BlockingQueue<T> events) throws InterruptedException {
    T event = events.poll(TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    assertNotNull(event, "no event");
    return event;
  }
}
