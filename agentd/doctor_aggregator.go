package agentd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/theazo/observability/agentd/docker"
	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/shared/ids"
)

// lateRenewal is when a certificate of a day should have been renewed long
// since: it is at two thirds of its life.
const lateRenewal = 5 * time.Hour

// certificate looks at who this node is.
func (x *examination) certificate() {
	const check = "certificate"
	id, err := uplink.LoadIdentity(x.cfg.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.enrolment()
		return
	case errors.Is(err, fs.ErrPermission):
		x.add(health.Note, check, "It cannot be read by you: "+err.Error(), "Run the doctor as agentd's user or as root")
		return
	case err != nil:
		x.add(health.Fail, check, capital(err.Error()), "")
		return
	}
	x.identity = &id
	who := fmt.Sprintf("%s of %s", id.Node, id.Org)
	if id.Platform {
		who = fmt.Sprintf("%s (platform)", id.Node)
	}
	left := time.Until(id.NotAfter)
	text := fmt.Sprintf("%s, until %s", who, id.NotAfter.Format(time.RFC3339))
	const mend = "The way to the aggregator below says why it is not renewed; once it has expired: 'agentd enroll' with a new join token"
	switch {
	case left <= 0:
		x.add(health.Fail, check, text+", which is over: nothing is sent, lines stay on this host until the buffer is full", "Enrol again: 'agentd enroll' with a new token of 'aggregator node token'")
	case left < lateRenewal && id.NotAfter.Sub(id.NotBefore) > 2*lateRenewal:
		x.add(health.Warn, check, fmt.Sprintf("%s: it should have been renewed; in %s nothing can be sent any more", text, left.Round(time.Minute)), mend)
	default:
		x.add(health.OK, check, text, "")
	}
}

// enrolment looks at what a node has that is to be enrolled.
func (x *examination) enrolment() {
	const check = "certificate"
	token, err := x.cfg.joinToken()
	const mend = "Make one with 'aggregator node token -org org_…', and give it as aggregator.join_token"
	switch {
	case err != nil:
		x.add(health.Fail, check, "Not enrolled yet, and "+err.Error(), mend)
	case token == "":
		x.add(health.Fail, check, "Not enrolled, and there is no join token: nothing can be sent", mend)
	case x.cfg.Aggregator.Enrolment == "":
		x.add(health.Fail, check, "Not enrolled, and the enrolment server's address is not given: nothing can be sent", "Set aggregator.enrolment")
	default:
		if _, err := ids.ParseJoinToken(token); err != nil {
			x.add(health.Fail, check, "Not enrolled yet, and the join token "+err.Error(), mend)
			return
		}
		x.add(health.Note, check, "Not enrolled yet; the first start trades the join token for a certificate (a token is good for one host and 15 minutes)", "")
	}
}

// aggregators tries the way to each address.
func (x *examination) aggregators(ctx context.Context) {
	addresses := x.cfg.Aggregator.Addresses
	if len(addresses) == 0 {
		x.add(health.Fail, "aggregator", "No address is given: nothing can be sent", "Set aggregator.addresses")
	}
	const most = 8
	good := 0
	for _, a := range addresses[:min(len(addresses), most)] {
		if x.way(ctx, "aggregator", a, x.identity) {
			good++
		}
	}
	if good > 0 { // one that does not answer is a matter for the others
		x.soften("aggregator")
	}
	if x.identity == nil && x.cfg.Aggregator.Enrolment != "" {
		x.way(ctx, "enrolment", x.cfg.Aggregator.Enrolment, nil)
	}
	if x.running != nil && !x.running.Uplink.Connected && x.running.Uplink.LastError != "" {
		x.add(health.Fail, "connection", fmt.Sprintf("Agentd is not connected: %s; lines wait in its buffer (%s of %s)",
			x.running.Uplink.LastError, megabytes(x.running.Buffer.Disk), megabytes(x.running.Buffer.Budget)), "")
	}
}

// soften makes failed checks of a name warnings.
func (x *examination) soften(check string) {
	for i := range x.findings {
		if f := &x.findings[i]; f.Check == check && f.Level == health.Fail {
			f.Level = health.Warn
		}
	}
}

// mends is what to do where a step of the way fails.
var mends = map[string]string{
	"name":       "Look at the name and at the resolver (/etc/resolv.conf)",
	"connection": "Is the aggregator running there, and does a firewall let this host out to it?",
	"encryption": "Is it the right address? Nothing between node and aggregator may end TLS. After a new authority: 'agentd enroll' with a new join token",
	"admission":  "Enrol again: 'agentd enroll' with a new token of 'aggregator node token'",
}

// way reports whether the way to an address is open.
func (x *examination) way(ctx context.Context, check, address string, id *uplink.Identity) bool {
	steps := uplink.Probe(ctx, id, address)
	var passed []string
	for _, s := range steps {
		if s.Err != nil {
			x.add(health.Fail, check, fmt.Sprintf("%s: %s fails: %v; lines stay on this host until the buffer is full", address, s.Name, s.Err), mends[s.Name])
			return false
		}
		passed = append(passed, fmt.Sprintf("%s %s", s.Name, s.Took.Round(100*time.Microsecond)))
	}
	x.add(health.OK, check, address+": "+strings.Join(passed, ", "), "")
	return true
}

// What a line's way to the aggregator may take before something is wrong.
const (
	slowLine = 5 * time.Second
	oldFrame = time.Minute
)

// flow looks at how what the running agentd reads gets on.
func (x *examination) flow() {
	const check = "flow of lines"
	if x.running == nil {
		return
	}
	s := x.running
	var waiting int64
	var oldest time.Duration
	for _, lane := range s.Buffer.Lane {
		waiting += lane.Bytes
		if lane.Frames > 0 && !lane.Oldest.IsZero() {
			oldest = max(oldest, time.Since(lane.Oldest))
		}
	}
	for _, t := range s.Uplink.Throttled {
		x.add(health.Warn, check, fmt.Sprintf("The aggregator holds back %s until %s: %s", t.Organisation, t.Until.UTC().Format(time.TimeOnly), t.Reason),
			"Raise the organisation's quota, or print less")
	}
	text := "What is read is committed at once"
	if s.CanaryLag > 0 {
		text = fmt.Sprintf("A line takes %s until it is committed", s.CanaryLag.Round(time.Millisecond))
	}
	switch {
	case oldest > oldFrame:
		x.add(health.Warn, check, fmt.Sprintf("%s wait in the buffer (of %s), the oldest for %s: lines become visible that much later, and when it is full the oldest debug and info lines go, which is counted",
			megabytes(waiting), megabytes(s.Buffer.Budget), oldest.Round(time.Second)), "The checks of the aggregator say what stands in the way")
	case s.CanaryLag > slowLine:
		x.add(health.Warn, check, text, "Look at the aggregator's load and at the way to it")
	case len(s.Uplink.Throttled) == 0:
		x.add(health.OK, check, text, "")
	}
}

// engine asks the Docker source about its engine and containers.
func (x *examination) engine(ctx context.Context) {
	if !x.cfg.Docker.Enabled {
		if len(x.cfg.Files) == 0 {
			x.add(health.Warn, "docker engine", "It is switched off and no files are given: agentd collects nothing of containers", "Set docker.enabled to true")
		}
		return
	}
	x.findings = append(x.findings, docker.Doctor(ctx, x.cfg.dockerConfig())...)
}
