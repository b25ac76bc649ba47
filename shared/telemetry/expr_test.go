package telemetry_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
)

// made panics where a condition of a test cannot be made.
func made(e *telemetry.LogExpr, err error) *telemetry.LogExpr {
	if err != nil {
		panic(err)
	}
	return e
}

func TestMetadataIsFoundByItsPath(t *testing.T) {
	const object = `{ "a" : 1, "b":{"c":"x","d":[1,"two",{"e":3},[4]],"n":null}, "http.status":503, "http":{"url.path":"/v1"},
		"esc\"\u0061ped":true, "big":12345678901234567891, "t":"7.50", "o":{}, "q":"a\"b\u00e4", "" : 5 }`
	if !json.Valid([]byte(object)) {
		t.Fatal("not JSON")
	}
	for _, c := range []struct {
		path    string
		compare telemetry.Comparison
		value   string
		want    bool
	}{
		{"a", telemetry.Equal, "1", true},
		{"a", telemetry.Equal, "1.0", true},
		{"a", telemetry.Equal, "1e0", true},
		{"a", telemetry.Equal, "2", false},
		{"b.c", telemetry.Equal, "x", true},
		{"b.c", telemetry.Equal, "X", false},
		{"b", telemetry.Equal, "x", false},
		{"b.d", telemetry.Equal, "two", true},
		{"b.d", telemetry.Equal, "4", false},
		{"b.d.e", telemetry.Equal, "3", true},
		{"b.n", telemetry.Equal, "null", true},
		{"http.status", telemetry.GreaterOrEqual, "500", true},
		{"http.status", telemetry.Less, "500", false},
		{"http.url.path", telemetry.Equal, "/v1", true},
		{"http.nothing", telemetry.Equal, "/v1", false},
		{"big", telemetry.Equal, "12345678901234567891", true},
		{"big", telemetry.Equal, "12345678901234567892", false},
		{"big", telemetry.Greater, "1e19", true},
		{"t", telemetry.Greater, "7.4", true},
		{"t", telemetry.LessOrEqual, "7.5", true},
		{"t", telemetry.Equal, "7.5", true},
		{"q", telemetry.Equal, `a"bä`, true},
		{"o", telemetry.Equal, "{}", false},
		{"b.c", telemetry.Greater, "0", false},
	} {
		e := made(telemetry.ExprMeta(c.path, c.compare, c.value))
		if got := e.Match(&telemetry.LogEntry{Metadata: json.RawMessage(object)}); got != c.want {
			t.Errorf("%s: %v", e, got)
		}
	}
	for path, want := range map[string]bool{"a": true, "b.n": false, "b.d": true, "o": true, "x": false, "b.d.e": true} {
		if got := made(telemetry.ExprHasMeta(path)).Match(&telemetry.LogEntry{Metadata: json.RawMessage(object)}); got != want {
			t.Errorf("has:meta.%s: %v", path, got)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":{"b":[1,{"c":"x"}]}}`, `{"a.b":"\u0000"}`, `{"a":`, `{"a"`, `[{"a":1}]`, `{"a":[`, `{"a":"\`, `{"a":1}}`, `{"":0}`} {
		f.Add(s)
	}
	paths := []string{"a", "a.b", "a.b.c"}
	f.Fuzz(func(t *testing.T, object string) {
		for _, path := range paths {
			e := made(telemetry.ExprHasMeta(path))
			got := e.Match(&telemetry.LogEntry{Metadata: json.RawMessage(object)})
			var tree map[string]any
			if json.Unmarshal([]byte(object), &tree) != nil {
				continue // whatever it says, it does not panic
			}
			if want := present(tree, path); want && !got {
				t.Errorf("%s is not found in %s", path, object)
			}
		}
	})
}

// present is the plain definition, but for names that occur twice, of which
// encoding/json knows the last alone.
func present(v any, path string) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, func(x any) bool {
			object, is := x.(map[string]any)
			return is && present(object, path)
		})
	case map[string]any:
		if x, found := v[path]; found && x != nil {
			return true
		}
		for i := range len(path) {
			if path[i] == '.' && v[path[:i]] != nil && present(v[path[:i]], path[i+1:]) {
				return true
			}
		}
	}
	return false
}

func TestTheTextsThatARegexpDemands(t *testing.T) {
	for _, c := range []struct {
		pattern string
		fold    bool
		want    []string
	}{
		{"abc", false, []string{"abc"}},
		{"Abc", true, []string{"ABC"}},
		{"ab+c", false, []string{"ab", "c"}},
		{"foo.*bar", false, []string{"foo", "bar"}},
		{"(foo)bar", false, []string{"foobar"}},
		{`^foo\b bar$`, false, []string{"foo bar"}},
		{"foo|bar", false, nil},
		{"foo(bar)?baz", false, []string{"foo", "baz"}},
		{"(ab){2}c", false, []string{"ababc"}},
		{"x*", false, nil},
		{"gr(?i:ö)ße", false, []string{"gr", "ße"}},
		{"(?i)grö", false, []string{"GR"}},
		{`\Qa.b`, false, []string{"a.b"}},
		{`\Qa.b`, true, []string{"A.B"}},
	} {
		got := made(telemetry.ExprRegexp(c.pattern, c.fold)).Needles()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.pattern, got, c.want)
		}
	}
}

// Everything that a regexp finds has the texts that it is said to demand.
func FuzzRegexp(f *testing.F) {
	f.Add("Time.?out (kK)+ſ{2}", "xx TIMEXOUT kKKſs", true)
	f.Add(`a\/b|c`, "A/B", true)
	f.Add(`ẞ+`, "ßß", true)
	f.Add("\ufffd", "\xff", false)
	f.Fuzz(func(t *testing.T, pattern, text string, fold bool) {
		e, err := telemetry.ExprRegexp(pattern, fold)
		if err != nil {
			return
		}
		line := telemetry.LogEntry{Message: text}
		got := e.Match(&line)
		for _, needle := range e.Needles() {
			if got && !telemetry.ContainsFold(text, needle) {
				t.Fatalf("%q finds %q without %q", pattern, text, needle)
			}
		}
		if plain, err := regexp.Compile(pattern); err == nil && !fold && plain.MatchString(text) && !got {
			t.Fatalf("%q is not found by %q", text, pattern)
		}
	})
}

func TestAConditionThatIsNone(t *testing.T) {
	var none *telemetry.LogExpr
	if !none.Match(&telemetry.LogEntry{}) || none.String() != "" || none.Uses() != 0 || none.Needles() != nil {
		t.Error("nil is not met by everything")
	}
	if telemetry.ExprAll() != nil || telemetry.ExprNot(nil) != nil || telemetry.ExprAll(nil, nil) != nil {
		t.Error("nothing was made into something")
	}
	x := made(telemetry.ExprText("x"))
	if telemetry.ExprAny(x, nil) != nil {
		t.Error("or with what is always met is always met")
	}
}
