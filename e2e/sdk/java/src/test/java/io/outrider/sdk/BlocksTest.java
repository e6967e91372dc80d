package io.outrider.sdk;

import static io.outrider.sdk.Sidecar.TIMEOUT;
import static io.outrider.sdk.Sidecar.component;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.dapr.client.DaprClient;
import io.dapr.client.DaprPreviewClient;
import io.dapr.client.domain.AssistantMessage;
import io.dapr.client.domain.ConfigurationItem;
import io.dapr.client.domain.ConversationInputAlpha2;
import io.dapr.client.domain.ConversationMessage;
import io.dapr.client.domain.ConversationMessageContent;
import io.dapr.client.domain.ConversationRequestAlpha2;
import io.dapr.client.domain.ConversationResultChoices;
import io.dapr.client.domain.ConversationTools;
import io.dapr.client.domain.ConversationToolsFunction;
import io.dapr.client.domain.DecryptRequestAlpha1;
import io.dapr.client.domain.EncryptRequestAlpha1;
import io.dapr.client.domain.SubscribeConfigurationResponse;
import io.dapr.client.domain.ToolMessage;
import io.dapr.client.domain.UnlockResponseStatus;
import io.dapr.client.domain.UserMessage;
import io.dapr.exceptions.DaprException;
import java.io.ByteArrayOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.Base64;
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
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

@Timeout(120)
class BlocksTest {
  private static <T> T await(Mono<T> call) {
    return call.block(TIMEOUT);
  }

  private static void refused(Mono<?> call, String code) {
    DaprException error = assertThrows(DaprException.class, () -> await(call));
    assertEquals(code, error.getErrorCode(), error.getMessage());
  }

