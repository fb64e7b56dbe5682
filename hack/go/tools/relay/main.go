// relay carries TCP connections from one network namespace into another. It is
// started inside the target namespace with a listening socket that was opened
// outside, as file descriptor 3: a socket stays in the namespace it was made
// in, so accepted connections come from outside and dialled ones go inside.
//
//	relay TARGET [DNS-SERVER]
//
// TARGET is HOST:PORT. With a DNS server (HOST:PORT), HOST is looked up there
// for every connection, so that a Service made anew is found again.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	listenerDescriptor = 3
	dialTimeout        = 10 * time.Second
	maxConnections     = 1024
)

func newDialer(dnsServer string) *net.Dialer {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if dnsServer != "" {
		dialer.Resolver = &net.Resolver{
			PreferGo: true,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, dnsServer)
			},
		}
	}
	return dialer
}

// pipe copies one direction, then passes the end of the stream on.
func pipe(to, from *net.TCPConn, done chan<- struct{}) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
	done <- struct{}{}
}

func serve(outside *net.TCPConn, dialer *net.Dialer, target string) {
	defer outside.Close()
	conn, err := dialer.Dial("tcp", target)
	if err != nil {
		fmt.Fprintf(os.Stderr, "relay: cannot connect to %s: %v\n", target, err)
		_ = outside.SetLinger(0) // a reset tells the client that nobody answered
		return
	}
	inside := conn.(*net.TCPConn)
	defer inside.Close()
	done := make(chan struct{}, 2)
	go pipe(inside, outside, done)
	go pipe(outside, inside, done)
	<-done
	<-done
}

func run(target, dnsServer string) error {
	listener, err := net.FileListener(os.NewFile(listenerDescriptor, "listener"))
	if err != nil {
		return fmt.Errorf("file descriptor %d is not a listening socket: %w", listenerDescriptor, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	dialer := newDialer(dnsServer)
	slots := make(chan struct{}, maxConnections)
	for {
		slots <- struct{}{}
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			defer func() { <-slots }()
			serve(conn.(*net.TCPConn), dialer, target)
		}()
	}
}

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: relay HOST:PORT [DNS-HOST:PORT], with a listening socket as descriptor 3")
		os.Exit(2)
	}
	dnsServer := ""
	if len(os.Args) == 3 {
		dnsServer = os.Args[2]
	}
	if err := run(os.Args[1], dnsServer); err != nil {
		fmt.Fprintf(os.Stderr, "relay: %v\n", err)
		os.Exit(1)
	}
}
