package io.outrider.sdk;

import io.dapr.actors.ActorMethod;
import io.dapr.actors.ActorType;
import java.util.Map;
import reactor.core.publisher.Mono;

/** The actor type "java". e2e/sdk/python/counter.py describes what its methods do. */
@ActorType(name = "java")
public interface Counter {
  @ActorMethod(name = "Add", returns = Integer.class)
  Mono<Integer> add(Map<String, Integer> more);

  @ActorMethod(name = "Ask", returns = Integer.class)
  Mono<Integer> ask(Map<String, Object> other);

  @ActorMethod(name = "Watch", returns = Boolean.class)
  Mono<Boolean> watch(Map<String, String> alarm);

  @ActorMethod(name = "Unwatch", returns = Boolean.class)
  Mono<Boolean> unwatch(Map<String, String> alarm);

  @ActorMethod(name = "Fired", returns = Map.class)
  Mono<Map<String, Integer>> fired();

  /** What timers call: the SDK finds such methods in interfaces alone. */
  @ActorMethod(name = "Ring")
  Mono<Void> ring(String name);

  @ActorMethod(name = "Fail")
  Mono<Void> fail();
}
