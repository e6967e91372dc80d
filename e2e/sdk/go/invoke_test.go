package sdk

import (
	"testing"

	"github.com/dapr/go-sdk/client"
)

func TestInvoke(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			callee := serve(t, transport)
			_, caller := ready(t, setup{names: callee.names})
			ctx := within(t)

			answer, err := caller.InvokeMethod(ctx, callee.id, "echo?a=1", "get")
			must(t, err)
			equal(t, "answer to GET", string(answer), "GET a=1  ")

			content := &client.DataContent{Data: []byte("hello"), ContentType: "text/plain"}
			answer, err = caller.InvokeMethodWithContent(ctx, callee.id, "echo", "post", content)
			must(t, err)
			equal(t, "answer to POST", string(answer), "POST  text/plain hello")

			answer, err = caller.InvokeMethodWithCustomContent(ctx, callee.id, "echo", "put", "application/json", map[string]int{"n": 1})
			must(t, err)
			equal(t, "answer to PUT", string(answer), `PUT  application/json {"n":1}`)

			_, err = caller.InvokeMethod(ctx, unique("nobody"), "echo", "get")
			wantError(t, err, "Internal", "")
		})
	}
}

func TestInvokeErrorsOfTheApplication(t *testing.T) {
	for transport, codes := range map[string][2]string{
		"http": {"Unknown", "NotFound"},
		"grpc": {"Aborted", "Unknown"},
	} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			callee := serve(t, transport)
			_, err := callee.client.InvokeMethod(within(t), callee.id, "fails", "get")
			wantError(t, err, codes[0], "")
			_, err = callee.client.InvokeMethod(within(t), callee.id, "no-such-method", "get")
			wantError(t, err, codes[1], "")
		})
	}
}
