package ingest

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Committer stores frames. It returns one outcome per frame, in their order,
// and what to publish, in the order of each organisation's stream. A failure
// with code unprocessable_entity says that the data of some frame can never be
// stored; every other error says that a later attempt may succeed.
type Committer interface {
	Commit(ctx context.Context, frames []*frame.Received) ([]frame.Outcome, []*frame.Published, error)
}

// Nodes is the memory of nodes, join tokens and certificate generations.
type Nodes interface {
	// Join uses up a join token and makes its node, whose id, organisation and
	// generation it returns: once per token, whatever runs at the same time.
	// Failure unauthorized otherwise.
	Join(ctx context.Context, token ids.Hash, from netip.Addr, n telemetry.Node) (telemetry.Node, error)
	// Node returns a node. Failure not_found where there is none.
	Node(ctx context.Context, id telemetry.NodeID) (telemetry.Node, error)
	// Renew moves a node from a generation to the next. Failure conflict, and
	// the node is locked, where the generation is neither the node's current one
	// nor one that was just replaced.
	Renew(ctx context.Context, id telemetry.NodeID, generation int64, notAfter time.Time) (next int64, err error)
	// Seen notes that a node has connected.
	Seen(ctx context.Context, id telemetry.NodeID, version string, at time.Time) error
	// Reported keeps what a node says about itself; it must not block.
	Reported(id telemetry.NodeID, at time.Time, r *telemetry.NodeReport)
	// Revoked returns those of the nodes that are revoked or locked.
	Revoked(ctx context.Context, ids []telemetry.NodeID) ([]telemetry.NodeID, error)
}

// Organisations says which organisations there are, and what they may send.
type Organisations interface {
	KnownOrganisation(ctx context.Context, org telemetry.OrgID) (bool, error)
	// Quotas are those of organisations that have one of their own.
	Quotas(ctx context.Context) (map[telemetry.OrgID]telemetry.Quota, error)
}

// Config of a Server. The authority, the four interfaces' values, Publish and
// Registerer are needed; every other field has a usable zero value.
type Config struct {
	Authority     *Authority
	Hosts         []string // names and addresses in the server's certificate beside wire.ServerName
	Committer     Committer
	Nodes         Nodes
	Organisations Organisations
	Publish       func([]*frame.Published) // called in commit order per organisation; must not block
	Log           hclog.Logger             // nil: none
	Registerer    prometheus.Registerer

	EnrolmentAddress string // host:port
	IngestAddress    string // host:port

	Workers       int             // transactions at a time, organisations spread over them; 0: 2
	CommitEvery   time.Duration   // shortest pause between the starts of a worker's transactions; 0: 25 ms
	CommitTimeout time.Duration   // of one attempt; 0: 10 s
	Window        uint32          // bytes that a node may have on their way; 0: 8 MiB
	OrgMemory     int64           // bytes of frames held per organisation; 0: 64 MiB
	Memory        int64           // bytes of frames held in all; 0: 512 MiB
	Quota         telemetry.Quota // of organisations without one of their own; 0: 128 MiB, 2,000,000
	QuotasEvery   time.Duration   // how often the others are read; 0: 5 s
	NodeLife      time.Duration   // of a node's certificate; 0: 24 h
	EnrolPerHour  int             // attempts to enrol per address, a sixth of them at once; 0: 120
	RevokedEvery  time.Duration   // how often connected nodes are checked; 0: 2 s
	StopTimeout   time.Duration   // for committing what is queued at the end; 0: 10 s
}

func (o Config) withDefaults() (Config, error) {
	if o.Authority == nil || o.Committer == nil || o.Nodes == nil || o.Organisations == nil || o.Publish == nil || o.Registerer == nil {
		return o, errors.New("ingest: an authority, a committer, nodes, organisations, a publish function and a registerer are needed")
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	o.Workers = cmp.Or(o.Workers, 2)
	o.CommitEvery = cmp.Or(o.CommitEvery, 25*time.Millisecond)
	o.CommitTimeout = cmp.Or(o.CommitTimeout, 10*time.Second)
	o.Window = cmp.Or(o.Window, 8<<20)
	o.OrgMemory = cmp.Or(o.OrgMemory, 64<<20)
	o.Memory = cmp.Or(o.Memory, 512<<20)
	o.Quota.BytesPerSecond = cmp.Or(o.Quota.BytesPerSecond, 128<<20)
	o.Quota.RecordsPerSecond = cmp.Or(o.Quota.RecordsPerSecond, 2_000_000)
	o.QuotasEvery = cmp.Or(o.QuotasEvery, 5*time.Second)
	o.NodeLife = cmp.Or(o.NodeLife, 24*time.Hour)
	o.EnrolPerHour = cmp.Or(o.EnrolPerHour, 120)
	o.RevokedEvery = cmp.Or(o.RevokedEvery, 2*time.Second)
	o.StopTimeout = cmp.Or(o.StopTimeout, 10*time.Second)
	return o, nil
}
