package telemetry

import "time"

// ErasureKind says what the subject of an erasure is.
type ErasureKind uint8

// The kinds. The numbers are stored: never renumber.
const (
	EraseUser ErasureKind = iota
	EraseSession
	EraseAgent
)

var erasureKinds = words[ErasureKind]{kind: "kind of erasure", names: []string{"user", "session", "agent"}}

func (k ErasureKind) String() string                { return erasureKinds.name(k) }
func (k ErasureKind) MarshalText() ([]byte, error)  { return erasureKinds.marshal(k) }
func (k *ErasureKind) UnmarshalText(b []byte) error { return erasureKinds.unmarshal(b, k) }

// ErasureStatus is how far an erasure is.
type ErasureStatus uint8

// The states. The numbers are stored: never renumber.
const (
	ErasureRequested ErasureStatus = iota // no reader shows the subject's records any more
	ErasureErasing                        // they are being taken out of the database
	ErasureDone                           // they are gone, which was checked
)

var erasureStatuses = words[ErasureStatus]{kind: "status", names: []string{"requested", "erasing", "done"}}

func (s ErasureStatus) String() string                { return erasureStatuses.name(s) }
func (s ErasureStatus) MarshalText() ([]byte, error)  { return erasureStatuses.marshal(s) }
func (s *ErasureStatus) UnmarshalText(b []byte) error { return erasureStatuses.unmarshal(b, s) }

// MaxReason bounds the reason of an erasure, in bytes.
const MaxReason = 500

// ErasureRequest asks for the end of every record of one user, session or
// agent with a timestamp up to and including Until.
type ErasureRequest struct {
	Kind    ErasureKind
	Subject string
	Until   time.Time // zero: now; never in the future
	Reason  string    // kept with the erasure: no personal data belongs here
	By      string    // who asks, such as key_…
}

// Erasure is a request and what became of it.
type Erasure struct {
	ID   string      `json:"id"` // era_…
	Env  Environment `json:"environment"`
	Kind ErasureKind `json:"kind"`
	// Subject is what was asked for. It is forgotten when the erasure is done;
	// from then on there is SubjectHash, a keyed hash that tells late records.
	Subject     string        `json:"subject,omitempty"`
	SubjectHash string        `json:"subjectHash,omitempty"`
	Until       time.Time     `json:"until"`
	Reason      string        `json:"reason,omitempty"`
	RequestedBy string        `json:"requestedBy"`
	RequestedAt time.Time     `json:"requestedAt"`
	StartedAt   time.Time     `json:"startedAt,omitzero"`
	Status      ErasureStatus `json:"status"`
	Counts      ErasureCounts `json:"counts"`
	Proof       *ErasureProof `json:"proof,omitempty"` // once done
}

// ErasureCounts is what was taken out, records that came late included.
type ErasureCounts struct {
	Lines        int64 `json:"lines"`
	Chunks       int64 `json:"chunksRewritten"`
	Events       int64 `json:"events"`
	Spans        int64 `json:"spans"`
	ModelCalls   int64 `json:"modelCalls"`
	MetricPoints int64 `json:"metricPoints"`
	Gaps         int64 `json:"gaps"`
	Agents       int64 `json:"agents"`
	Sessions     int64 `json:"sessions"`
}

// ErasureProof says that everything was read again and nothing was found.
type ErasureProof struct {
	DoneAt   time.Time `json:"doneAt"`
	Lines    int64     `json:"linesLookedAt"`
	Found    int64     `json:"found"`  // 0: an erasure with a find is not done
	Digest   string    `json:"digest"` // SHA-256 over the erasure as it was when done
	AuditSeq int64     `json:"auditSeq"`
}

// AuditEntry is one line of an organisation's audit log. Its hash covers the
// hash of the entry before it.
type AuditEntry struct {
	Seq    int64     `json:"seq"` // 1, 2, …
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"` // erasure.requested, erasure.done, …
	Target string    `json:"target"`
	Detail string    `json:"detail,omitempty"` // a JSON object, or nothing
	Hash   string    `json:"hash"`
}
