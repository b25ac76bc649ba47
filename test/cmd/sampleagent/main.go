// Command sampleagent prints what an AI agent at work might print, about three
// lines a second, until it is stopped: something to look at on a new
// installation. It does no work and calls nobody.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// pause is the mean time between two lines.
const pause = 330 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &agent{out: os.Stdout, err: os.Stderr, pause: func() bool {
		timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // a demonstration
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}}
	a.say("agent ready: model %s, 4 tools (browser, shell, files, search)", models[0])
	task := 1
	for a.work(task) {
		task++
	}
	_, _ = fmt.Fprintln(os.Stdout, "asked to stop; finishing")
}

var models = []string{"claude-sonnet-4", "gpt-4o", "claude-haiku-4"}

var tasks = []struct{ goal, site, answer string }{
	{"Compare prices of three standing desks", "https://desks.example/standing", "The Oslo is cheapest at $412 with delivery."},
	{"Summarise this week's support tickets", "https://support.example/queue?week=47", "61 tickets, 18 about invoices; two need a person."},
	{"Find a table for six on Friday", "https://tables.example/search?people=6", "Booked for 19:30, confirmation B7Q-114."},
	{"Check the release notes for breaking changes", "https://notes.example/v5", "One: the export endpoint now pages by cursor."},
	{"Reconcile the October invoices", "https://books.example/invoices/october", "42 of 43 match; invoice 2026-1093 is paid twice."},
}

// agent prints. A false from pause ends everything.
type agent struct {
	out, err io.Writer
	pause    func() bool
	calls    int
}

func (a *agent) say(format string, args ...any) bool {
	_, _ = fmt.Fprintf(a.out, format+"\n", args...)
	return a.pause()
}

// event prints a line as structured loggers do.
func (a *agent) event(level, message, fields string) bool {
	_, err := fmt.Fprintf(a.out, `{"level":%q,"ts":%q,"msg":%q%s}`+"\n", level, time.Now().UTC().Format(time.RFC3339Nano), message, fields)
	return err == nil && a.pause()
}

func (a *agent) complain(text string) bool {
	_, _ = fmt.Fprintln(a.err, text)
	return a.pause()
}

// work is one task from its goal to its answer.
func (a *agent) work(n int) bool {
	t := tasks[(n-1)%len(tasks)]
	steps := []func() bool{
		func() bool { return a.say("\x1b[1m\x1b[36m▶ task %d\x1b[0m %s", n, t.goal) },
		func() bool { return a.call("plan the steps", 800) },
		func() bool {
			return a.event("debug", "prompt cache", fmt.Sprintf(`,"hit":%t,"tokens":%d`, n%3 != 0, 1200+n%7*130))
		},
		func() bool { return a.say("INFO  tool=browser open %s", t.site) },
		func() bool {
			return a.say("\x1b[32m✓\x1b[0m page loaded in %d ms (%d KiB)", 180+n*37%900, 40+n*13%300)
		},
		// Pages that agents read hold anything; whoever shows this line must not run it.
		func() bool {
			return a.say("\x1b[31mblocked\x1b[0m a script in the page: <script>window.pwned=1</script>")
		},
		func() bool { return a.call("read the page", 2400) },
		func() bool { return a.trouble(n) },
		func() bool {
			return a.say("  found %d candidates; ranking them — größte Übereinstimmung zuerst 🔎", 3+n%9)
		},
		func() bool { return a.call("write the answer", 1500) },
		func() bool {
			return a.event("info", "task finished", fmt.Sprintf(`,"task":%d,"calls":%d,"durationMs":%d`, n, a.calls, 2600+n*171%4000))
		},
		func() bool { return a.say("\x1b[32m■ answer\x1b[0m %s", t.answer) },
	}
	for _, step := range steps {
		if !step() {
			return false
		}
	}
	return true
}

// call is one call of a model.
func (a *agent) call(purpose string, tokens int) bool {
	a.calls++
	model := models[a.calls%len(models)]
	return a.event("info", "model call: "+purpose, fmt.Sprintf(`,"model":%q,"inputTokens":%d,"outputTokens":%d,"latencyMs":%d`,
		model, tokens+a.calls*53%400, 90+a.calls*29%260, 420+a.calls*97%1900))
}

// trouble is what goes wrong now and then.
func (a *agent) trouble(n int) bool {
	switch {
	case n%7 == 0:
		return a.complain("ERROR tool=shell exit status 1: pandas could not read the file\n"+
			"Traceback (most recent call last):\n"+
			"  File \"/app/reconcile.py\", line 48, in <module>\n"+
			"    rows = load(path)\n"+
			"  File \"/app/reconcile.py\", line 17, in load\n"+
			"    return parse(open(path).read())\n"+
			"ValueError: column 'amount' is missing in row 1093") &&
			a.say("retrying with the second sheet")
	case n%3 == 0:
		return a.complain(fmt.Sprintf("WARN  rate limited by the model provider, waiting %d s (attempt 1 of 5)", 1+n%4))
	case n%2 == 0:
		return a.event("error", "selector not found", `,"selector":"button.checkout","tool":"browser","attempt":2`)
	}
	return true
}
