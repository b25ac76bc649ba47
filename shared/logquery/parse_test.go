package logquery_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/logquery"
	"github.com/theazo/observability/shared/telemetry"
)

// What the parts of a filter print as says where each condition went.
func TestWhatAQueryBecomes(t *testing.T) {
	for _, c := range []struct{ query, filter string }{
		{"", `{}`},
		{" \t ", `{}`},
		{"level:error", `{"level":["error"]}`},
		{"level:>=warn", `{"level":["warn","error"]}`},
		{"level:>info", `{"level":["warn","error"]}`},
		{"level:<=info", `{"level":["debug","info"]}`},
		{"level:<=error", `{"level":["debug","info","warn","error"]}`},
		{"level:<warn", `{"level":["debug","info"]}`},
		{"level:(warn error)", `{"level":["warn","error"]}`},
		{"level:(error OR warn)", `{"level":["warn","error"]}`},
		{"-level:debug", `{"level":["info","warn","error"]}`},
		{"-level:(debug info)", `{"level":["warn","error"]}`},
		{"level:warn OR level:error", `{"level":["warn","error"]}`},
		{"level:>=info -level:warn", `{"level":["info","error"]}`},
		{"agent:agt_1 session:ses_1 user:\"Mr X\"", `{"sessionId":["ses_1"],"agentId":["agt_1"],"userId":["Mr X"]}`},
		{"agentId:(a b) node:nod_1 sandbox:c0ffee", `{"agentId":["a","b"],"nodeId":["nod_1"],"sandboxId":["c0ffee"]}`},
		{"trace:trc_1 span:spn_1 provider:docker source:model stream:stderr", `{"source":["model"],"provider":["docker"],"stream":["stderr"],"traceId":["trc_1"],"spanId":["spn_1"]}`},
		{"env:live", `{"env":["live"]}`},
		{"-env:test timeout", `{"search":"timeout","env":["live"]}`},
		{"timeout", `{"search":"timeout"}`},
		{"timeout error", `{"search":"timeout","q":"error"}`},
		{"error timeout", `{"search":"timeout","q":"error"}`},
		{"connection AND refused", `{"search":"connection","q":"refused"}`},
		{`"connection refused"`, `{"search":"connection refused"}`},
		{`"a \"b\" \\ c\n"`, `{"search":"a \"b\" \\ c\n"}`},
		{"12:30", `{"search":"12:30"}`},
		{"größe", `{"search":"größe"}`},
		{"a\u00a0b", `{"search":"a","q":"b"}`},
		{"-timeout", `{"q":"-timeout"}`},
		{"NOT timeout", `{"q":"-timeout"}`},
		{"--timeout", `{"search":"timeout"}`},
		{"a OR b", `{"q":"a OR b"}`},
		{"a b OR c d", `{"q":"a b OR c d"}`},
		{"a (b OR c) d", `{"search":"a","q":"(b OR c) d"}`},
		{"((a))", `{"search":"a"}`},
		{"-(a OR b)", `{"q":"-(a OR b)"}`},
		{"-(a -b)", `{"q":"-(a -b)"}`},
		{"a OR (b OR c)", `{"q":"a OR b OR c"}`},
		{"agent:a OR b OR agent:c", `{"q":"agent:(a c) OR b"}`},
		{"level:error (agent:a OR meta.retry:true)", `{"level":["error"],"q":"agent:a OR meta.retry:true"}`},
		{"-agent:a", `{"q":"-agent:a"}`},
		{"agent:a agent:b", `{"agentId":["a"],"q":"agent:b"}`},
		{`/time.?out/`, `{"q":"/time.?out/"}`},
		{`/a\/b/i`, `{"q":"/a\\/b/i"}`},
		{`/\d+ ms$/ level:warn`, `{"level":["warn"],"q":"/\\d+ ms$/"}`},
		{"-/debug/i", `{"q":"-/debug/i"}`},
		{"meta.http.status:>=500", `{"q":"meta.http.status:>=500"}`},
		{"meta.cost:<0.10", `{"q":"meta.cost:<0.10"}`},
		{"meta.user.name:(ann \"bob b\")", `{"q":"meta.user.name:(ann \"bob b\")"}`},
		{`meta.x:">5"`, `{"q":"meta.x:\">5\""}`},
		{"has:trace", `{"q":"has:trace"}`},
		{"-has:user has:(session metadata) has:meta.http.status", `{"q":"-has:user (has:session OR has:metadata) has:meta.http.status"}`},
		{"OR_x", `{"search":"OR_x"}`},
		{`"OR"`, `{"search":"OR"}`},
		{"or", `{"search":"or"}`},
		{"a(b)", `{"search":"a","q":"b"}`},
	} {
		var f telemetry.LogFilter
		if err := logquery.Parse(c.query, &f); err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		var buffer strings.Builder
		enc := json.NewEncoder(&buffer)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
		if text := strings.TrimSpace(buffer.String()); text != c.filter {
			t.Errorf("%s: %s, want %s", c.query, text, c.filter)
		}
	}
}

