package sdk

import (
	"encoding/json"
	"testing"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

func TestPublishToAnApplication(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			a := serve(t, transport)
			ctx := within(t)

			must(t, a.client.PublishEvent(ctx, broker, "orders", map[string]int{"n": 1},
				client.PublishEventWithMetadata(map[string]string{"cloudevent.id": "one"})))
			event := receive(t, "the event arrives", a.events)
			equal(t, "id", event.ID, "one")
			equal(t, "topic", event.Topic, "orders")
			equal(t, "broker", event.PubsubName, broker)
			equal(t, "type", event.Type, "com.dapr.event.sent")
			equal(t, "source", event.Source, a.id)
			equal(t, "content type", event.DataContentType, "application/json")
			var data struct{ N int }
			must(t, event.Struct(&data))
			equal(t, "data", data.N, 1)

			must(t, a.client.PublishEvent(ctx, broker, "orders", "plain", client.PublishEventWithContentType("text/plain")))
			event = receive(t, "the text arrives", a.events)
			equal(t, "text", event.Data, any("plain"))

			must(t, a.client.PublishEvent(ctx, broker, "refused", "x"))
			event = receive(t, "what was refused is a dead letter", a.events)
			// The HTTP envelope is the event's own, and keeps its first topic.
			equal(t, "topic", event.Topic, map[string]string{"http": "refused", "grpc": "dead"}[transport])
		})
	}
}

func TestPublishInBulk(t *testing.T) {
	t.Parallel()
	a := serve(t, "grpc")
	done := a.client.PublishEvents(within(t), broker, "orders", []any{"a", "b", "c"})
	must(t, done.Error)
	equal(t, "failed events", len(done.FailedEvents), 0)
	seen := map[any]bool{}
	for range 3 {
		seen[receive(t, "three events arrive", a.events).Data] = true
	}
	equal(t, "different events", len(seen), 3)
}

func TestStreamedSubscription(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)

	dead := "pulled-dead"
	subscription, err := c.Subscribe(ctx, client.SubscriptionOptions{
		PubsubName: broker, Topic: "pulled", DeadLetterTopic: &dead,
	})
	must(t, err)
	letters, err := c.Subscribe(ctx, client.SubscriptionOptions{PubsubName: broker, Topic: dead})
	must(t, err)
	for _, word := range []string{"good", "bad"} {
		must(t, c.PublishEvent(ctx, broker, "pulled", map[string]string{"word": word}))
		message, err := subscription.Receive()
		must(t, err)
		text, err := json.Marshal(message.Data)
		must(t, err)
		equal(t, "data", string(text), `{"word":"`+word+`"}`)
		if word == "good" {
			must(t, message.Success())
			continue
		}
		must(t, message.Drop())
		letter, err := letters.Receive()
		must(t, err)
		equal(t, "id of the dead letter", letter.ID, message.ID)
		must(t, letter.Success())
	}
	must(t, subscription.Close())
	must(t, letters.Close())

	events := make(chan *common.TopicEvent, 1)
	stop, err := c.SubscribeWithHandler(ctx, client.SubscriptionOptions{PubsubName: broker, Topic: "handled"},
		func(event *common.TopicEvent) common.SubscriptionResponseStatus {
			events <- event
			return common.SubscriptionResponseStatusSuccess
		})
	must(t, err)
	must(t, c.PublishEvent(ctx, broker, "handled", "x"))
	equal(t, "topic", receive(t, "the handler is called", events).Topic, "handled")
	must(t, stop())
}

func TestPublishErrors(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)
	wantError(t, c.PublishEvent(ctx, "nowhere", "t", "x"), "InvalidArgument", "DAPR_PUBSUB_NOT_FOUND")
	done := c.PublishEvents(ctx, "nowhere", "t", []any{"x"})
	wantError(t, done.Error, "InvalidArgument", "")
	subscription, err := c.Subscribe(ctx, client.SubscriptionOptions{PubsubName: "nowhere", Topic: "t"})
	if err == nil {
		_, err = subscription.Receive()
	}
	if err == nil {
		t.Fatal("a broker that is not there was subscribed to")
	}
}
