package sdk

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// run starts a program that ends with the test. What it returns is closed when
// the program has ended.
func run(t *testing.T, name string, command *exec.Cmd) <-chan struct{} {
	t.Helper()
	var output output
	command.Stdout, command.Stderr = &output, &output
	must(t, command.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = command.Process.Kill()
			<-ended
			t.Errorf("%s did not end", name)
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, output.String())
		}
	})
	return ended
}

// program is the path that an environment variable names.
func program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("set %s to the path of a binary", variable)
	}
	return path
}

// service starts a service of the control plane, and returns its address.
func service(t *testing.T, name, variable string, flags ...string) string {
	t.Helper()
	port, health := freePort(t), freePort(t)
	arguments := []string{
		fmt.Sprintf("--port=%d", port),
		fmt.Sprintf("--healthz-port=%d", health),
		fmt.Sprintf("--metrics-port=%d", freePort(t)),
		"--listen-address=127.0.0.1",
		"--healthz-listen-address=127.0.0.1",
		"--metrics-listen-address=127.0.0.1",
	}
	run(t, name, exec.Command(program(t, variable), append(arguments, flags...)...))
	eventually(t, name+" is healthy", func() bool {
		return answers(fmt.Sprintf("http://127.0.0.1:%d/healthz", health), http.StatusOK)
	})
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// placement starts one, and returns the flag with which sidecars find it.
func placement(t *testing.T) string {
	t.Helper()
	peers := fmt.Sprintf("--initial-cluster=dapr-placement-0=127.0.0.1:%d", freePort(t))
	return "--placement-host-address=" + service(t, "placement", "OUTRIDER_PLACEMENT", peers)
}

// scheduler starts one, and returns the flag with which sidecars find it.
func scheduler(t *testing.T) string {
	t.Helper()
	return "--scheduler-host-address=" + service(t, "scheduler", "OUTRIDER_SCHEDULER",
		"--etcd-data-dir="+t.TempDir(),
		fmt.Sprintf("--etcd-client-port=%d", freePort(t)),
		fmt.Sprintf("--etcd-initial-cluster=dapr-scheduler-server-0=http://127.0.0.1:%d", freePort(t)))
}

// redis is a server of one test.
type redis struct{ address string }

func startRedis(t *testing.T) redis {
	t.Helper()
	port := freePort(t)
	run(t, "redis", exec.Command("redis-server", "--port", fmt.Sprint(port),
		"--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()))
	server := redis{fmt.Sprintf("127.0.0.1:%d", port)}
	eventually(t, "redis listens", func() bool { return listens(server.address) })
	return server
}

// metadata is what its components have to know.
func (r redis) metadata() string {
	return fmt.Sprintf("{name: redisHost, value: %q}", r.address)
}

func (r redis) set(t *testing.T, key, value string) {
	t.Helper()
	connection, err := net.DialTimeout("tcp", r.address, timeout)
	must(t, err)
	defer connection.Close()
	must(t, connection.SetDeadline(time.Now().Add(timeout)))
	_, err = fmt.Fprintf(connection, "SET %s %s\r\n", key, value)
	must(t, err)
	answer := make([]byte, 64)
	length, err := connection.Read(answer)
	must(t, err)
	equal(t, "redis's answer", string(answer[:length]), "+OK\r\n")
}

func answers(url string, code int) bool {
	answer, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == code
}

func listens(address string) bool {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	return connection.Close() == nil
}
