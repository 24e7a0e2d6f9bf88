package clients

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	punav1 "puna.dev/clients/go/puna/v1"
)

// apiKey is sent with each call.
type apiKey string

func (key apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

func (key apiKey) RequireTransportSecurity() bool { return true }

// secure returns a connection to the server with TLS and keys.
func secure(t *testing.T, key string) *grpc.ClientConn {
	t.Helper()
	tls, err := credentials.NewClientTLSFromFile(variable(t, "PUNA_CA"), "")
	if err != nil {
		t.Fatal(err)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(tls)}
	if key != "" {
		options = append(options, grpc.WithPerRPCCredentials(apiKey(key)))
	}
	return dial(t, variable(t, "PUNA_SECURE_ADDRESS"), options...)
}

func TestTLSAndKey(t *testing.T) {
	t.Parallel()
	list := func(connection *grpc.ClientConn) error {
		_, err := punav1.NewModelsServiceClient(connection).ListModels(within(t, patience), &punav1.ListModelsRequest{})
		return err
	}
	if err := list(secure(t, variable(t, "PUNA_API_KEY"))); err != nil {
		t.Error(err)
	}
	expect(t, list(secure(t, "")), codes.Unauthenticated)
	expect(t, list(secure(t, "puna_wrong")), codes.Unauthenticated)
	stranger := credentials.NewClientTLSFromCert(x509.NewCertPool(), "")
	expect(t, list(dial(t, variable(t, "PUNA_SECURE_ADDRESS"), grpc.WithTransportCredentials(stranger))), codes.Unavailable)
}

// The server must accept a ping every ten seconds. One that counts them as too many ends the connection after 40 seconds.
func TestKeepalive(t *testing.T) {
	t.Parallel()
	pings := grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true})
	t.Run("with a silent call", func(t *testing.T) {
		t.Parallel()
		text, err := generate(within(t, patience), plain(t, pings), prompt("silent", "@wait 45 done"))
		if err != nil || text != "done" {
			t.Errorf("%q %v", text, err)
		}
	})
	t.Run("without a call", func(t *testing.T) {
		t.Parallel()
		connection := plain(t, pings)
		connection.Connect()
		ctx := within(t, 45*time.Second)
		for state := connectivity.Idle; state != connectivity.Ready; state = connection.GetState() {
			connection.WaitForStateChange(ctx, state)
		}
		if connection.WaitForStateChange(ctx, connectivity.Ready) {
			t.Errorf("the connection became %v", connection.GetState())
		}
	})
}

func TestWaitForReady(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	connection := dial(t, address)
	_, err := generate(within(t, patience), connection, prompt("steady", "early"))
	expect(t, err, codes.Unavailable)
	answered := make(chan error, 1)
	go func() {
		text, err := generate(within(t, patience), connection, prompt("steady", "late"), grpc.WaitForReady(true))
		if err == nil && text != "late" {
			t.Errorf("%q", text)
		}
		answered <- err
	}()
	serve(t, address)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// recommended returns the service config that Puna recommends to all clients.
func recommended(t *testing.T) grpc.DialOption {
	t.Helper()
	text, err := os.ReadFile(variable(t, "PUNA_SERVICE_CONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	return grpc.WithDefaultServiceConfig(string(text))
}

// The hosts of the model die in the first two attempts, of which the server itself makes the second.
func TestRetryByServiceConfig(t *testing.T) {
	t.Parallel()
	loading.Lock()
	defer loading.Unlock()
	crash := func() *punav1.GenerateRequest {
		folder := t.TempDir()
		first, second := filepath.Join(folder, "first"), filepath.Join(folder, "second")
		request := prompt("steady", "@crash_once "+first+" @crash_once "+second+" again")
		request.Options = &punav1.RequestOptions{OmitProgress: true}
		return request
	}
	_, err := generate(within(t, patience), plain(t), crash())
	expect(t, err, codes.Unavailable)
	text, err := generate(within(t, patience), plain(t, recommended(t)), crash())
	if err != nil || text != "again" {
		t.Errorf("%q %v", text, err)
	}
}
