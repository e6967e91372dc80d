package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/dapr/go-sdk/client"
)

const counterType = "go"

// counterProgram is built once; see counter/main.go.
var counterProgram = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "sdk-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "counter")
	output, err := exec.Command("go", "build", "-mod=readonly", "-o", path, "./counter").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := counterProgram(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// counters starts an application that hosts counters, with its sidecar.
func counters(t *testing.T, transport string) client.Client {
	t.Helper()
	path, err := counterProgram()
	must(t, err)
	port := freePort(t)
	s := start(t, setup{flags: []string{
		fmt.Sprintf("--app-port=%d", port), "--app-protocol=" + transport, placement(t), scheduler(t),
	}})
	command := exec.Command(path, transport)
	command.Env = append(os.Environ(),
		fmt.Sprintf("APP_PORT=%d", port),
		fmt.Sprintf("DAPR_GRPC_PORT=%d", s.grpcPort))
	run(t, "counter", command)
	c := connect(t, s)
	ctx := within(t)
	eventually(t, "the type is hosted", func() bool {
		_, err := c.InvokeActor(ctx, &client.InvokeActorRequest{
			ActorType: counterType, ActorID: unique("first"), Method: "Add", Data: []byte(`{"n": 1}`),
		})
		return err == nil
	})
	return c
}

// proxy has its methods from the SDK.
type proxy struct {
	id      string
	Add     func(context.Context, map[string]int) (int, error)
	Ask     func(context.Context, map[string]any) (int, error)
	Watch   func(context.Context, map[string]string) (bool, error)
	Unwatch func(context.Context, map[string]string) (bool, error)
	Fired   func(context.Context) (map[string]int, error)
}

func (p *proxy) Type() string { return counterType }
func (p *proxy) ID() string   { return p.id }

func counter(c client.Client, id string) *proxy {
	p := &proxy{id: id}
	c.ImplActorClientStub(p)
	return p
}

func TestActors(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			c := counters(t, transport)
			ctx := within(t)
			a, b := counter(c, unique("a")), unique("b")
			add := func(n, want int) {
				t.Helper()
				got, err := a.Add(ctx, map[string]int{"n": n})
				must(t, err)
				equal(t, "total", got, want)
			}
			add(1, 1)
			add(2, 3)
			for _, want := range []int{5, 10} {
				got, err := a.Ask(ctx, map[string]any{"type": counterType, "id": b, "n": 5})
				must(t, err)
				equal(t, "total of the other", got, want)
			}

			// Calls of one actor take turns, so that none is lost.
			totals := make(chan int, 20)
			for range cap(totals) {
				go func() {
					got, _ := a.Add(ctx, map[string]int{"n": 1})
					totals <- got
				}()
			}
			var got []int
			for range cap(totals) {
				got = append(got, receive(t, "a call ends", totals))
			}
			slices.Sort(got)
			equal(t, "totals", fmt.Sprint(got), fmt.Sprint(upTo(4, 23)))

			state, err := c.GetActorState(ctx, &client.GetActorStateRequest{ActorType: counterType, ActorID: a.id, KeyName: "total"})
			must(t, err)
			equal(t, "stored", string(state.Data), "23")

			answer, err := c.InvokeActor(ctx, &client.InvokeActorRequest{ActorType: counterType, ActorID: a.id, Method: "Fail"})
			if err == nil && json.Valid(answer.Data) {
				t.Fatalf("no error but %s", answer.Data)
			}
			_, err = c.InvokeActor(ctx, &client.InvokeActorRequest{ActorType: "nobody", ActorID: "x", Method: "Add"})
			wantError(t, err, "FailedPrecondition", "")
		})
	}
}

func upTo(first, last int) []int {
	var numbers []int
	for n := first; n <= last; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

func TestTimersAndReminders(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			c := counters(t, transport)
			ctx := within(t)
			for _, kind := range []string{"timer", "reminder"} {
				actor := counter(c, unique(kind))
				alarm := func(name string) map[string]string { return map[string]string{"kind": kind, "name": name} }
				fired := func(name string) int {
					t.Helper()
					all, err := actor.Fired(ctx)
					must(t, err)
					return all[kind+":"+name]
				}
				watch := func(name string) {
					t.Helper()
					_, err := actor.Watch(ctx, alarm(name))
					must(t, err)
				}
				watch("a")
				eventually(t, "a "+kind+" fires", func() bool { return fired("a") >= 2 })
				_, err := actor.Unwatch(ctx, alarm("a"))
				must(t, err)
				stopped := fired("a")
				watch("b")
				eventually(t, "another fires", func() bool { return fired("b") >= 4 })
				// One may have been on its way.
				if again := fired("a"); again > stopped+1 {
					t.Fatalf("a stopped %s fired %d times", kind, again-stopped)
				}
			}
		})
	}
}
