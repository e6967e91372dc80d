package sdk

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	files    = "files"
	settings = "settings"
	locks    = "locks"
	vault    = "vault"
	parrot   = "parrot"
)

func TestOutputBinding(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	_, c := ready(t, setup{parts: []string{
		component(files, "bindings.localstorage", fmt.Sprintf("{name: rootPath, value: %q}", folder)),
	}})
	ctx := within(t)
	invoke := func(operation, data string) (*client.BindingEvent, error) {
		return c.InvokeBinding(ctx, &client.InvokeBindingRequest{
			Name: files, Operation: operation, Data: []byte(data), Metadata: map[string]string{"fileName": "a.txt"},
		})
	}
	_, err := invoke("create", "hello")
	must(t, err)
	written, err := os.ReadFile(filepath.Join(folder, "a.txt"))
	must(t, err)
	equal(t, "file", string(written), "hello")
	got, err := invoke("get", "")
	must(t, err)
	equal(t, "answer", string(got.Data), "hello")
	must(t, c.InvokeOutputBinding(ctx, &client.InvokeBindingRequest{
		Name: files, Operation: "delete", Metadata: map[string]string{"fileName": "a.txt"},
	}))
	if _, err := os.Stat(filepath.Join(folder, "a.txt")); !os.IsNotExist(err) {
		t.Fatalf("the file is still there: %v", err)
	}
	_, err = invoke("paint", "")
	wantError(t, err, "Internal", "")
	_, err = c.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "nowhere", Operation: "get"})
	wantError(t, err, "Internal", "")
}

func TestInputBinding(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			cron := component(tick, "bindings.cron", `{name: schedule, value: "@every 100ms"}`)
			a := serve(t, transport, setup{parts: []string{cron}})
			for range 2 {
				receive(t, "it ticks", a.ticks)
			}
		})
	}
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	_, c := ready(t, setup{parts: []string{component(settings, "configuration.redis", server.metadata())}})
	ctx := within(t)
	server.set(t, "colour", "green||7")
	server.set(t, "size", "large")
	items, err := c.GetConfigurationItems(ctx, settings, []string{"colour", "size", "absent"})
	must(t, err)
	equal(t, "items", len(items), 2)
	equal(t, "colour", items["colour"].Value, "green")
	equal(t, "version", items["colour"].Version, "7")
	size, err := c.GetConfigurationItem(ctx, settings, "size")
	must(t, err)
	equal(t, "size", size.Value, "large")

	changes := make(chan map[string]*client.ConfigurationItem, 16)
	watch, err := c.SubscribeConfigurationItems(ctx, settings, []string{"colour"},
		func(_ string, items map[string]*client.ConfigurationItem) { changes <- items })
	must(t, err)
	server.set(t, "size", "small")
	server.set(t, "colour", "red||8")
	// The first may be the values at the beginning.
	for {
		items := receive(t, "the colour changes", changes)
		equal(t, "items of a change", len(items), 1)
		if items["colour"].Value == "red" {
			equal(t, "version", items["colour"].Version, "8")
			break
		}
	}
	must(t, c.UnsubscribeConfigurationItems(ctx, settings, watch))
	_, err = c.GetConfigurationItem(ctx, "nowhere", "colour")
	wantError(t, err, "InvalidArgument", "")
}

func TestLock(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	_, c := ready(t, setup{parts: []string{component(locks, "lock.redis", server.metadata())}})
	ctx := within(t)
	take := func(owner string, seconds int32) bool {
		answer, err := c.TryLockAlpha1(ctx, locks, &client.LockRequest{
			ResourceID: "door", LockOwner: owner, ExpiryInSeconds: seconds,
		})
		must(t, err)
		return answer.Success
	}
	give := func(owner string) string {
		answer, err := c.UnlockAlpha1(ctx, locks, &client.UnlockRequest{ResourceID: "door", LockOwner: owner})
		must(t, err)
		return answer.Status
	}
	equal(t, "ada takes it", take("ada", 60), true)
	equal(t, "bob takes it too", take("bob", 60), false)
	equal(t, "bob gives it", give("bob"), "LOCK_BELONGS_TO_OTHERS")
	equal(t, "ada gives it", give("ada"), "SUCCESS")
	equal(t, "ada gives it again", give("ada"), "LOCK_DOES_NOT_EXIST")
	equal(t, "ada takes it for a second", take("ada", 1), true)
	eventually(t, "the lock expires", func() bool { return take("bob", 60) })
	_, err := c.TryLockAlpha1(ctx, "nowhere", &client.LockRequest{ResourceID: "door", LockOwner: "ada", ExpiryInSeconds: 60})
	wantError(t, err, "InvalidArgument", "")
}

