// Package clients tests a Puna server as a Go service uses it.
package clients

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	punav1 "puna.dev/clients/go/puna/v1"
)

// patience is how long calls may take that must succeed. Machines that build other programs meanwhile are slow.
const patience = 2 * time.Minute

// variable returns an environment variable that the test harness sets.
func variable(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run `make test-clients CLIENT=go`", name)
	}
	return value
}

// dial returns a connection without TLS.
func dial(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	connection, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// plain returns a connection to the server without TLS and keys.
func plain(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dial(t, variable(t, "PUNA_ADDRESS"), options...)
}

// within returns a context that ends after a time, or with the test.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// prompt returns a request that has a model of the scripted backend do what the words say.
func prompt(model, words string) *punav1.GenerateRequest {
	return &punav1.GenerateRequest{Model: model, Prompt: &punav1.GenerateRequest_Text{Text: words}, Raw: true}
}

// all calls visit for each message of a stream, and returns the error that ended it, or nil.
func all[M any](stream grpc.ServerStreamingClient[M], visit func(*M)) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		visit(message)
	}
}

// generate returns the text of a whole answer.
func generate(ctx context.Context, connection *grpc.ClientConn, request *punav1.GenerateRequest, options ...grpc.CallOption) (string, error) {
	stream, err := punav1.NewGenerateServiceClient(connection).StreamGenerate(ctx, request, options...)
	if err != nil {
		return "", err
	}
	text := ""
	err = all(stream, func(part *punav1.StreamGenerateResponse) {
		for _, delta := range part.GetDeltas() {
			text += delta.GetText()
		}
	})
	return text, err
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// expect fails the test unless the error has the status code.
func expect(t *testing.T, err error, code codes.Code) *status.Status {
	t.Helper()
	found := status.Convert(err)
	if found.Code() != code {
		t.Fatalf("status %v (%s), want %v", found.Code(), found.Message(), code)
	}
	return found
}

func pointer[T any](value T) *T { return &value }
