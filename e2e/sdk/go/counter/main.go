// Command counter hosts the actor type "go": counters with the methods that
// e2e/sdk/python/counter.py describes.
//
// With the argument grpc it opens a stream to its sidecar, else it serves HTTP.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/dapr/go-sdk/actor"
	"github.com/dapr/go-sdk/actor/runtime"
	"github.com/dapr/go-sdk/client"
	grpcservice "github.com/dapr/go-sdk/service/grpc"
	httpservice "github.com/dapr/go-sdk/service/http"
)

const counterType = "go"

// timeout is for the sidecar to come.
const timeout = 30 * time.Second

// More is what is added.
type More struct {
	N int `json:"n"`
}

// Other is a counter of any language.
type Other struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	N    int    `json:"n"`
}

// Alarm is a timer or a reminder.
type Alarm struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Counter is an actor. Its exported methods with an error are those of the type.
type Counter struct {
	actor.ServerImplBaseCtx
	dapr  client.Client
	lock  sync.Mutex
	fired map[string]int
}

func (c *Counter) Type() string { return counterType }

func (c *Counter) Add(ctx context.Context, more More) (int, error) {
	state := c.GetStateManager()
	total := 0
	there, err := state.Contains(ctx, "total")
	if err != nil {
		return 0, err
	}
	if there {
		if err := state.Get(ctx, "total", &total); err != nil {
			return 0, err
		}
	}
	total += more.N
	return total, state.Set(ctx, "total", total)
}

// otherCounter has its methods from the SDK.
type otherCounter struct {
	Other
	Add func(context.Context, More) (int, error)
}

func (o *otherCounter) Type() string { return o.Other.Type }
func (o *otherCounter) ID() string   { return o.Other.ID }

func (c *Counter) Ask(ctx context.Context, other Other) (int, error) {
	proxy := &otherCounter{Other: other}
	c.dapr.ImplActorClientStub(proxy)
	return proxy.Add(ctx, More{N: other.N})
}

func (c *Counter) Watch(ctx context.Context, alarm Alarm) (bool, error) {
	if alarm.Kind == "timer" {
		return true, c.dapr.RegisterActorTimer(ctx, &client.RegisterActorTimerRequest{
			ActorType: c.Type(), ActorID: c.ID(), Name: alarm.Name, CallBack: "Ring",
			DueTime: "0s", Period: "100ms", Data: fmt.Appendf(nil, "%q", alarm.Name),
		})
	}
	return true, c.dapr.RegisterActorReminder(ctx, &client.RegisterActorReminderRequest{
		ActorType: c.Type(), ActorID: c.ID(), Name: alarm.Name,
		DueTime: "0s", Period: "100ms", Data: []byte(alarm.Name),
	})
}

func (c *Counter) Unwatch(ctx context.Context, alarm Alarm) (bool, error) {
	if alarm.Kind == "timer" {
		return true, c.dapr.UnregisterActorTimer(ctx, &client.UnregisterActorTimerRequest{
			ActorType: c.Type(), ActorID: c.ID(), Name: alarm.Name,
		})
	}
	return true, c.dapr.UnregisterActorReminder(ctx, &client.UnregisterActorReminderRequest{
		ActorType: c.Type(), ActorID: c.ID(), Name: alarm.Name,
	})
}

func (c *Counter) Ring(_ context.Context, name string) error {
	c.count("timer:" + name)
	return nil
}

func (c *Counter) ReminderCall(name string, data []byte, _, _ string) {
	if string(data) == name {
		c.count("reminder:" + name)
	}
}

func (c *Counter) count(alarm string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.fired[alarm]++
}

func (c *Counter) Fired(context.Context) (map[string]int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return maps.Clone(c.fired), nil
}

func (c *Counter) Fail(context.Context) (bool, error) {
	return false, errors.New("it went wrong")
}

func serve(protocol string) error {
	address := "127.0.0.1:" + os.Getenv("APP_PORT")
	dapr, err := client.NewClientWithPort(os.Getenv("DAPR_GRPC_PORT"))
	if err != nil {
		return err
	}
	defer dapr.Close()
	counter := func() actor.ServerContext { return &Counter{dapr: dapr, fired: map[string]int{}} }
	if protocol != "grpc" {
		server := httpservice.NewService(address)
		server.RegisterActorImplFactoryContext(counter)
		return server.Start()
	}
	server, err := grpcservice.NewService(address)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	hosted := runtime.GetActorRuntimeInstanceContext()
	hosted.RegisterActorFactory(counter)
	// The sidecar takes the stream when it has found the server.
	go func() { failed <- server.Start() }()
	ctx := context.Background()
	if err := dapr.Wait(ctx, timeout); err != nil {
		return err
	}
	stop, err := dapr.SubscribeActorEvents(ctx, hosted, client.ActorEventSubscriptionOptions{})
	if err != nil {
		return err
	}
	return errors.Join(<-failed, stop())
}

func main() {
	protocol := ""
	if len(os.Args) > 1 {
		protocol = os.Args[1]
	}
	log.Fatal(serve(protocol))
}
