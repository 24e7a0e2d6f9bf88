package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"log"
	"math"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"puna.dev/examples/go_host/wire"
)

const contractVersion = 1

// A service serves one model. Methods that are not here answer UNIMPLEMENTED.
type service struct {
	wire.UnimplementedBackendServiceServer

	mutex sync.Mutex
	model *model
	slots chan struct{}
	work  work
}

// work counts steps and running sequences, for the heartbeat.
type work struct {
	steps   atomic.Uint64
	running atomic.Int64
}

func (w *work) step() { w.steps.Add(1) }

// begin counts one more sequence; the function that it returns, one less.
func (w *work) begin() func() {
	w.running.Add(1)
	return func() { w.running.Add(-1) }
}

func (s *service) Describe(context.Context, *wire.DescribeRequest) (*wire.DescribeResponse, error) {
	return &wire.DescribeResponse{ContractVersion: contractVersion, Name: "go_markov", Version: "1.0.0"}, nil
}

func (s *service) Load(request *wire.LoadRequest, call grpc.ServerStreamingServer[wire.LoadResponse]) error {
	if _, _, err := s.loaded(); err == nil {
		return status.Error(codes.FailedPrecondition, "a model is loaded already")
	}
	if len(request.AdapterPaths) > 0 {
		return refuse(call.Context(), invalid("the go_markov backend takes no adapters"))
	}
	chosen, err := optionsOf(request.BackendOptionsJson)
	if err != nil {
		return refuse(call.Context(), err)
	}
	// Signs of life go out before the work, which may take long.
	if err := call.Send(&wire.LoadResponse{Event: &wire.LoadResponse_Fraction{Fraction: 0}}); err != nil {
		return err
	}
	loaded, err := loadModel(request.Path, chosen, int(request.ContextLength), max(int(request.Parallel), 1))
	if err != nil {
		return refuse(call.Context(), err)
	}
	s.mutex.Lock()
	s.model, s.slots = loaded, make(chan struct{}, loaded.parallel)
	s.mutex.Unlock()
	log.Printf("INFO go_host: %d contexts", len(loaded.after))
	return call.Send(&wire.LoadResponse{Event: &wire.LoadResponse_Loaded{Loaded: &wire.Loaded{
		ContextLength:   int32(loaded.context),
		Parallel:        int32(loaded.parallel),
		SizeBytes:       loaded.fileBytes,
		BosId:           -1,
		EosId:           endToken,
		EosText:         endText,
		EmbeddingLength: dimensions,
		Generates:       true,
	}}})
}

// options are those that backend.toml declares.
type options struct {
	Order  int
	StepMS int `json:"step_ms"`
}

// optionsOf reads the options that are set. The core has checked them against backend.toml.
func optionsOf(text string) (options, error) {
	// A chain is so fast that a whole answer would come at once, which is not how an engine behaves.
	values := options{Order: 4, StepMS: 1}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &values); err != nil {
			return values, invalid("the options are not JSON: %v", err)
		}
	}
	return values, nil
}

func (s *service) Run(call grpc.BidiStreamingServer[wire.RunRequest, wire.RunResponse]) error {
	loaded, slots, err := s.loaded()
	if err != nil {
		return err
	}
	sequences := &stream{
		model:   loaded,
		work:    &s.work,
		slots:   slots,
		cancels: map[uint64]context.CancelFunc{},
		wakeup:  make(chan struct{}, 1),
		taken:   make(chan struct{}),
	}
	return sequences.run(call)
}

func (s *service) Embed(ctx context.Context, request *wire.EmbedRequest) (*wire.EmbedResponse, error) {
	loaded, _, err := s.loaded()
	if err != nil {
		return nil, err
	}
	response := &wire.EmbedResponse{}
	for _, input := range request.Inputs {
		tokens := input.TokenIds
		if !input.HasTokenIds {
			tokens = tokenize(input.Text, true)
		}
		if err := validate(tokens); err != nil {
			return nil, refuse(ctx, err)
		}
		if len(tokens) > loaded.context {
			return nil, refuse(ctx, tooLong(len(tokens), loaded.context))
		}
		values := make([]byte, 0, 4*dimensions)
		for _, value := range loaded.embed(tokens, request.Raw) {
			values = binary.LittleEndian.AppendUint32(values, math.Float32bits(value))
		}
		embedding := &wire.Embedding{Values: values, TokenCount: int32(len(tokens))}
		response.Embeddings = append(response.Embeddings, embedding)
	}
	return response, nil
}

func (s *service) Tokenize(_ context.Context, request *wire.TokenizeRequest) (*wire.TokenizeResponse, error) {
	if _, _, err := s.loaded(); err != nil {
		return nil, err
	}
	return &wire.TokenizeResponse{TokenIds: tokenize(request.Text, request.ParseSpecial)}, nil
}

func (s *service) Detokenize(ctx context.Context, request *wire.DetokenizeRequest) (*wire.DetokenizeResponse, error) {
	if _, _, err := s.loaded(); err != nil {
		return nil, err
	}
	if err := validate(request.TokenIds); err != nil {
		return nil, refuse(ctx, err)
	}
	response := &wire.DetokenizeResponse{}
	for _, token := range request.TokenIds {
		response.Pieces = append(response.Pieces, tokenBytes(token, request.Special))
	}
	return response, nil
}

func (s *service) Heartbeat(context.Context, *wire.HeartbeatRequest) (*wire.HeartbeatResponse, error) {
	if s.work.running.Load() == 0 {
		return &wire.HeartbeatResponse{}, nil
	}
	step := s.work.steps.Load()
	return &wire.HeartbeatResponse{Step: &step}, nil
}

func (s *service) loaded() (*model, chan struct{}, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.model == nil {
		return nil, nil, status.Error(codes.FailedPrecondition, "no model is loaded")
	}
	return s.model, s.slots, nil
}
