// Package ingesttest has what tests of the path from nodes need: a store in
// memory that keeps the promises of the real one, and faults on demand.
package ingesttest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Stream is what sequences count in, as the store sees it.
type Stream struct {
	Org   telemetry.OrgID
	Node  telemetry.NodeID
	Epoch uint64
	Lane  telemetry.Lane
}

// Store is a store in memory with exactly-once marks.
type Store struct {
	mu        sync.Mutex
	before    func([]*frame.Received) error
	after     func([]*frame.Received) error
	marks     map[Stream]uint64
	committed []*frame.Received
	commits   int
	orgs      map[telemetry.OrgID]bool
	quotas    map[telemetry.OrgID]telemetry.Quota
	tokens    map[ids.Hash]*token
	nodes     map[telemetry.NodeID]telemetry.Node
	reports   map[telemetry.NodeID]telemetry.NodeReport
}

type token struct {
	org  telemetry.OrgID
	used bool
}

// NewStore makes a store that knows the organisations.
func NewStore(orgs ...telemetry.OrgID) *Store {
	s := &Store{
		marks: map[Stream]uint64{}, orgs: map[telemetry.OrgID]bool{}, quotas: map[telemetry.OrgID]telemetry.Quota{}, tokens: map[ids.Hash]*token{}, nodes: map[telemetry.NodeID]telemetry.Node{},
	}
	for _, o := range orgs {
		s.orgs[o] = true
	}
	return s
}

// Before is called at the start of each commit, outside any lock; its error is the commit's.
func (s *Store) Before(f func([]*frame.Received) error) { s.set(&s.before, f) }

// After is called when a commit has taken effect; its error is what the caller sees.
func (s *Store) After(f func([]*frame.Received) error) { s.set(&s.after, f) }

func (s *Store) set(hook *func([]*frame.Received) error, f func([]*frame.Received) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*hook = f
}

// Commit implements ingest.Committer.
func (s *Store) Commit(_ context.Context, frames []*frame.Received) ([]frame.Outcome, []*frame.Published, error) {
	s.mu.Lock()
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(frames); err != nil {
			return nil, nil, err
		}
	}
	outcomes := s.apply(frames)
	if after != nil {
		if err := after(frames); err != nil {
			return nil, nil, err
		}
	}
	return outcomes, nil, nil
}

func (s *Store) apply(frames []*frame.Received) []frame.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	outcomes := make([]frame.Outcome, len(frames))
	for i, f := range frames {
		k := Stream{Org: f.Org, Node: f.Node, Epoch: f.Epoch, Lane: f.Lane}
		switch mark := s.marks[k]; {
		case f.Last() <= mark:
			outcomes[i].Verdict = frame.Duplicate
		case f.First != mark+1:
			outcomes[i] = frame.Outcome{Verdict: frame.OutOfOrder, Next: mark + 1}
		default:
			s.marks[k] = f.Last()
			s.committed = append(s.committed, f)
		}
	}
	return outcomes
}

// Forget moves a stream's mark back and drops what was committed after it: a
// database that was restored from a backup.
func (s *Store) Forget(k Stream, mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks[k] = mark
	s.committed = slices.DeleteFunc(s.committed, func(f *frame.Received) bool {
		return f.Org == k.Org && f.Node == k.Node && f.Epoch == k.Epoch && f.Lane == k.Lane && f.Last() > mark
	})
}

// Commits is the number of transactions.
func (s *Store) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Marks returns a copy of all marks.
func (s *Store) Marks() map[Stream]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.marks)
}

// Committed returns what was committed, in order.
func (s *Store) Committed() []*frame.Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.committed)
}

// Messages returns the log messages of an organisation, in order of commit.
func (s *Store) Messages(org telemetry.OrgID) ([]string, error) {
	var list []string
	for _, f := range s.Committed() {
		if f.Org != org || f.Segment == nil {
			continue
		}
		lines := f.Segment.Read()
		if err := lines.Decode(segment.Message); err != nil {
			return nil, err
		}
		for i := range lines.Segment.Lines {
			list = append(list, string(lines.Message(i)))
		}
	}
	return list, nil
}

