package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/program"
	"github.com/theazo/observability/shared/telemetry"
)

// options of the org, key and node commands.
type options struct {
	org, name, mode, env, permissions string
	platform                          bool
	ttl, expires, keep                time.Duration
	uses, class                       int
	bytes                             config.Size
	records                           int64
	set                               func(func(*flag.Flag)) // visits the flags that were given
}

func (o *options) flags(command string) func(*flag.FlagSet) {
	return func(fs *flag.FlagSet) {
		switch command {
		case "org create":
			fs.StringVar(&o.name, "name", "", "what people call the organisation")
			fs.StringVar(&o.mode, "mode", string(telemetry.FullPlatform), "full_platform, byoi_primitives or infra_only")
		case "org retention":
			fs.StringVar(&o.org, "org", "", "organisation whose lines are meant, org_…")
			fs.IntVar(&o.class, "class", -1, "retention class to put it into (database.retention_classes); 0: database.retention")
			fs.DurationVar(&o.keep, "keep", 0, "delete its lines earlier than its class does, such as 168h; 0: as the class says")
		case "org quota":
			fs.StringVar(&o.org, "org", "", "organisation that is meant, org_…")
			fs.TextVar(&o.bytes, "bytes", config.Size(0), "most that it may send a second, encoded, such as 10MiB; 0: as quota.bytes_per_second says")
			fs.Int64Var(&o.records, "records", 0, "the same in records; 0: as quota.records_per_second says")
			o.set = fs.Visit
		case "key create":
			fs.StringVar(&o.org, "org", "", "organisation of the key, org_…")
			fs.StringVar(&o.name, "name", "", "what the key is for")
			fs.StringVar(&o.env, "environment", "live", "live or test: a test key sees and writes test data only")
			fs.StringVar(&o.permissions, "permissions", "", "comma-separated, such as logs:read (default: all)")
			fs.DurationVar(&o.expires, "expires", 90*24*time.Hour, "how long the key is valid; 0 for ever")
		case "key list":
			fs.StringVar(&o.org, "org", "", "organisation of the keys, org_…")
		case "node token":
			fs.StringVar(&o.org, "org", "", "organisation that the node's records will belong to, org_…")
			fs.BoolVar(&o.platform, "platform", false, "a node of the platform itself: its sandboxes' labels name the organisation")
			fs.StringVar(&o.name, "name", "", "only a node of this name may use the token")
			fs.DurationVar(&o.ttl, "ttl", 15*time.Minute, "how long the token is valid, 24h at most")
			fs.IntVar(&o.uses, "uses", 1, "how many nodes may enrol with it")
		}
	}
}

var adminHelp = map[string]string{ //nolint:gosec // sentences, no credentials
	"org create":    "Makes an organisation and prints its id.",
	"org list":      "Lists organisations.",
	"org retention": "Says how long an organisation's log lines are kept, or with -class changes it: for lines that are compacted from then on.",
	"org quota":     "Says what an organisation may send, or with -bytes or -records changes it: within seconds, on all aggregators.",
	"key create":    "Makes an API key and prints it, once: only its hash is stored.",
	"key list":      "Lists the API keys of an organisation.",
	"key revoke":    "Revokes the API key whose id is given; streams opened with it end within a minute.",
	"node token":    "Makes a token with which hosts enrol (agentd enroll) and prints it.",
	"node list":     "Lists nodes.",
	"node revoke":   "Revokes the node whose id is given; its connection ends within five seconds.",
}

