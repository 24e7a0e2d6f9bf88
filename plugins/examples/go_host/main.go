// Go-host is a model host for Puna written in Go. It shows what a host must do; its model is a Markov chain of bytes.
//
// Puna starts the program that backend.toml names, and speaks the gRPC service puna.backend.v1 to it over a Unix socket.
// Standard error is the host's log.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"puna.dev/examples/go_host/wire"
)

// Messages have no bound of their own: the core has checked them, and a batch of vectors may be large.
const maxMessageBytes = 1<<31 - 1

func main() {
	log.SetFlags(0)
	if err := serve(os.Getenv("PUNA_HOST_SOCKET")); err != nil {
		log.Fatalf("ERROR go_host: %v", err)
	}
}

// serve listens on the socket until SIGTERM, or until standard input closes because the core is gone.
func serve(socket string) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes))
	wire.RegisterBackendServiceServer(server, &service{})

	signal.Ignore(syscall.SIGINT) // Ctrl-C is for the core, which then ends its hosts
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		server.Stop()
	}()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()

	// The socket listens already, so a core that connects after this line is accepted.
	fmt.Println("puna.backend.v1 ready")
	return server.Serve(listener)
}