  @Test
  void outputBinding() throws Exception {
    Path folder = Files.createTempDirectory("sdk-");
    String root = "{name: rootPath, value: \"" + folder + "\"}";
    try (Sidecar sidecar = Sidecar.with(component("files", "bindings.localstorage", root));
        DaprClient client = sidecar.client().build()) {
      Map<String, String> name = Map.of("fileName", "a.txt");
      await(client.invokeBinding("files", "create", "hello".getBytes(), name));
      assertEquals("hello", Files.readString(folder.resolve("a.txt")));
      byte[] got = await(client.invokeBinding("files", "get", new byte[0], name));
      assertEquals("hello", new String(got));
      await(client.invokeBinding("files", "delete", new byte[0], name));
      assertFalse(Files.exists(folder.resolve("a.txt")));
      refused(client.invokeBinding("files", "paint", new byte[0], name), "INTERNAL");
      refused(client.invokeBinding("nowhere", "get", new byte[0], name), "INTERNAL");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc"})
  void inputBinding(String protocol) throws Exception {
    String schedule = "{name: schedule, value: \"@every 100ms\"}";
    String cron = component(App.TICK, "bindings.cron", schedule);
    try (App app = App.start(protocol, List.of(cron))) {
      for (int i = 0; i < 2; i++) {
        assertEquals(App.TICK, app.calls.poll(TIMEOUT.toSeconds(), TimeUnit.SECONDS));
      }
    }
  }

  @Test
  void configuration() throws Exception {
    try (Program redis = Program.redis();
        Sidecar sidecar =
            Sidecar.with(component("settings", "configuration.redis", redis.address));
        DaprClient client = sidecar.client().build()) {
      redis.set("colour", "green||7");
      redis.set("size", "large");
      Map<String, ConfigurationItem> items =
          await(client.getConfiguration("settings", "colour", "size", "absent"));
      assertEquals(Set.of("colour", "size"), items.keySet());
      assertEquals("green", items.get("colour").getValue());
      assertEquals("7", items.get("colour").getVersion());

      BlockingQueue<SubscribeConfigurationResponse> changes = new LinkedBlockingQueue<>();
      Disposable stream =
          client.subscribeConfiguration("settings", "colour").subscribe(changes::add);
      // The first answer tells the id of the subscription.
      String watch = changes.poll(TIMEOUT.toSeconds(), TimeUnit.SECONDS).getSubscriptionId();
      redis.set("size", "small");
      redis.set("colour", "red||8");
      ConfigurationItem item;
      do {
        Map<String, ConfigurationItem> change =
            changes.poll(TIMEOUT.toSeconds(), TimeUnit.SECONDS).getItems();
        assertEquals(Set.of("colour"), change.keySet());
        item = change.get("colour");
      } while (!item.getValue().equals("red"));
      assertEquals("8", item.getVersion());
      assertTrue(await(client.unsubscribeConfiguration(watch, "settings")).getIsUnsubscribed());
      stream.dispose();
      refused(client.getConfiguration("nowhere", "colour"), "INVALID_ARGUMENT");
    }
  }

  @Test
  void locks() throws Exception {
    try (Program redis = Program.redis();
        Sidecar sidecar = Sidecar.with(component("locks", "lock.redis", redis.address));
        DaprPreviewClient client = sidecar.client().buildPreviewClient()) {
      assertTrue(await(client.tryLock("locks", "door", "ada", 60)));
      assertFalse(await(client.tryLock("locks", "door", "bob", 60)));
      assertEquals(
          UnlockResponseStatus.LOCK_BELONG_TO_OTHERS,
          await(client.unlock("locks", "door", "bob")));
      assertEquals(UnlockResponseStatus.SUCCESS, await(client.unlock("locks", "door", "ada")));
      assertEquals(
          UnlockResponseStatus.LOCK_UNEXIST, await(client.unlock("locks", "door", "ada")));
      assertTrue(await(client.tryLock("locks", "door", "ada", 1)));
      Sidecar.until(
          "the lock expires", () -> await(client.tryLock("locks", "door", "bob", 60)));
      refused(client.tryLock("nowhere", "door", "ada", 60), "INVALID_ARGUMENT");
    }
  }

  @Test
  void cryptography() throws Exception {
    SecureRandom random = new SecureRandom();
    Path folder = Files.createTempDirectory("sdk-");
    for (String name : List.of("one.json", "two.json")) {
      byte[] secret = new byte[32];
      random.nextBytes(secret);
      String k = Base64.getUrlEncoder().withoutPadding().encodeToString(secret);
      Files.writeString(folder.resolve(name), "{\"kty\": \"oct\", \"k\": \"" + k + "\"}");
    }
    String path = "{name: path, value: \"" + folder + "\"}";
    try (Sidecar sidecar = Sidecar.with(component("vault", "crypto.dapr.localstorage", path));
        DaprPreviewClient client = sidecar.client().buildPreviewClient()) {
      for (int length : new int[] {1, 64 << 10, 300_000}) {
        byte[] plain = new byte[length];
        random.nextBytes(plain);
        byte[] secret = encrypt(client, plain, "one.json");
        assertArrayEquals(plain, decrypt(client, secret, null));
        assertThrows(DaprException.class, () -> decrypt(client, secret, "two.json"));
        byte[] changed = secret.clone();
        changed[changed.length - 1] ^= 1;
        assertThrows(DaprException.class, () -> decrypt(client, changed, null));
      }
      assertThrows(DaprException.class, () -> encrypt(client, new byte[1], "absent.json"));
    }
  }

  private static byte[] encrypt(DaprPreviewClient client, byte[] plain, String key) {
    return all(
        client.encrypt(new EncryptRequestAlpha1("vault", Flux.just(plain), key, "A256KW")));
  }

  private static byte[] decrypt(DaprPreviewClient client, byte[] secret, String key) {
    DecryptRequestAlpha1 request = new DecryptRequestAlpha1("vault", Flux.just(secret));
    return all(client.decrypt(key == null ? request : request.setKeyName(key)));
  }

  private static byte[] all(Flux<byte[]> parts) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    for (byte[] part : await(parts.collectList())) {
      bytes.writeBytes(part);
    }
    return bytes.toByteArray();
  }

  @Test
  void conversation() throws Exception {
    try (Sidecar sidecar = Sidecar.with(component("parrot", "conversation.echo", ""));
        DaprPreviewClient client = sidecar.client().buildPreviewClient()) {
      UserMessage question = new UserMessage(text("what is the weather?"));
      Map<String, Object> parameters =
          Map.of("type", "object", "properties", Map.of("city", Map.of("type", "string")));
      var tools =
          List.of(new ConversationTools(new ConversationToolsFunction("weather", parameters)));
      ConversationResultChoices choice =
          converse(client, "parrot", List.of(question), tools);
      assertEquals("tool_calls", choice.getFinishReason());
      var calls = choice.getMessage().getToolCalls();
      assertEquals(1, calls.size());
      assertEquals("weather", calls.get(0).getFunction().getName());
      assertEquals("city", calls.get(0).getFunction().getArguments());

      // The conversation goes on with what the tool said.
      AssistantMessage said = new AssistantMessage(List.of(), calls);
      ToolMessage sunny =
          new ToolMessage(text("sunny")).setToolId(calls.get(0).getId()).setName("weather");
      choice = converse(client, "parrot", List.of(question, said, sunny), List.of());
      String content = choice.getMessage().getContent();
      assertTrue(content.contains("sunny"), content);
      DaprException error =
          assertThrows(
              DaprException.class,
              () -> converse(client, "nobody", List.of(question), List.of()));
      assertEquals("INVALID_ARGUMENT", error.getErrorCode());
    }
  }

  private static List<ConversationMessageContent> text(String text) {
    return List.of(new ConversationMessageContent(text));
  }

  private static ConversationResultChoices converse(
      DaprPreviewClient client,
      String name,
      List<ConversationMessage> messages,
      List<ConversationTools> tools) {
    var request =
        new ConversationRequestAlpha2(name, List.of(new ConversationInputAlpha2(messages)));
    if (!tools.isEmpty()) {
      request.setTools(tools);
    }
    var outputs = await(client.converseAlpha2(request)).getOutputs();
    assertEquals(1, outputs.size());
    return outputs.get(0).getChoices().get(0);
  }
}
