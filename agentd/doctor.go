package agentd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/theazo/observability/agentd/guest"
	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/health"
)

// doctorTimeout bounds all checks together: a frozen engine or a resolver that
// does not answer must not freeze the doctor.
const doctorTimeout = 90 * time.Second

// Doctor looks at everything between this host's containers and the
// aggregator, and says what is wrong, what would be lost because of it, and
// how to mend it. It changes nothing but for a file that it writes into the
// state directory and removes again, and may run beside a running agentd. An
// error is a mistake in the call.
func (l *Loader) Doctor(ctx context.Context) ([]health.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	cfg, set, _, err := l.parse()
	if err != nil {
		return nil, err
	}
	x := &examination{cfg: cfg}
	x.configuration(set.File, set.Load(cfg))
	x.agent(ctx)
	x.stateDirectory()
	x.disk()
	x.certificate()
	x.aggregators(ctx)
	x.flow()
	x.clock()
	x.descriptors()
	x.findings = append(x.findings, guest.Doctor(cfg.guestConfig(false))...)
	x.redaction()
	x.files()
	x.engine(ctx)
	return x.findings, nil
}

// examination is one run of the doctor. What a check finds out, later ones use.
type examination struct {
	cfg      *Config
	findings []health.Finding
	running  *Status // of the agentd that runs on the state directory, or nil
	pid      int     // its process
	identity *uplink.Identity
}

func (x *examination) add(level health.Level, check, detail, mend string) {
	x.findings = append(x.findings, health.Finding{Level: level, Check: check, Detail: detail + ".", Mend: stop(mend)})
}

// capital makes a sentence of an error.
func capital(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// stop ends a sentence, where there is one.
func stop(sentence string) string {
	if sentence == "" || strings.ContainsAny(sentence[len(sentence)-1:], ".?") {
		return sentence
	}
	return sentence + "."
}

func (x *examination) configuration(file string, err error) {
	const check = "configuration"
	if err != nil {
		x.add(health.Fail, check, capital(err.Error())+": agentd does not start; the checks below are of what could be read", "Mend the setting that is named")
		return
	}
	if err := x.cfg.Validate(); err != nil {
		x.add(health.Fail, check, capital(strings.ReplaceAll(err.Error(), "\n", "; "))+": agentd does not start", "Mend the settings that are named; 'agentd check-config' tells more")
		return
	}
	if file == "" {
		file = "No file is given: defaults, environment and flags"
	}
	x.add(health.OK, check, file, "")
}

// agent asks the agentd that runs here.
func (x *examination) agent(ctx context.Context) {
	const check = "agentd"
	pid, err := ownerOfSocket(ctx, socketPath(x.cfg.StateDir))
	switch {
	case errors.Is(err, fs.ErrPermission):
		x.add(health.Note, check, "Whether one runs cannot be seen: "+err.Error(), "Ask as its user or as root")
		return
	case err != nil:
		x.add(health.Note, check, "None runs on this state directory; logs wait in the engine's files, for as long as these are kept", "Start it: systemctl start agentd, or 'agentd run'")
		return
	}
	x.pid = pid
	s, err := fetchStatus(ctx, x.cfg.StateDir)
	if err != nil {
		x.add(health.Fail, check, fmt.Sprintf("Process %d does not answer: %v", pid, err), "Restart it, and send us its log")
		return
	}
	x.running = s
	text := fmt.Sprintf("Version %s runs as process %d for %s", s.Version, pid, time.Since(s.StartedAt).Round(time.Second))
	evicted := uint64(0)
	for _, lane := range s.Buffer.Evicted {
		for _, class := range lane {
			evicted += class.Records
		}
	}
	if evicted > 0 {
		x.add(health.Warn, check, fmt.Sprintf("%s; %d records gave way because the buffer was full, and are shown as gaps", text, evicted), "Raise buffer.budget, or see why the aggregator was away")
	}
	if s.Buffer.Corrupt > 0 {
		x.add(health.Warn, check, fmt.Sprintf("%s; its buffer was damaged on disk in %d places, what was lost is shown as gaps", text, s.Buffer.Corrupt), "Look at the disk's health (dmesg, smartctl)")
	}
	if evicted > 0 || s.Buffer.Corrupt > 0 {
		return
	}
	x.add(health.OK, check, text, "")
}

// redaction says what leaves the node.
func (x *examination) redaction() {
	if !x.cfg.Redact.Enabled {
		x.add(health.Warn, "redaction", "It is switched off: keys and passwords that agents print are stored as they are", "Set redact.enabled to true")
		return
	}
	x.add(health.OK, "redaction", "Secrets are taken out before anything is written to disk", "")
}

// Table is findings for people, in lines of the given width.
func Table(findings []health.Finding, width int, colour bool) string {
	var b strings.Builder
	count := map[health.Level]int{}
	left := 0
	for _, f := range findings {
		left = max(left, len(f.Check))
		count[f.Level]++
	}
	const levelWidth = 4
	indent := strings.Repeat(" ", levelWidth+left+4)
	for _, f := range findings {
		level := fmt.Sprintf("%-*s", levelWidth, f.Level)
		if colour {
			level = colours[f.Level] + level + colourOff
		}
		fmt.Fprintf(&b, "%s  %-*s  ", level, left, f.Check)
		wrap(&b, f.Detail, indent, width)
		if f.Mend != "" && f.Level != health.OK {
			b.WriteString(indent)
			wrap(&b, "→ "+f.Mend, indent+"  ", width)
		}
	}
	fmt.Fprintf(&b, "\n%d checks: %d fail, %d warn, %d note, %d ok\n",
		len(findings), count[health.Fail], count[health.Warn], count[health.Note], count[health.OK])
	return b.String()
}

const colourOff = "\x1b[0m"

var colours = map[health.Level]string{
	health.OK: "\x1b[32m", health.Note: "\x1b[36m", health.Warn: "\x1b[33m", health.Fail: "\x1b[31;1m",
}

// wrap writes a text in lines of a width; the first one begins after what
// stands there already, which is as wide as indent.
func wrap(w io.Writer, text, indent string, width int) {
	room := max(20, width-len(indent))
	line := 0
	for i, word := range strings.Fields(text) {
		if i > 0 && line+1+len(word) > room {
			_, _ = io.WriteString(w, "\n"+indent) // a Builder takes everything
			line = 0
		} else if i > 0 {
			_, _ = io.WriteString(w, " ")
			line++
		}
		_, _ = io.WriteString(w, word)
		line += len(word)
	}
	_, _ = io.WriteString(w, "\n")
}

// Failed reports whether a check failed.
func Failed(findings []health.Finding) bool {
	for _, f := range findings {
		if f.Level == health.Fail {
			return true
		}
	}
	return false
}
