package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator"
	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/program"
	"github.com/theazo/observability/shared/telemetry"
)

const eraseHelp = `Erases every record of one user, session or agent up to a time, for ever. From this
command's end on nobody is shown them; a running aggregator takes them out of the
database within a day, checks that none is left, and forgets whose they were.

  aggregator erase -org org_… -user usr_7 -reason "ticket 4711"
  aggregator erase -org org_… -session ses_42 -environment live
  aggregator erase -org org_… -list                  # what was asked for, and how far it is

docs/erasure.md says what is erased and what is not.`

type eraseOptions struct {
	org, user, session, agent, until, env, reason string
	list                                          bool
}

func (o *eraseOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.org, "org", "", "organisation whose records they are, org_…")
	fs.StringVar(&o.user, "user", "", "the user to erase")
	fs.StringVar(&o.session, "session", "", "the session to erase")
	fs.StringVar(&o.agent, "agent", "", "the agent to erase")
	fs.StringVar(&o.until, "until", "", "last time that is erased (default: now)")
	fs.StringVar(&o.env, "environment", "both", "live, test or both")
	fs.StringVar(&o.reason, "reason", "", "kept with the erasure: a ticket, no personal data")
	fs.BoolVar(&o.list, "list", false, "list erasures instead")
}

// parse reads the request that the flags make.
func (o *eraseOptions) parse(now time.Time) (envs []telemetry.Environment, req telemetry.ErasureRequest, err error) {
	req = telemetry.ErasureRequest{Reason: o.reason, By: "operator"}
	if o.org == "" {
		return nil, req, program.Usagef("erase: give -org; 'aggregator org list' shows them")
	}
	envs = []telemetry.Environment{telemetry.Live, telemetry.Test}
	if o.env != "both" {
		env, err := telemetry.ParseEnvironment(o.env)
		if err != nil {
			return nil, req, program.Usagef("erase: -environment: %w, or use both", err)
		}
		envs = []telemetry.Environment{env}
	}
	given := 0
	for kind, subject := range map[telemetry.ErasureKind]string{telemetry.EraseUser: o.user, telemetry.EraseSession: o.session, telemetry.EraseAgent: o.agent} {
		if subject != "" {
			req.Kind, req.Subject = kind, subject
			given++
		}
	}
	if o.list == (given > 0) || given > 1 {
		return nil, req, program.Usagef("erase: give one of -user, -session and -agent, or -list")
	}
	if o.until != "" {
		if req.Until, err = api.ParseTime(o.until, now); err != nil {
			return nil, req, program.Usagef("erase: -until: %q %w", o.until, err)
		}
	}
	return envs, req, nil
}

func (c *cli) erase(ctx context.Context) (err error) {
	var o eraseOptions
	cfg, err := c.load("erase", eraseHelp, o.flags)
	if err != nil {
		return err
	}
	envs, req, err := o.parse(time.Now())
	if err != nil {
		return err
	}
	if len(c.Args) > 0 {
		return program.Usagef("erase: %q is left over", c.Args[0])
	}
	a, err := aggregator.OpenAdmin(ctx, cfg, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if o.list {
		return c.listErasures(ctx, a, telemetry.OrgID(o.org), envs)
	}
	list, err := a.Erase(ctx, telemetry.OrgID(o.org), envs, req)
	if err != nil {
		return err
	}
	for i := range list {
		if _, err := fmt.Fprintf(c.Out, "%s\t%s\n", list[i].ID, list[i].Env); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(c.Err, "Nobody is shown these records any more. 'aggregator erase -list' tells when they are gone.")
	return err
}

func (c *cli) listErasures(ctx context.Context, a *aggregator.Admin, org telemetry.OrgID, envs []telemetry.Environment) error {
	var all []telemetry.Erasure
	for _, env := range envs {
		list, err := a.Erasures(ctx, telemetry.Scope{Org: org, Env: env})
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	return c.table("ID\tENVIRONMENT\tOF\tUNTIL\tREQUESTED\tSTATUS\tLINES\tAUDIT", len(all), func(i int) []any {
		e := &all[i]
		subject := e.Subject
		if subject == "" {
			subject = "hash " + e.SubjectHash[:min(12, len(e.SubjectHash))] + "…"
		}
		audit := "-"
		if e.Proof != nil {
			audit = strconv.FormatInt(e.Proof.AuditSeq, 10)
		}
		return []any{e.ID, e.Env, e.Kind.String() + " " + subject, day(e.Until), day(e.RequestedAt), e.Status, e.Counts.Lines, audit}
	})
}

const auditHelp = `Reads the audit log of an organisation, in which every entry's hash covers the
one before.

  aggregator audit verify -org org_…                 # checks all of it, prints the number and hash of the last entry
  aggregator audit verify -org org_… -seen 17:9f86…  # and that an entry printed earlier is still there
  aggregator audit list -org org_…

Keep what verify prints outside the database: only that shows an end that was cut off.`

// audit runs `aggregator audit verify|list`.
func (c *cli) audit(ctx context.Context) (err error) {
	if len(c.Args) == 0 || c.Args[0] != "verify" && c.Args[0] != "list" {
		return program.Usagef("audit: say what to do with it: verify, list")
	}
	verb := c.Args[0]
	c.Args = c.Args[1:]
	var org, seen string
	cfg, err := c.load("audit "+verb, auditHelp, func(fs *flag.FlagSet) {
		fs.StringVar(&org, "org", "", "organisation whose log it is, org_…")
		fs.StringVar(&seen, "seen", "", "an entry seen earlier, NUMBER:HASH")
	})
	if err != nil {
		return err
	}
	if org == "" {
		return program.Usagef("audit %s: give -org; 'aggregator org list' shows them", verb)
	}
	var chained *store.Chained
	if seen != "" {
		number, hash, ok := strings.Cut(seen, ":")
		n, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || n < 1 {
			return program.Usagef("audit: -seen is NUMBER:HASH, as verify prints it")
		}
		chained = &store.Chained{Seq: n, Hash: hash}
	}
	a, err := aggregator.OpenAdmin(ctx, cfg, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if verb == "list" {
		return c.listAudit(ctx, a, telemetry.OrgID(org))
	}
	report, err := a.VerifyAudit(ctx, telemetry.OrgID(org), chained)
	if err != nil {
		return err
	}
	if f := report.Fault; f != nil {
		return fmt.Errorf("the audit log of %s is not as it was written: entry %d %s (the %d before it are)", org, f.Seq, f.What, report.Entries)
	}
	_, err = fmt.Fprintf(c.Out, "%d:%s\n", report.Entries, report.Head)
	return err
}

func (c *cli) listAudit(ctx context.Context, a *aggregator.Admin, org telemetry.OrgID) error {
	var all []telemetry.AuditEntry
	for {
		var after int64
		if n := len(all); n > 0 {
			after = all[n-1].Seq
		}
		list, err := a.Audit(ctx, org, after)
		if err != nil {
			return err
		}
		if all = append(all, list...); len(list) == 0 {
			break
		}
	}
	return c.table("NUMBER\tAT\tWHO\tWHAT\tON\tDETAIL", len(all), func(i int) []any {
		e := &all[i]
		return []any{e.Seq, day(e.At), e.Actor, e.Action, e.Target, e.Detail}
	})
}