// admin runs `aggregator org|key|node …` against the database that the
// configuration names: that of a DSN, or the private one of data_dir.
func (c *cli) admin(ctx context.Context, noun string) (err error) {
	if len(c.Args) == 0 || strings.HasPrefix(c.Args[0], "-") {
		return program.Usagef("%s: say what to do with it: %s", noun, verbs(noun))
	}
	command := noun + " " + c.Args[0]
	help, known := adminHelp[command]
	if !known {
		return program.Usagef("unknown command %q: use %s", command, verbs(noun))
	}
	c.Args = c.Args[1:]
	var o options
	cfg, err := c.load(command, help, o.flags(command))
	if err != nil {
		return err
	}
	a, err := aggregator.OpenAdmin(ctx, cfg, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	switch command {
	case "org create":
		return c.createOrganisation(ctx, a, &o)
	case "org list":
		return c.listOrganisations(ctx, a)
	case "org retention":
		return c.retention(ctx, a, &o)
	case "org quota":
		return c.quota(ctx, a, &o)
	case "key create":
		return c.createKey(ctx, a, &o)
	case "key list":
		return c.listKeys(ctx, a, &o)
	case "key revoke":
		return c.each("key", func(id string) error { return a.RevokeAPIKey(ctx, strings.TrimPrefix(id, "key_")) })
	case "node token":
		return c.createToken(ctx, a, &o)
	case "node list":
		return c.listNodes(ctx, a)
	}
	return c.each("node", func(id string) error { return a.RevokeNode(ctx, telemetry.NodeID(id)) })
}

func verbs(noun string) string {
	var list []string
	for _, command := range []string{"org create", "org list", "org retention", "org quota", "key create", "key list", "key revoke", "node token", "node list", "node revoke"} {
		if n, verb, _ := strings.Cut(command, " "); n == noun {
			list = append(list, verb)
		}
	}
	return strings.Join(list, ", ")
}

// each runs do for every id given as an argument.
func (c *cli) each(what string, do func(id string) error) error {
	if len(c.Args) == 0 {
		return program.Usagef("give the id of the %s", what)
	}
	for _, id := range c.Args {
		if err := do(id); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(c.Err, "%s %s is revoked\n", what, id)
	}
	return nil
}

func (c *cli) createOrganisation(ctx context.Context, a *aggregator.Admin, o *options) error {
	if o.name == "" {
		return program.Usagef("org create: give -name")
	}
	org, err := a.CreateOrganisation(ctx, o.name, telemetry.Mode(o.mode))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.Out, org)
	return err
}

// retention shows or changes how long an organisation's lines are kept.
func (c *cli) retention(ctx context.Context, a *aggregator.Admin, o *options) error {
	switch {
	case o.org == "":
		return program.Usagef("org retention: give -org; 'aggregator org list' shows them")
	case o.class < 0 && o.keep != 0:
		return program.Usagef("org retention: give -class beside -keep, 0 for the common one")
	case o.class >= 0:
		if err := a.SetRetention(ctx, telemetry.OrgID(o.org), o.class, o.keep); err != nil {
			return err
		}
	}
	class, keep, err := a.Retention(ctx, telemetry.OrgID(o.org))
	if err != nil {
		return err
	}
	own := "as long as its class says"
	if keep != 0 {
		own = "for " + keep.String()
	}
	_, err = fmt.Fprintf(c.Out, "lines of %s are of class %d and kept %s\n", o.org, class, own)
	return err
}

func (c *cli) quota(ctx context.Context, a *aggregator.Admin, o *options) error {
	org := telemetry.OrgID(o.org)
	if org == "" {
		return program.Usagef("org quota: give -org; 'aggregator org list' shows them")
	}
	q, err := a.Quota(ctx, org)
	if err != nil {
		return err
	}
	changed := false
	o.set(func(f *flag.Flag) {
		switch f.Name {
		case "bytes":
			q.BytesPerSecond, changed = int64(o.bytes), true
		case "records":
			q.RecordsPerSecond, changed = o.records, true
		}
	})
	if changed {
		if err := a.SetQuota(ctx, org, q); err != nil {
			return err
		}
	}
	bytes, records := "what everybody may", "what everybody may"
	if q.BytesPerSecond > 0 {
		bytes = config.Size(q.BytesPerSecond).String()
	}
	if q.RecordsPerSecond > 0 {
		records = strconv.FormatInt(q.RecordsPerSecond, 10)
	}
	_, err = fmt.Fprintf(c.Out, "%s may send a second: bytes: %s, records: %s\n", org, bytes, records)
	return err
}

