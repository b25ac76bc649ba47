package dashboard

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

var built = fstest.MapFS{
	".keep":                  {Data: nil},
	"index.html":             {Data: []byte("<!doctype html><title>app</title>")},
	"index.html.gz":          {Data: []byte("gz of index")},
	"theme.js":               {Data: []byte("theme()")},
	"assets/app-1a2b.js":     {Data: []byte("app()")},
	"assets/app-1a2b.js.br":  {Data: []byte("br of app")},
	"assets/app-1a2b.js.gz":  {Data: []byte("gz of app")},
	"assets/app-1a2b.css":    {Data: []byte("a{}")},
	"assets/mono-9f.woff2":   {Data: []byte("font")},
	"assets/unknown-1.blob9": {Data: []byte{0, 1}},
}

func get(t *testing.T, h http.Handler, method, target string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandlerRoutes(t *testing.T) {
	t.Parallel()
	const page, immutable, fresh = "<!doctype html><title>app</title>", "public, max-age=31536000, immutable", "no-cache"
	h := handler(built)
	for _, test := range []struct {
		target, body, contentType, cache string
		status                           int
	}{
		{"/", page, "text/html; charset=utf-8", fresh, 200},
		{"/index.html", page, "text/html; charset=utf-8", fresh, 200},
		{"/logs?level=error", page, "text/html; charset=utf-8", fresh, 200},
		{"/sign-in", page, "text/html; charset=utf-8", fresh, 200},
		{"/deep/er/path.js", page, "text/html; charset=utf-8", fresh, 200},
		{"/theme.js", "theme()", "text/javascript; charset=utf-8", fresh, 200},
		{"/assets/app-1a2b.js", "app()", "text/javascript; charset=utf-8", immutable, 200},
		{"/assets/app-1a2b.css", "a{}", "text/css; charset=utf-8", immutable, 200},
		{"/assets/mono-9f.woff2", "font", "font/woff2", immutable, 200},
		{"/assets/unknown-1.blob9", "\x00\x01", "application/octet-stream", immutable, 200},
		{"/assets/../theme.js", "theme()", "text/javascript; charset=utf-8", fresh, 200},
		{"/assets/gone-0000.js", "404 page not found\n", "text/plain; charset=utf-8", "", 404},
		{"/assets/app-1a2b.js.br", "404 page not found\n", "text/plain; charset=utf-8", "", 404},
		{"/v1/nothing", "404 page not found\n", "text/plain; charset=utf-8", "", 404},
		{"/v1", "404 page not found\n", "text/plain; charset=utf-8", "", 404},
		{"/.keep", page, "text/html; charset=utf-8", fresh, 200},
	} {
		r := get(t, h, http.MethodGet, test.target, nil)
		if got := body(t, r); r.StatusCode != test.status || got != test.body {
			t.Errorf("%s: %d %q, want %d %q", test.target, r.StatusCode, got, test.status, test.body)
		}
		if got := r.Header.Get("Content-Type"); got != test.contentType {
			t.Errorf("%s: Content-Type %q, want %q", test.target, got, test.contentType)
		}
		if got := r.Header.Get("Cache-Control"); got != test.cache {
			t.Errorf("%s: Cache-Control %q, want %q", test.target, got, test.cache)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": Policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s %q, want %q", test.target, name, got, want)
			}
		}
	}
}

func TestHandlerEncodings(t *testing.T) {
	t.Parallel()
	h := handler(built)
	for _, test := range []struct{ accept, target, coding, body string }{
		{"gzip, deflate, br, zstd", "/assets/app-1a2b.js", "br", "br of app"},
		{"gzip", "/assets/app-1a2b.js", "gzip", "gz of app"},
		{"br;q=0, gzip;q=0.5", "/assets/app-1a2b.js", "gzip", "gz of app"},
		{"BR", "/assets/app-1a2b.js", "br", "br of app"},
		{"br;q=nonsense", "/assets/app-1a2b.js", "", "app()"},
		{"*", "/assets/app-1a2b.js", "", "app()"},
		{"", "/assets/app-1a2b.js", "", "app()"},
		{"br, gzip", "/logs", "gzip", "gz of index"},
		{"br, gzip", "/assets/app-1a2b.css", "", "a{}"},
	} {
		r := get(t, h, http.MethodGet, test.target, http.Header{"Accept-Encoding": {test.accept}})
		if got := r.Header.Get("Content-Encoding"); got != test.coding {
			t.Errorf("%s with %q: encoding %q, want %q", test.target, test.accept, got, test.coding)
		}
		if got := body(t, r); got != test.body {
			t.Errorf("%s with %q: %q, want %q", test.target, test.accept, got, test.body)
		}
		if got := r.Header.Get("Vary"); got != "Accept-Encoding" {
			t.Errorf("%s with %q: Vary %q", test.target, test.accept, got)
		}
	}
}

func TestHandlerAnswersNotModified(t *testing.T) {
	t.Parallel()
	h := handler(built)
	first := get(t, h, http.MethodGet, "/", nil)
	again := get(t, h, http.MethodGet, "/logs", http.Header{"If-None-Match": {first.Header.Get("ETag")}})
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("the same page again: %d, want 304", again.StatusCode)
	}
	other := get(t, h, http.MethodGet, "/", http.Header{"If-None-Match": {first.Header.Get("ETag")}, "Accept-Encoding": {"gzip"}})
	if other.StatusCode != http.StatusOK {
		t.Errorf("the page in another encoding: %d, want 200", other.StatusCode)
	}
}

func TestHandlerOnlyReads(t *testing.T) {
	t.Parallel()
	h := handler(built)
	if r := get(t, h, http.MethodPost, "/", nil); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", r.StatusCode, r.Header.Get("Allow"))
	}
	if r := get(t, h, http.MethodHead, "/", nil); r.StatusCode != http.StatusOK || body(t, r) != "" {
		t.Errorf("HEAD: %d with a body", r.StatusCode)
	}
}

func TestHandlerWithoutBuild(t *testing.T) {
	t.Parallel()
	h := handler(fstest.MapFS{".keep": {}})
	r := get(t, h, http.MethodGet, "/", nil)
	if got := body(t, r); r.StatusCode != http.StatusNotFound || !strings.Contains(got, "make dashboard") {
		t.Errorf("not built: %d %q", r.StatusCode, got)
	}
	if got := r.Header.Get("Content-Security-Policy"); got != Policy {
		t.Errorf("not built: policy %q", got)
	}
}

// TestHandlerOfThisBinary holds in both states of a work tree: built and not.
func TestHandlerOfThisBinary(t *testing.T) {
	t.Parallel()
	_, built := Files()
	r := get(t, Handler(), http.MethodGet, "/", nil)
	want := http.StatusNotFound
	if built {
		want = http.StatusOK
	}
	if r.StatusCode != want {
		t.Errorf("built %v: %d, want %d", built, r.StatusCode, want)
	}
}