func TestWhatAnErrorSays(t *testing.T) {
	for _, c := range []struct {
		query string
		at    int
		says  string
	}{
		{"level:fatal", 6, "use one of debug, info, warn, error"},
		{"level:>=fatal", 8, "use one of debug, info, warn, error"},
		{"level:>error", 7, "debug < info < warn < error"},
		{"level:<debug", 7, "debug < info < warn < error"},
		{"level:>=(warn error)", 8, "takes one level"},
		{"level: error", 6, "directly behind the colon"},
		{"level:warn,error", 6, "level:(warn error)"},
		{"level:()", 6, "the list is empty"},
		{"level:(warn", 6, "never closed"},
		{"provider:aws", 9, "use one of docker, fly, e2b"},
		{"agent:a/b", 6, "holds a character other than"},
		{"user:\"\"", 5, "is empty"},
		{"a http://x.y/z", 2, `put the text in quotes to search for it ("http://x.y/z")`},
		{"tool:x", 0, "level, agent, session"},
		{"metadata:x", 0, "is no field"},
		{"has:speed", 4, "trace, span, session, user, metadata"},
		{"has:level", 4, "not level"},
		{"meta.:x", 6, "a path into the metadata"},
		{"meta.a!b:x", 9, "a path into the metadata"},
		{"meta.a:>x", 8, "compares numbers"},
		{"meta.a:>0x10", 8, "compares numbers"},
		{"meta.a:>inf", 8, "compares numbers"},
		{"meta.a:>(1 2)", 8, "compares numbers"},
		{"(a", 0, "never closed"},
		{"a (b OR", 7, "a condition is missing at the end"},
		{"a)", 1, "closes nothing"},
		{"()", 1, "a condition is missing before"},
		{"OR a", 0, `write "OR" in quotes`},
		{"a OR OR b", 5, "on both sides"},
		{"a OR", 4, "missing at the end"},
		{"a AND", 5, "missing at the end"},
		{"NOT", 3, "missing at the end"},
		{"a - b", 2, "negates what follows it directly"},
		{`größer "x`, 9, "never closed"},
		{`"a\d"`, 2, `write "\\" for the sign itself`},
		{`"a\`, 2, `write "\\" for the sign itself`},
		{`""`, 0, "an empty text"},
		{"/a", 0, "never closed"},
		{`/a\`, 0, "never closed"},
		{"/v1/logs", 4, `put a path such as "/v1/logs" in quotes`},
		{"//", 0, "an empty regexp"},
		{"/a(/", 0, "missing closing )"},
		{"/(a/", 0, "missing closing )"},
		{`/(?P<x>a)(?!b)/`, 0, "invalid"},
		{"/(a{20}){20}/", 0, "too large"},
		{"/" + strings.Repeat("a", 257) + "/", 0, "longer than 256 bytes"},
		{"/a/ /b/ /c/ /d/ /e/", 16, "at most 4 regexps"},
		{"a\x00b", 1, "without NUL"},
		{"a\xffb", 1, "UTF-8"},
		{strings.Repeat("a ", 101), 200, "more than 100 conditions"},
		{"agent:(" + strings.Repeat("a ", 101) + ")", 205, "more than 100 conditions"},
		{strings.Repeat("(", 17) + "a" + strings.Repeat(")", 17), 16, "more than 16 deep"},
		{strings.Repeat("-", 17) + "a", 16, "more than 16 deep"},
		{strings.Repeat("a", 2049), 2048, "longer than 2048 bytes"},
		{strings.Repeat("a", 513), 0, "longer than 512 bytes"},
		{"env:live OR a", 0, "env: can only stand"},
		{"a -(env:live b)", 4, "env: can only stand"},
		{"env:live env:test", 9, "env: can only stand"},
	} {
		f := telemetry.LogFilter{Agents: []telemetry.AgentID{"before"}}
		err := logquery.Parse(c.query, &f)
		var e *logquery.Error
		if !errors.As(err, &e) {
			t.Errorf("%.60q: %v", c.query, err)
			continue
		}
		if e.Position != c.at || !strings.Contains(e.Detail, c.says) {
			t.Errorf("%.60q: at byte %d, want %d: %s", c.query, e.Position, c.at, e)
		}
		if diff := cmp.Diff(telemetry.LogFilter{Agents: []telemetry.AgentID{"before"}}, f); diff != "" {
			t.Errorf("%.60q changed the filter: %s", c.query, diff)
		}
	}
	err := logquery.Parse(`größer "x`, &telemetry.LogFilter{})
	if err == nil || !strings.HasPrefix(err.Error(), "at character 8: ") { // not byte
		t.Error(err)
	}
}

func TestAQueryNarrowsTheFilterThatItIsAddedTo(t *testing.T) {
	f := telemetry.LogFilter{Agents: []telemetry.AgentID{"a", "b"}, Search: "x", Levels: []telemetry.Level{telemetry.Error}}
	if err := logquery.Parse("agent:(b c) level:warn y", &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Agents) != 1 || f.Agents[0] != "b" || f.Search != "x" || f.Where.String() != "level:warn y" || len(f.Levels) != 1 {
		t.Errorf("%+v, %s", f, f.Where)
	}
}

// expr draws a condition from the makers that the parser uses.
func expr(depth int) *rapid.Generator[*telemetry.LogExpr] {
	return rapid.Custom(func(t *rapid.T) *telemetry.LogExpr {
		kinds := 6
		if depth > 0 {
			kinds = 9
		}
		var e *telemetry.LogExpr
		var err error
		text := rapid.OneOf(rapid.SampledFrom([]string{"a", "OR", "b c", `q"\`, "-x", "/p", "k:v", "Ä", "(", "1e3", "\n"}), rapid.StringMatching(`[ -~äK\t]{1,6}`))
		id := rapid.StringMatching(`[a-c:.-]{1,3}|OR`)
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			e, err = telemetry.ExprText(text.Draw(t, "text"))
		case 1:
			e, err = telemetry.ExprRegexp(rapid.SampledFrom([]string{"a", "a.b", `a\/b`, "/", `\\`, "[ab]{2,3}$", `\bK`, "(a|b)+c"}).Draw(t, "re"), rapid.Bool().Draw(t, "fold"))
		case 2:
			e, err = telemetry.ExprIs(telemetry.FieldLevel, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"debug", "info", "warn", "error"}), 1, 4, rapid.ID).Draw(t, "levels")...)
		case 3:
			e, err = telemetry.ExprIs(rapid.SampledFrom([]telemetry.LogField{telemetry.FieldAgent, telemetry.FieldSession, telemetry.FieldNode, telemetry.FieldTrace}).Draw(t, "field"), rapid.SliceOfN(id, 1, 3).Draw(t, "ids")...)
		case 4:
			path := rapid.SampledFrom([]string{"k", "k.l", "x-y/z"}).Draw(t, "path")
			if c := telemetry.Comparison(rapid.IntRange(0, 4).Draw(t, "compare")); c == telemetry.Equal {
				e, err = telemetry.ExprMeta(path, c, rapid.SliceOfN(text, 1, 3).Draw(t, "values")...)
			} else {
				e, err = telemetry.ExprMeta(path, c, rapid.SampledFrom([]string{"5", "-1.5", "1e3"}).Draw(t, "number"))
			}
		case 5:
			if rapid.Bool().Draw(t, "meta") {
				e, err = telemetry.ExprHasMeta("k.l")
			} else {
				e, err = telemetry.ExprHas(rapid.SampledFrom([]telemetry.LogField{telemetry.FieldTrace, telemetry.FieldUser, telemetry.FieldMetadata}).Draw(t, "has"))
			}
		case 6:
			e = telemetry.ExprNot(expr(depth-1).Draw(t, "not"))
		case 7:
			e = telemetry.ExprAll(rapid.SliceOfN(expr(depth-1), 1, 3).Draw(t, "all")...)
		case 8:
			e = telemetry.ExprAny(rapid.SliceOfN(expr(depth-1), 1, 3).Draw(t, "any")...)
		}
		if err != nil {
			t.Fatal(err)
		}
		return e
	})
}

// entry draws an entry of the few values that expr asks for.
func entry() *rapid.Generator[telemetry.LogEntry] {
	return rapid.Custom(func(t *rapid.T) telemetry.LogEntry {
		id := rapid.StringMatching(`[a-c:.-]{0,2}`)
		return telemetry.LogEntry{
			Timestamp: time.Unix(1, 0).UTC(),
			Level:     telemetry.Level(rapid.IntRange(0, 3).Draw(t, "level")),
			Origin: telemetry.Origin{
				Agent: telemetry.AgentID(id.Draw(t, "agent")), Session: telemetry.SessionID(id.Draw(t, "session")), User: telemetry.UserID(id.Draw(t, "user")),
			},
			Node: telemetry.NodeID(id.Draw(t, "node")), Trace: telemetry.TraceID(id.Draw(t, "trace")),
			Message: rapid.StringMatching(`[aAbBcKkÄ/\\ :q"-]{0,12}`).Draw(t, "message"),
			Metadata: json.RawMessage(rapid.SampledFrom([]string{
				"", `{}`, `{"k":"a"}`, `{"k": 7 , "l":1}`, `{"k":{"l":[1,"a",null]}}`, `{"k.l":"Ä","x-y/z":1000.0}`, `{"k":[{"l":5},{"l":"-2"}]}`, `{"k":null}`,
			}).Draw(t, "metadata")),
		}
	})
}

func TestAConditionIsReadAsItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := expr(3).Draw(t, "expr")
		text := e.String()
		if len(text) > logquery.MaxQuery {
			t.Skip("too long to be written") // rare: a drawn text may be long
		}
		again, err := logquery.ParseExpr(text)
		if err != nil {
			if strings.Contains(err.Error(), "at most 4 regexps") {
				t.Skip("more regexps than a query takes")
			}
			t.Fatalf("%s: %v", text, err)
		}
		if again.String() != text {
			t.Fatalf("%s became %s", text, again)
		}
		var f telemetry.LogFilter
		if err := logquery.Parse(text, &f); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for range 8 {
			line := entry().Draw(t, "entry")
			want := e.Match(&line)
			if again.Match(&line) != want || f.Match(&line) != want {
				t.Fatalf("%s: %v as it was made, %v as it was read, %v as a filter %+v: %+v", text, want, again.Match(&line), f.Match(&line), f, line)
			}
			if want {
				checkPromises(t, &f, &line)
			}
		}
	})
}

// checkPromises holds what readers go by against an entry that matches.
func checkPromises(t *rapid.T, f *telemetry.LogFilter, line *telemetry.LogEntry) {
	for _, needle := range f.Needles() {
		if !telemetry.ContainsFold(line.Message, needle) {
			t.Fatalf("%+v: %q is not in %q", f, needle, line.Message)
		}
	}
	if !f.MatchOrigin(&line.Origin, line.Node) {
		t.Fatalf("%+v: the origin of %+v is said not to match", f, line)
	}
	gap := telemetry.Gap{Agent: line.Agent, Session: line.Session, Node: line.Node}
	if !f.MatchGap(&gap) {
		t.Fatalf("%+v: a gap where %+v could be is said not to match", f, line)
	}
}

// What is known of some fields never contradicts what is known of all.
func TestAVerdictHoldsWhateverElseIsKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, line := expr(3).Draw(t, "expr"), entry().Draw(t, "entry")
		known := telemetry.LogFields(rapid.Uint16Range(0, telemetry.AllFields).Draw(t, "known"))
		switch v := e.Eval(&line, known); {
		case v == telemetry.Yes && !e.Match(&line), v == telemetry.No && e.Match(&line):
			t.Fatalf("%s of %b: %d, of all: %v", e, known, v, e.Match(&line))
		case v == telemetry.Maybe && e.Uses()&^known == 0:
			t.Fatalf("%s of %b: maybe", e, known)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`level:>=warn (a OR -"b c") /x\/y/i meta.k.l:>5 has:trace agent:(a b)`, `-(-(a))`, `meta.a:("x" y)`, `"\"`, "env:live", `//`, "NOT NOT a", "a AND b OR c",
	} {
		f.Add(s, `{"k":{"l":7},"a":["x"]}`)
	}
	f.Fuzz(func(t *testing.T, text, metadata string) {
		e, err := logquery.ParseExpr(text)
		if err != nil {
			var at *logquery.Error
			if !errors.As(err, &at) || at.Position < 0 || at.Position > len(text) || at.Detail == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		line := telemetry.LogEntry{Message: text, Metadata: json.RawMessage(metadata), Level: telemetry.Warn}
		e.Match(&line)
		if len(e.String()) > logquery.MaxQuery {
			return
		}
		again, err := logquery.ParseExpr(e.String())
		if err != nil || again.String() != e.String() {
			t.Fatalf("%q is %q, which is %q: %v", text, e, again, err)
		}
		if again.Match(&line) != e.Match(&line) {
			t.Fatalf("%q and %q differ", e, again)
		}
	})
}
