package clients

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/weightedroundrobin" // the recommended service config names it
	_ "google.golang.org/grpc/health"                      // checks the health of servers, as the service config asks
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// freeAddress returns an address of loopback on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// serve starts a server and returns when it is ready. It ends with the test at the latest.
func serve(t *testing.T, address string, settings ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(variable(t, "PUNA_SERVE"), address)
	command.Env = append(os.Environ(), settings...)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		command.Wait()
	})
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatalf("the server did not start: %v", err)
	}
	return command
}

const roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// Neither needs a retry by the client's code: GOAWAY tells which calls the server has not begun.
func TestDrainOfOneOfTwoServers(t *testing.T) {
	t.Parallel()
	t.Run("round robin", func(t *testing.T) { drain(t, grpc.WithDefaultServiceConfig(roundRobin)) })
	t.Run("recommended service config", func(t *testing.T) { drain(t, recommended(t)) })
}

func drain(t *testing.T, config grpc.DialOption) {
	t.Parallel()
	addresses := []string{freeAddress(t), freeAddress(t)}
	draining := serve(t, addresses[0])
	serve(t, addresses[1])

	servers := manual.NewBuilderWithScheme("static")
	servers.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: addresses[0]}, {Addr: addresses[1]}}})
	connection := dial(t, "static:///puna", grpc.WithResolvers(servers), config)

	clients := start(t, connection)
	count := func(address string) int {
		return clients.count(func(server peer.Peer) bool { return server.Addr.String() == address })
	}
	eventually(t, "both servers answer", func() bool { return count(addresses[0]) > 3 && count(addresses[1]) > 3 })
	draining.Process.Signal(syscall.SIGTERM)
	if _, err := draining.Process.Wait(); err != nil {
		t.Error(err)
	}
	before := count(addresses[1])
	eventually(t, "the other server goes on", func() bool { return count(addresses[1]) > before+5 })
	clients.stop()
}

// A server sends GOAWAY on a connection of this age, and the client opens another one.
func TestConnectionAge(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	serve(t, address, "PUNA_CONNECTION_AGE=1s", "PUNA_CONNECTION_AGE_GRACE=20s")
	clients := start(t, dial(t, address))
	eventually(t, "the third connection answers", func() bool {
		connections := map[string]bool{}
		clients.count(func(server peer.Peer) bool { connections[server.LocalAddr.String()] = true; return true })
		return len(connections) >= 3
	})
	clients.stop()
}

// callers make calls without a pause, and fail the test if one fails.
type callers struct {
	running sync.WaitGroup
	ended   atomic.Bool
	lock    sync.Mutex
	answers []peer.Peer
}

func start(t *testing.T, connection *grpc.ClientConn) *callers {
	clients := &callers{}
	for range 6 {
		clients.running.Go(func() {
			for !clients.ended.Load() {
				var server peer.Peer
				text, err := generate(within(t, patience), connection, prompt("steady", "a @wait .1 b"), grpc.Peer(&server))
				if err != nil || text != "ab" {
					t.Errorf("lost: %q %v", text, err)
					return
				}
				clients.lock.Lock()
				clients.answers = append(clients.answers, server)
				clients.lock.Unlock()
			}
		})
	}
	return clients
}

// count returns how many answers came over connections for which a condition holds.
func (clients *callers) count(holds func(peer.Peer) bool) int {
	clients.lock.Lock()
	defer clients.lock.Unlock()
	found := 0
	for _, server := range clients.answers {
		if holds(server) {
			found++
		}
	}
	return found
}

// stop waits for the calls under way.
func (clients *callers) stop() {
	clients.ended.Store(true)
	clients.running.Wait()
}