func (c *cli) createKey(ctx context.Context, a *aggregator.Admin, o *options) error {
	if o.org == "" {
		return program.Usagef("key create: give -org; 'aggregator org list' shows them")
	}
	env, err := telemetry.ParseEnvironment(o.env)
	if err != nil {
		return program.Usagef("key create: -environment: %w", err)
	}
	permissions := telemetry.AllPermissions
	if o.permissions != "" {
		permissions = nil
		for p := range strings.SplitSeq(o.permissions, ",") {
			permissions = append(permissions, telemetry.Permission(strings.TrimSpace(p)))
		}
	}
	var expires time.Time
	if o.expires > 0 {
		expires = time.Now().Add(o.expires)
	}
	key, err := a.CreateAPIKey(ctx, telemetry.OrgID(o.org), env, o.name, permissions, expires)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(c.Err, "Keep this key: it is shown only now.")
	_, err = fmt.Fprintln(c.Out, key)
	return err
}

func (c *cli) createToken(ctx context.Context, a *aggregator.Admin, o *options) error {
	if (o.org == "") == !o.platform {
		return program.Usagef("node token: give -org or -platform")
	}
	token, err := a.CreateJoinToken(ctx, telemetry.OrgID(o.org), o.ttl, o.uses, o.name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.Out, token)
	return err
}

func (c *cli) listOrganisations(ctx context.Context, a *aggregator.Admin) error {
	list, err := a.Organisations(ctx)
	if err != nil {
		return err
	}
	return c.table("ID\tNAME\tMODE\tBILLING", len(list), func(i int) []any {
		return []any{list[i].ID, list[i].Name, list[i].Mode, list[i].BillingMode}
	})
}

func (c *cli) listKeys(ctx context.Context, a *aggregator.Admin, o *options) error {
	if o.org == "" {
		return program.Usagef("key list: give -org; 'aggregator org list' shows them")
	}
	list, err := a.APIKeys(ctx, telemetry.OrgID(o.org))
	if err != nil {
		return err
	}
	return c.table("ID\tNAME\tENVIRONMENT\tCREATED\tLAST USED\tEXPIRES\tSTATE", len(list), func(i int) []any {
		k := list[i]
		return []any{"key_" + k.ID, k.Name, k.Env, day(k.CreatedAt), day(k.LastUsedAt), day(k.ExpiresAt), keyState(k.RevokedAt, k.ExpiresAt)}
	})
}

func keyState(revoked, expires time.Time) string {
	switch {
	case !revoked.IsZero():
		return "revoked"
	case !expires.IsZero() && time.Now().After(expires):
		return "expired"
	}
	return "valid"
}

func (c *cli) listNodes(ctx context.Context, a *aggregator.Admin) error {
	list, err := a.NodesAll(ctx)
	if err != nil {
		return err
	}
	return c.table("ID\tNAME\tORGANISATION\tVERSION\tLAST SEEN\tCERTIFICATE UNTIL\tSTATE", len(list), func(i int) []any {
		n := list[i]
		org, state := string(n.Org), "valid"
		if org == "" {
			org = "(platform)"
		}
		if !n.RevokedAt.IsZero() {
			state = "revoked"
		}
		return []any{n.ID, n.Name, org, n.Version, day(n.LastSeenAt), day(n.CertificateTo), state}
	})
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// table prints rows under a heading. Values come from tenants and nodes, so
// control characters are shown as escapes.
func (c *cli) table(heading string, rows int, row func(i int) []any) error {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, heading)
	for i := range rows {
		cells := row(i)
		texts := make([]string, len(cells))
		for j, cell := range cells {
			texts[j] = printable(fmt.Sprint(cell))
		}
		_, _ = fmt.Fprintln(w, strings.Join(texts, "\t"))
	}
	return w.Flush()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\uFFFD'
		}
		return r
	}, s)
}
