package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"puna.dev/examples/go_host/wire"
)

// failureKey is the trailing metadata with which a call says why it failed.
const failureKey = "puna-failure-bin"

// failed is an error for the user, with its kind.
type failed struct{ *wire.Failure }

func (f failed) Error() string { return f.Message }

func invalid(format string, values ...any) error {
	return failed{&wire.Failure{Kind: wire.Failure_KIND_INVALID, Message: fmt.Sprintf(format, values...)}}
}

func unsupported(format string, values ...any) error {
	return failed{&wire.Failure{Kind: wire.Failure_KIND_UNSUPPORTED, Message: fmt.Sprintf(format, values...)}}
}

// tooLong says that a text has more tokens than fit. The core shortens prompts by these numbers.
func tooLong(tokens, context int) error {
	return failed{&wire.Failure{
		Kind:          wire.Failure_KIND_CONTEXT_OVERFLOW,
		Message:       fmt.Sprintf("the prompt has %d tokens, the context %d", tokens, context),
		PromptTokens:  int32(tokens),
		ContextLength: int32(context),
	}}
}

// failureOf returns the Failure of any error.
func failureOf(err error) *wire.Failure {
	var known failed
	if errors.As(err, &known) {
		return known.Failure
	}
	return &wire.Failure{Message: err.Error()}
}

// refuse ends a call with an error: a status, and the Failure in the trailing metadata.
func refuse(ctx context.Context, err error) error {
	failure := failureOf(err)
	raw, problem := proto.Marshal(failure)
	if problem != nil {
		return problem
	}
	grpc.SetTrailer(ctx, metadata.Pairs(failureKey, string(raw)))
	code := codes.Internal
	switch failure.Kind {
	case wire.Failure_KIND_INVALID, wire.Failure_KIND_CONTEXT_OVERFLOW:
		code = codes.InvalidArgument
	case wire.Failure_KIND_UNSUPPORTED:
		code = codes.Unimplemented
	}
	return status.Error(code, failure.Message)
}