// KnownOrganisation implements ingest.Organisations.
func (s *Store) KnownOrganisation(_ context.Context, org telemetry.OrgID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orgs[org], nil
}

// Quotas implements ingest.Organisations.
func (s *Store) Quotas(context.Context) (map[telemetry.OrgID]telemetry.Quota, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.quotas), nil
}

// SetQuota gives an organisation a quota of its own.
func (s *Store) SetQuota(org telemetry.OrgID, q telemetry.Quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quotas[org] = q
}

// Token makes a join token of an organisation; "" for platform nodes.
func (s *Store) Token(authority ids.Hash, org telemetry.OrgID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ids.NewJoinToken(authority)
	s.tokens[ids.HashOf(text)] = &token{org: org}
	return text
}

// Join implements ingest.Nodes.
func (s *Store) Join(_ context.Context, h ids.Hash, _ netip.Addr, n telemetry.Node) (telemetry.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[h]
	if t == nil || t.used {
		return n, telemetry.Failf(telemetry.Unauthorized, "The join token is not known, used up or expired.")
	}
	t.used = true
	n.ID, n.Org, n.Generation = telemetry.NodeID(ids.New("nod")), t.org, 1
	s.nodes[n.ID] = n
	return n, nil
}

// Node implements ingest.Nodes.
func (s *Store) Node(_ context.Context, id telemetry.NodeID) (telemetry.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.nodes[id]
	if !known {
		return n, telemetry.Failf(telemetry.NotFound, "No node %s.", id)
	}
	return n, nil
}

// Renew implements ingest.Nodes.
func (s *Store) Renew(_ context.Context, id telemetry.NodeID, generation int64, notAfter time.Time) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	if generation != n.Generation {
		n.RevokedAt = time.Now()
		s.nodes[id] = n
		return 0, telemetry.Failf(telemetry.Conflict, "Generation %d is not the current one.", generation)
	}
	n.Generation++
	n.CertificateTo = notAfter
	s.nodes[id] = n
	return n.Generation, nil
}

// Seen implements ingest.Nodes.
func (s *Store) Seen(_ context.Context, id telemetry.NodeID, version string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	n.Version, n.LastSeenAt = version, at
	s.nodes[id] = n
	return nil
}

// ForgetRenewals sets a node back to the generation it enrolled with, as a
// restore from a backup does.
func (s *Store) ForgetRenewals(id telemetry.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	n.Generation = 1
	s.nodes[id] = n
}

// Revoke revokes a node.
func (s *Store) Revoke(id telemetry.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	n.RevokedAt = time.Now()
	s.nodes[id] = n
}

// Reported implements ingest.Nodes.
func (s *Store) Reported(id telemetry.NodeID, _ time.Time, r *telemetry.NodeReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reports == nil {
		s.reports = map[telemetry.NodeID]telemetry.NodeReport{}
	}
	s.reports[id] = *r
}

// Report is the last one of a node.
func (s *Store) Report(id telemetry.NodeID) (telemetry.NodeReport, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.reports[id]
	return r, ok
}

// Revoked implements ingest.Nodes.
func (s *Store) Revoked(_ context.Context, list []telemetry.NodeID) ([]telemetry.NodeID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var revoked []telemetry.NodeID
	for _, id := range list {
		if n, known := s.nodes[id]; !known || !n.RevokedAt.IsZero() {
			revoked = append(revoked, id)
		}
	}
	return revoked, nil
}

// Segment encodes lines of one agent as the body of a frame.
func Segment(messages ...string) []byte {
	var w segment.Writer
	for i, m := range messages {
		e := telemetry.LogEntry{
			Timestamp: time.UnixMicro(1_700_000_000_000_000 + int64(i)).UTC(), Level: telemetry.Info, Message: m,
			Origin: telemetry.Origin{Agent: "agt_test", Session: "ses_test", Provider: telemetry.Docker, Stream: telemetry.Stdout},
		}
		w.Append(&e)
	}
	return w.Encode(nil)
}
