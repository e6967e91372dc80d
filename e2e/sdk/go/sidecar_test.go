// Package sdk drives a real daprd through the unmodified Go SDK.
//
// OUTRIDER_DAPRD names the binary, ours or any other. Sidecars find each other
// through a database of each test; OUTRIDER_NAMES=mdns is for binaries that do
// not know this.
package sdk

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// timeout is what anything may take on a busy machine.
const timeout = 30 * time.Second

const (
	store   = "store"
	broker  = "broker"
	secrets = "secrets"
)

func component(name, kind, metadata string) string {
	return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\nspec:\n  type: %s\n  version: v1\n  metadata: [%s]\n", name, kind, metadata)
}

// sidecar is a running daprd.
type sidecar struct {
	id       string
	httpPort int
	grpcPort int
}

// setup says how a sidecar is started.
type setup struct {
	id    string
	names string
	flags []string
	// parts are components besides those that all sidecars have.
	parts []string
}

// start runs a sidecar until the test is over. It does not wait for it.
func start(t *testing.T, how setup) sidecar {
	t.Helper()
	path := program(t, "OUTRIDER_DAPRD")
	if how.id == "" {
		how.id = unique("app")
	}
	folder := t.TempDir()
	resources := filepath.Join(folder, "resources")
	must(t, os.Mkdir(resources, 0o700))
	secretFile := filepath.Join(folder, "secrets.json")
	write(t, secretFile, `{"password": "s3cret", "user": {"name": "ada"}}`)
	write(t, filepath.Join(resources, "all.yaml"),
		component(store, "state.in-memory", "{name: actorStateStore, value: \"true\"}")+"---\n"+
			component(broker, "pubsub.in-memory", "")+"---\n"+
			component(secrets, "secretstores.local.file", fmt.Sprintf("{name: secretsFile, value: %q}", secretFile))+
			strings.Join(append([]string{""}, how.parts...), "---\n"))
	s := sidecar{id: how.id, httpPort: freePort(t), grpcPort: freePort(t)}
	arguments := []string{
		"--app-id=" + s.id,
		fmt.Sprintf("--dapr-http-port=%d", s.httpPort),
		fmt.Sprintf("--dapr-grpc-port=%d", s.grpcPort),
		fmt.Sprintf("--dapr-internal-grpc-port=%d", freePort(t)),
		fmt.Sprintf("--metrics-port=%d", freePort(t)),
		"--dapr-listen-addresses=127.0.0.1",
		"--dapr-internal-grpc-listen-address=127.0.0.1",
		"--metrics-listen-address=127.0.0.1",
		"--resources-path=" + resources,
	}
	if os.Getenv("OUTRIDER_NAMES") != "mdns" {
		if how.names == "" {
			how.names = folder
		}
		config := filepath.Join(folder, "config.yaml")
		write(t, config, fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: config}\nspec:\n  nameResolution: {component: sqlite, version: v1, configuration: {connectionString: %q}}\n", filepath.Join(how.names, "names.db")))
		arguments = append(arguments, "--config="+config)
	}
	run(t, s.id, exec.Command(path, append(arguments, how.flags...)...))
	return s
}

// ready starts a sidecar and waits until it is healthy.
func ready(t *testing.T, how setup) (sidecar, client.Client) {
	t.Helper()
	s := start(t, how)
	eventually(t, s.id+" is healthy", func() bool {
		return answers(fmt.Sprintf("http://127.0.0.1:%d/v1.0/healthz", s.httpPort), http.StatusNoContent)
	})
	return s, connect(t, s)
}

func connect(t *testing.T, s sidecar) client.Client {
	t.Helper()
	c, err := client.NewClientWithAddress(fmt.Sprintf("127.0.0.1:%d", s.grpcPort))
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(timeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("not so after %s: %s", timeout, what)
		case <-tick.C:
		}
	}
}

func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(timeout):
		t.Fatalf("not so after %s: %s", timeout, what)
		panic("unreachable")
	}
}

// wantError checks a code and, where reason is not empty, the rich details.
func wantError(t *testing.T, err error, code, reason string) {
	t.Helper()
	state, ok := status.FromError(err)
	if err == nil || !ok {
		t.Fatalf("no status but %v", err)
	}
	if state.Code().String() != code {
		t.Fatalf("code %s, want %s: %v", state.Code(), code, err)
	}
	if reason == "" {
		return
	}
	for _, detail := range state.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			equal(t, "reason", info.GetReason(), reason)
			equal(t, "domain", info.GetDomain(), "dapr.io")
			return
		}
	}
	t.Fatalf("no error info in %v", state.Details())
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, want %v", what, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

var (
	lock  sync.Mutex
	count int
	// Where processes begin, so that they do not try each other's ports. All
	// are below what the kernel gives to outgoing connections.
	nextPort = 10_000 + os.Getpid()%200*100
)

func unique(name string) string {
	lock.Lock()
	defer lock.Unlock()
	count++
	return fmt.Sprintf("%s-%d-%d", name, os.Getpid(), count)
}

// freePort returns a free port, different in every call.
func freePort(t *testing.T) int {
	t.Helper()
	lock.Lock()
	defer lock.Unlock()
	for range 20_000 {
		nextPort++
		if nextPort >= 30_000 {
			nextPort = 10_000
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err == nil {
			_ = listener.Close()
			return nextPort
		}
	}
	t.Fatal("no free port")
	return 0
}

// output is a buffer that a process writes and a test reads.
type output struct {
	lock   sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buffer.Write(data)
}

func (o *output) String() string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buffer.String()
}
