package health

// Level says how much a Finding matters.
type Level string

// The levels of findings, from the best to the worst.
const (
	OK   Level = "ok"   // as it should be
	Note Level = "note" // worth knowing, nothing is at risk
	Warn Level = "warn" // something can be lost, or will fail later
	Fail Level = "fail" // it does not work, or loses something now
)

// Finding is what one check of `agentd doctor` found.
type Finding struct {
	Level  Level  `json:"level"`
	Check  string `json:"check"`          // what was looked at, in two or three words: "docker log driver"
	Detail string `json:"detail"`         // what was found, and what would be lost because of it
	Mend   string `json:"mend,omitempty"` // what to do about it; empty where there is nothing to do
}
