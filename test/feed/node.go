package feed

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/test/stack"
)

// Node is an enrolled node whose frames come from a Queue.
type Node struct {
	*Queue
	Uplink *uplink.Uplink
	cancel context.CancelFunc
	ran    chan error
}

// Connect enrols a node of an organisation, or of the platform where org is
// empty, and sends what its queue is given, until Close. dir keeps its identity.
func Connect(ctx context.Context, dir, name, org string, to ...*stack.Aggregator) (*Node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := []string{"node", "token", "-org", org}
	if org == "" {
		args = []string{"node", "token", "-platform"}
	}
	token, err := to[0].Command(ctx, args...)
	if err != nil {
		return nil, err
	}
	if _, err := uplink.Enroll(ctx, uplink.EnrollConfig{Address: to[0].Enrolment, Token: token, StateDir: dir, NodeName: name, Version: "test"}); err != nil {
		return nil, fmt.Errorf("enrol %s: %w", name, err)
	}
	var addresses []string
	for _, a := range to {
		addresses = append(addresses, a.Ingest)
	}
	n := &Node{Queue: NewQueue(), ran: make(chan error, 1)}
	n.Uplink, err = uplink.New(uplink.Config{Addresses: addresses, StateDir: dir, NodeName: name, Version: "test"}, n.Queue, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	var running context.Context
	running, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() { n.ran <- n.Uplink.Run(running) }()
	return n, nil
}

// Close disconnects the node. What is not acknowledged is gone.
func (n *Node) Close() error {
	n.cancel()
	if err := <-n.ran; err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("uplink: %w", err)
	}
	return nil
}
