package clients

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// weighted weighs servers by the load reports in the trailers of calls, or by those of OpenRcaService.
func weighted(options string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"weighted_round_robin": {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.5s"` + options + `}}]}`)
}

// Both servers answer alike. One of them is busy with other requests, which the balancer knows from its reports alone.
func TestBalancingByLoad(t *testing.T) {
	t.Parallel()
	addresses := []string{freeAddress(t), freeAddress(t)}
	for i, address := range addresses {
		serve(t, address)
		connection := dial(t, address)
		if _, err := generate(within(t, patience), connection, prompt("silent", "loaded")); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			until(t, connection, prompt("silent", "busy @wait 60"), "decode")
		}
	}
	for name, options := range map[string]string{
		"reports in trailers":       "",
		"reports of OpenRcaService": `, "enableOobLoadReport": true, "oobReportingPeriod": "0.5s"`,
	} {
		t.Run(name, func(t *testing.T) {
			servers := manual.NewBuilderWithScheme("static")
			servers.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: addresses[0]}, {Addr: addresses[1]}}})
			connection := dial(t, "static:///puna", grpc.WithResolvers(servers), weighted(options))
			answers := map[string]int{}
			ask := func(calls int) {
				for range calls {
					var server peer.Peer
					text, err := generate(within(t, patience), connection, prompt("steady", "@wait .05 a"), grpc.Peer(&server))
					if err != nil || text != "a" {
						t.Fatalf("%q %v", text, err)
					}
					answers[server.Addr.String()]++
				}
			}
			ask(20)
			time.Sleep(time.Second)
			clear(answers)
			ask(60)
			if busy, idle := answers[addresses[0]], answers[addresses[1]]; busy == 0 || idle < 2*busy {
				t.Errorf("%d calls to the busy server, %d to the idle one", busy, idle)
			}
		})
	}
}