func TestCryptography(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for _, name := range []string{"one.json", "two.json"} {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret)
		write(t, filepath.Join(folder, name),
			fmt.Sprintf(`{"kty": "oct", "k": %q}`, base64.RawURLEncoding.EncodeToString(secret)))
	}
	_, c := ready(t, setup{parts: []string{
		component(vault, "crypto.dapr.localstorage", fmt.Sprintf("{name: path, value: %q}", folder)),
	}})
	ctx := within(t)
	encrypt := func(plain []byte, key string) ([]byte, error) {
		secret, err := c.Encrypt(ctx, bytes.NewReader(plain), client.EncryptOptions{
			ComponentName: vault, KeyName: key, KeyWrapAlgorithm: "A256KW",
		})
		if err != nil {
			return nil, err
		}
		return io.ReadAll(secret)
	}
	decrypt := func(secret []byte, key string) ([]byte, error) {
		plain, err := c.Decrypt(ctx, bytes.NewReader(secret), client.DecryptOptions{ComponentName: vault, KeyName: key})
		if err != nil {
			return nil, err
		}
		return io.ReadAll(plain)
	}
	for _, length := range []int{1, 64 << 10, 1<<20 + 3} {
		plain := make([]byte, length)
		_, _ = rand.Read(plain)
		secret, err := encrypt(plain, "one.json")
		must(t, err)
		if length > 1 && bytes.Contains(secret, plain[:16]) {
			t.Fatal("what is encrypted can be read")
		}
		got, err := decrypt(secret, "")
		must(t, err)
		equal(t, "document comes back", bytes.Equal(got, plain), true)
		if _, err := decrypt(secret, "two.json"); err == nil {
			t.Fatal("another key opens it")
		}
		secret[len(secret)-1] ^= 1
		if _, err := decrypt(secret, ""); err == nil {
			t.Fatal("a changed document is taken")
		}
	}
	if _, err := encrypt([]byte("x"), "absent.json"); err == nil {
		t.Fatal("a key that is not there is used")
	}
}

func TestConversation(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{parts: []string{component(parrot, "conversation.echo", "")}})
	ctx := within(t)
	said := func(text string) *client.ConversationMessageAlpha2 {
		content := []*client.ConversationMessageContentAlpha2{{Text: &text}}
		return &client.ConversationMessageAlpha2{
			ConversationMessageOfUser: &client.ConversationMessageOfUserAlpha2{Content: content},
		}
	}
	converse := func(tools []*client.ConversationToolsAlpha2, messages ...*client.ConversationMessageAlpha2) *client.ConversationResultChoicesAlpha2 {
		t.Helper()
		answer, err := c.ConverseAlpha2(ctx, client.ConversationRequestAlpha2{
			Name:   parrot,
			Inputs: []*client.ConversationInputAlpha2{{Messages: messages}},
			Tools:  tools,
		})
		must(t, err)
		equal(t, "outputs", len(answer.Outputs), 1)
		equal(t, "choices", len(answer.Outputs[0].Choices), 1)
		return answer.Outputs[0].Choices[0]
	}
	parameters, err := structpb.NewStruct(map[string]any{
		"type":       "object",
		"properties": map[string]any{"city": map[string]any{"type": "string"}},
	})
	must(t, err)
	tools := []*client.ConversationToolsAlpha2{{Name: "weather", Parameters: parameters}}
	question := said("what is the weather?")
	choice := converse(tools, question)
	equal(t, "reason", choice.FinishReason, "tool_calls")
	equal(t, "calls", len(choice.Message.ToolCalls), 1)
	call := choice.Message.ToolCalls[0]
	equal(t, "tool", call.ToolTypes.Name, "weather")
	equal(t, "arguments", call.ToolTypes.Arguments, "city")

	// The conversation goes on with what the tool said.
	sunny := "sunny"
	choice = converse(nil, question,
		&client.ConversationMessageAlpha2{ConversationMessageOfAssistant: &client.ConversationMessageOfAssistantAlpha2{
			ToolCalls: []*client.ConversationToolCallsAlpha2{call},
		}},
		&client.ConversationMessageAlpha2{ConversationMessageOfTool: &client.ConversationMessageOfToolAlpha2{
			ToolID: &call.ID, Name: &call.ToolTypes.Name,
			Content: []*client.ConversationMessageContentAlpha2{{Text: &sunny}},
		}})
	if !strings.Contains(choice.Message.Content, "sunny") {
		t.Fatalf("the tool's answer is missing: %s", choice.Message.Content)
	}
	_, err = c.ConverseAlpha2(ctx, client.ConversationRequestAlpha2{
		Name: "nobody", Inputs: []*client.ConversationInputAlpha2{{Messages: []*client.ConversationMessageAlpha2{question}}},
	})
	wantError(t, err, "InvalidArgument", "")
}
