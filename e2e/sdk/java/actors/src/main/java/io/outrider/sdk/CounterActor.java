package io.outrider.sdk;

import io.dapr.actors.ActorId;
import io.dapr.actors.client.ActorClient;
import io.dapr.actors.client.ActorProxyBuilder;
import io.dapr.actors.runtime.AbstractActor;
import io.dapr.actors.runtime.ActorRuntimeContext;
import io.dapr.actors.runtime.Remindable;
import io.dapr.utils.TypeRef;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import reactor.core.publisher.Mono;

public final class CounterActor extends AbstractActor implements Counter, Remindable<String> {
  private static final Duration PERIOD = Duration.ofMillis(100);

  private final ActorClient client;
  private final Map<String, Integer> fired = new ConcurrentHashMap<>();

  public CounterActor(ActorRuntimeContext<CounterActor> context, ActorId id, ActorClient client) {
    super(context, id);
    this.client = client;
  }

  @Override
  public Mono<Integer> add(Map<String, Integer> more) {
    Mono<Integer> total =
        getActorStateManager()
            .contains("total")
            .flatMap(
                there ->
                    there ? getActorStateManager().get("total", Integer.class) : Mono.just(0));
    return total
        .map(before -> before + more.get("n"))
        .flatMap(after -> getActorStateManager().set("total", after).thenReturn(after));
  }

  @Override
  public Mono<Integer> ask(Map<String, Object> other) {
    ActorId id = new ActorId((String) other.get("id"));
    return new ActorProxyBuilder<>((String) other.get("type"), Counter.class, client)
        .build(id)
        .add(Map.of("n", (Integer) other.get("n")));
  }

  @Override
  public Mono<Boolean> watch(Map<String, String> alarm) {
    String name = alarm.get("name");
    Mono<?> registered =
        alarm.get("kind").equals("timer")
            ? registerActorTimer(name, "Ring", name, Duration.ZERO, PERIOD)
            : registerReminder(name, name, Duration.ZERO, PERIOD);
    return registered.thenReturn(true);
  }

  @Override
  public Mono<Boolean> unwatch(Map<String, String> alarm) {
    String name = alarm.get("name");
    return (alarm.get("kind").equals("timer") ? unregisterTimer(name) : unregisterReminder(name))
        .thenReturn(true);
  }

  @Override
  public Mono<Void> ring(String name) {
    return Mono.fromRunnable(() -> fired.merge("timer:" + name, 1, Integer::sum));
  }

  @Override
  public TypeRef<String> getStateType() {
    return TypeRef.STRING;
  }

  @Override
  public Mono<Void> receiveReminder(String name, String state, Duration due, Duration period) {
    if (!name.equals(state)) {
      return Mono.error(new IllegalStateException("reminder " + name + " has data " + state));
    }
    return Mono.fromRunnable(() -> fired.merge("reminder:" + name, 1, Integer::sum));
  }

  @Override
  public Mono<Map<String, Integer>> fired() {
    return Mono.just(Map.copyOf(fired));
  }

  @Override
  public Mono<Void> fail() {
    return Mono.error(new IllegalStateException("it went wrong"));
  }
}
