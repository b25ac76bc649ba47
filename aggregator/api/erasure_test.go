package api_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

func (s *fakeStore) Erase(_ context.Context, scope telemetry.Scope, req telemetry.ErasureRequest) (telemetry.Erasure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Until.IsZero() {
		req.Until = base
	}
	e := telemetry.Erasure{
		ID: "era_" + string(rune('a'+len(s.erasures[scope]))), Env: scope.Env, Kind: req.Kind, Subject: req.Subject, Until: req.Until,
		Reason: req.Reason, RequestedBy: req.By, RequestedAt: base,
	}
	s.erasures[scope] = append(s.erasures[scope], e)
	return e, s.err
}

func (s *fakeStore) Erasures(_ context.Context, scope telemetry.Scope, before string, limit int) ([]telemetry.Erasure, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.erasures[scope])
	slices.Reverse(list)
	if i := slices.IndexFunc(list, func(e telemetry.Erasure) bool { return e.ID == before }); i >= 0 {
		list = list[i+1:]
	}
	return list[:min(limit, len(list))], len(list) > limit, s.err
}

func (s *fakeStore) Erasure(_ context.Context, scope telemetry.Scope, id string) (telemetry.Erasure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.erasures[scope] {
		if e.ID == id {
			return e, s.err
		}
	}
	return telemetry.Erasure{}, telemetry.Failf(telemetry.NotFound, "no erasure")
}

func (s *site) eraseCall(t *testing.T, body string) answer {
	t.Helper()
	return s.do(t, "POST", "/v1/erasures", body, "Authorization", "Bearer "+s.key, "Content-Type", "application/json")
}

func TestErasuresAreAskedForAndFollowed(t *testing.T) {
	s := newSite(t, nil)
	a := s.eraseCall(t, `{"userId":"user 1","until":"2026-09-01T10:00:00Z","reason":"ticket 7"}`)
	if a.StatusCode != 202 || a.Header.Get("Location") != "/v1/erasures/era_a" {
		t.Fatalf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	for _, body := range []string{`{"sessionId":"ses_1"}`, `{"agentId":"agt_1"}`} {
		if a := s.eraseCall(t, body); a.StatusCode != 202 {
			t.Fatalf("%s: %d %s", body, a.StatusCode, a.body)
		}
	}
	s.mu.Lock()
	first := &s.erasures[ours][0]
	if first.Kind != telemetry.EraseUser || first.Subject != "user 1" || first.Reason != "ticket 7" || !strings.HasPrefix(first.RequestedBy, "key_") || !first.Until.Equal(time.Date(2026, 9, 1, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", first)
	}
	first.Status, first.Subject, first.SubjectHash, first.StartedAt = telemetry.ErasureDone, "", "abcd", base
	first.Counts = telemetry.ErasureCounts{Lines: 20, Chunks: 2, Events: 3}
	first.Proof = &telemetry.ErasureProof{DoneAt: base.Add(time.Hour), Lines: 4096, Digest: "00ff", AuditSeq: 9}
	s.mu.Unlock()
	golden(t, "testdata/erasure.http", strings.ReplaceAll(requestID.ReplaceAllString(dump(t, "GET", "/v1/erasures/era_a", s.get(t, "/v1/erasures/era_a")), "req_x"), strings.Split(s.key, "_")[2], "keyid"))
	var seen []string
	for path := "/v1/erasures?limit=2"; path != ""; {
		var page struct {
			Data    []struct{ ID, Kind, Subject, Status string }
			HasMore bool
			Cursor  *string
		}
		if err := json.Unmarshal([]byte(s.get(t, path).body), &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Data {
			seen = append(seen, e.ID+" "+e.Kind+" "+e.Subject+" "+e.Status)
		}
		if path = ""; page.HasMore {
			path = "/v1/erasures?limit=2&cursor=" + *page.Cursor
		}
	}
	if want := []string{"era_c agent agt_1 requested", "era_b session ses_1 requested", "era_a user  done"}; !slices.Equal(seen, want) {
		t.Errorf("%q", seen)
	}
	if a := s.get(t, "/v1/erasures/era_z"); a.StatusCode != 404 {
		t.Errorf("%d", a.StatusCode)
	}
}

func TestErasuresRefuseWhatIsNotOneSubject(t *testing.T) {
	s := newSite(t, nil)
	for body, field := range map[string]string{
		`{}`: "userId", `{"userId":"a","agentId":"agt_1"}`: "userId", `{"userId":""}`: "userId", `{"sessionId":"a b"}`: "sessionId", `{"agentId":"/"}`: "agentId",
		`{"userId":"a","until":"soon"}`: "until", `{"userId":"a","everything":true}`: "everything", `{"userId":7}`: "userId",
		`{"userId":"a","reason":"` + strings.Repeat("r", 501) + `"}`: "reason",
	} {
		a := s.eraseCall(t, body)
		if _, _, fields := envelope(t, a); a.StatusCode != 422 || !slices.Equal(fields, []string{field}) {
			t.Errorf("%s: %d %s", body, a.StatusCode, a.body)
		}
	}
	if len(s.erasures[ours]) != 0 {
		t.Errorf("%+v", s.erasures)
	}
}

// Erasing cannot be undone: a key has the permission only where it was given.
func TestErasingTakesAPermissionOfItsOwn(t *testing.T) {
	s := newSite(t, nil)
	plain := s.fakeStore.key(ours, telemetry.AllPermissions...)
	for _, c := range []struct{ method, path string }{{"POST", "/v1/erasures"}, {"GET", "/v1/erasures"}, {"GET", "/v1/erasures/era_a"}} {
		a := s.do(t, c.method, c.path, `{"userId":"a"}`, "Authorization", "Bearer "+plain, "Content-Type", "application/json")
		if _, message, _ := envelope(t, a); a.StatusCode != 403 || !strings.Contains(message, "data:erase") {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
	}
}
