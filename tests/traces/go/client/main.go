// Command client asks a server by REST and by gRPC, as a service does whose calls OpenTelemetry's libraries trace.
//
// Its arguments are the URL of the REST face, the address of the gRPC face and the address of the collector. It prints a
// line of JSON for each call: the trace and the span of the call, and the answer.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	punav1 "puna.dev/traces/puna/v1"
)

// The scripted backend answers this prompt with the metadata that its host received.
const model, prompt = "scripted", "@metadata"

func main() {
	url, address, collector := os.Args[1], os.Args[2], os.Args[3]
	ctx := context.Background()
	exporter := must(otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(collector), otlptracegrpc.WithInsecure()))
	provider := trace.NewTracerProvider(trace.WithSyncer(exporter))
	defer provider.Shutdown(ctx)
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	tracer := provider.Tracer("client")

	traced(ctx, tracer, "rest", func(ctx context.Context) string { return byREST(ctx, url) })
	traced(ctx, tracer, "grpc", func(ctx context.Context) string { return byGRPC(ctx, address) })
}

func traced(ctx context.Context, tracer api.Tracer, face string, ask func(context.Context) string) {
	ctx, span := tracer.Start(ctx, face)
	answer := ask(ctx)
	span.End()
	line := map[string]string{"face": face, "trace": span.SpanContext().TraceID().String(), "answer": answer}
	fmt.Println(string(must(json.Marshal(line))))
}

func byREST(ctx context.Context, url string) string {
	body := must(json.Marshal(map[string]any{"model": model, "prompt": prompt, "raw": true, "stream": false}))
	request := must(http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/generate", bytes.NewReader(body)))
	client := http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport)}
	response := must(client.Do(request))
	defer response.Body.Close()
	var answer struct{ Response string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		log.Fatal(err)
	}
	return answer.Response
}

func byGRPC(ctx context.Context, address string) string {
	connection := must(grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
	))
	defer connection.Close()
	request := &punav1.GenerateRequest{Model: model, Prompt: &punav1.GenerateRequest_Text{Text: prompt}, Raw: true}
	answer := must(punav1.NewGenerateServiceClient(connection).Generate(ctx, request))
	return answer.GetText()
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
