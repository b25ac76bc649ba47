package telemetry

import "time"

// NodeReport is what a node says about itself every few seconds.
type NodeReport struct {
	At           time.Time         `json:"at,omitzero"` // the node's clock
	StartedAt    time.Time         `json:"startedAt,omitzero"`
	Sequences    []Sequence        `json:"sequences,omitempty"`
	BufferBytes  int64             `json:"bufferBytes"`
	BufferBudget int64             `json:"bufferBudget"`
	Oldest       time.Time         `json:"oldestUnsentAt,omitzero"` // of what is not acknowledged; zero: all is
	Counts       map[string]uint64 `json:"counts,omitempty"`        // records dropped, cut or changed since StartedAt, by reason
	Pressure     float64           `json:"pressure"`                // on the host: 0 none, 1 agentd holds back
	Skew         time.Duration     `json:"clockSkewNanos"`          // node minus aggregator
	CanaryLag    time.Duration     `json:"canaryLagNanos,omitempty"`
}

// Sequence is a node's side of the ledger for one (organisation, epoch, lane).
type Sequence struct {
	Org          OrgID  `json:"organisationId,omitempty"`
	Epoch        uint64 `json:"epoch"`
	Lane         Lane   `json:"lane"`
	Assigned     uint64 `json:"assigned"`     // last sequence given to a record
	Acknowledged uint64 `json:"acknowledged"` // last sequence that the aggregator has acknowledged
	Lost         uint64 `json:"lost"`         // not acknowledged yet: records for which a tombstone goes
}

// LedgerEntry is both sides of one sequence. Always:
//
//	Assigned = Base + Visible + Quarantined + Lost + InFlight
//
// and the node takes nothing for acknowledged that is not here. Assigned is the
// node's word, the others are counted by the aggregator in the transaction that
// committed the records. Base was committed before this node had the sequence
// (it enrolled anew), or by an aggregator that keeps no ledger.
type LedgerEntry struct {
	Epoch       string `json:"epoch,omitempty"` // 16 hex digits
	Lane        string `json:"lane,omitempty"`
	Assigned    uint64 `json:"assigned"`
	Base        uint64 `json:"base,omitempty"`
	Visible     uint64 `json:"visible"`
	Quarantined uint64 `json:"quarantined"`
	Lost        uint64 `json:"lost"` // in gaps that stand for records of this sequence
	InFlight    uint64 `json:"inFlight"`
	Balanced    bool   `json:"balanced"`
}

// Ledger of one node, as one organisation may see it.
type Ledger struct {
	Node       NodeID        `json:"nodeId"`
	ReportedAt time.Time     `json:"reportedAt,omitzero"` // when the node last reported; zero: never
	Balanced   bool          `json:"balanced"`
	Totals     LedgerEntry   `json:"totals"` // Epoch and Lane are empty
	Lanes      []LedgerEntry `json:"lanes"`  // the totals of each lane that was ever used
	// Entries are the sequences that the node still reports, or that are out of
	// balance; what is over is in the totals alone.
	Entries []LedgerEntry `json:"entries"`
	// Report is what the node said of itself; nil for nodes of the platform,
	// which serve others too.
	Report *NodeReport `json:"report,omitempty"`
}
