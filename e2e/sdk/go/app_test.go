package sdk

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	grpcservice "github.com/dapr/go-sdk/service/grpc"
	httpservice "github.com/dapr/go-sdk/service/http"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// app is an application made with the SDK's own server, with its sidecar.
type app struct {
	sidecar
	client client.Client
	// names is the folder with the database of names.
	names  string
	events chan *common.TopicEvent
	ticks  chan struct{}
	jobs   chan *common.JobEvent
}

// transports are the ways in which a sidecar calls an application.
var transports = []string{"http", "grpc"}

// tick is the name of an input binding that applications know.
const tick = "tick"

func serve(t *testing.T, transport string, more ...setup) app {
	t.Helper()
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	var server common.Service
	if transport == "grpc" {
		var err error
		server, err = grpcservice.NewService(address)
		must(t, err)
	} else {
		server = httpservice.NewService(address)
	}
	a := app{names: t.TempDir(), events: make(chan *common.TopicEvent, 64), ticks: make(chan struct{}, 64), jobs: make(chan *common.JobEvent, 64)}
	must(t, server.AddServiceInvocationHandler("echo", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
		return &common.Content{
			Data:        []byte(in.Verb + " " + in.QueryString + " " + in.ContentType + " " + string(in.Data)),
			ContentType: "text/plain",
		}, nil
	}))
	must(t, server.AddServiceInvocationHandler("fails", func(context.Context, *common.InvocationEvent) (*common.Content, error) {
		return nil, status.Error(codes.Aborted, "it went wrong")
	}))
	topic := func(name, dead string, handler common.TopicEventHandler) {
		subscription := &common.Subscription{PubsubName: broker, Topic: name, Route: "/" + name, DeadLetterTopic: dead}
		must(t, server.AddTopicEventHandler(subscription, handler))
	}
	keep := func(_ context.Context, e *common.TopicEvent) (bool, error) {
		a.events <- e
		return false, nil
	}
	topic("orders", "", keep)
	topic("refused", "dead", func(context.Context, *common.TopicEvent) (bool, error) {
		return false, errors.New("never")
	})
	topic("dead", "", keep)
	must(t, server.AddBindingInvocationHandler(tick, func(context.Context, *common.BindingEvent) ([]byte, error) {
		select {
		case a.ticks <- struct{}{}:
		default:
		}
		return nil, nil
	}))
	if transport == "grpc" {
		// The SDK takes no jobs over HTTP.
		for _, name := range []string{"once", "often", "fails"} {
			must(t, server.AddJobEventHandler(name, func(_ context.Context, event *common.JobEvent) error {
				a.jobs <- event
				if event.JobType == "fails" {
					return errors.New("never")
				}
				return nil
			}))
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Start() }()
	t.Cleanup(func() { _ = server.Stop() })
	eventually(t, "the application listens", func() bool {
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
		return listens(address)
	})
	how := setup{
		names: a.names,
		flags: []string{fmt.Sprintf("--app-port=%d", port), "--app-protocol=" + transport},
	}
	for _, also := range more {
		how.flags = append(how.flags, also.flags...)
		how.parts = append(how.parts, also.parts...)
	}
	a.sidecar, a.client = ready(t, how)
	return a
}
