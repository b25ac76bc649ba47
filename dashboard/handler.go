package dashboard

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

const indexName = "index.html"

// Policy is the content security policy of every page and asset. Log text is
// hostile, so nothing but this origin's own files can run, load or be posted
// to, and script cannot write markup at all (trusted types).
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"

const notBuilt = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Theazo</title></head>
<body>
<h1>The dashboard is not in this binary</h1>
<p>The API works. To add the dashboard, run <code>make dashboard</code> (or <code>npm ci &amp;&amp; npm run build</code>
in <code>dashboard/</code>), build the aggregator again and restart it.</p>
</body>
</html>
`

// contentTypes are fixed here because mime.TypeByExtension reads the machine's
// own tables, which differ.
var contentTypes = map[string]string{
	".css":   "text/css; charset=utf-8",
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".json":  "application/json",
	".svg":   "image/svg+xml",
	".png":   "image/png",
	".woff2": "font/woff2",
}

// asset is one file of the app with what every answer of it needs.
type asset struct {
	plain       []byte
	encoded     []encoded // best first
	contentType string
	etag        string
}

type encoded struct {
	name  string // of the content coding
	bytes []byte
}

// Handler serves the app that is in this binary, or says that there is none.
func Handler() http.Handler {
	files, built := Files()
	if !built {
		return page(http.HandlerFunc(serveNotBuilt))
	}
	return handler(files)
}

// handler serves the app of these files; without an index.html there is none.
func handler(files fs.FS) http.Handler {
	assets, err := load(files)
	index, ok := assets[indexName]
	if err != nil || !ok {
		return page(http.HandlerFunc(serveNotBuilt))
	}
	return page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		file, found := assets[name]
		switch {
		case found && strings.HasPrefix(name, "assets/"):
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			file.serve(w, r)
		case found:
			w.Header().Set("Cache-Control", "no-cache")
			file.serve(w, r)
		case name == "v1" || strings.HasPrefix(name, "v1/") || strings.HasPrefix(name, "assets/"):
			http.NotFound(w, r)
		default:
			w.Header().Set("Cache-Control", "no-cache")
			index.serve(w, r)
		}
	}))
}

func serveNotBuilt(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", contentTypes[".html"])
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write([]byte(notBuilt)) // the client is gone: nothing to do
}

// page adds the headers of every answer and refuses all but reading.
func page(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", Policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// load reads all files once: the app is small, and serving it then needs
// neither the file system nor locks.
func load(files fs.FS) (map[string]*asset, error) {
	assets := make(map[string]*asset)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		extension := path.Ext(name)
		if extension == ".br" || extension == ".gz" || strings.HasPrefix(path.Base(name), ".") {
			return nil
		}
		plain, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		sum := sha256.Sum256(plain)
		a := &asset{plain: plain, contentType: contentTypes[extension], etag: hex.EncodeToString(sum[:12])}
		if a.contentType == "" {
			a.contentType = mime.TypeByExtension(extension)
		}
		if a.contentType == "" {
			a.contentType = "application/octet-stream"
		}
		for _, coding := range []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}} {
			if b, err := fs.ReadFile(files, name+coding.suffix); err == nil {
				a.encoded = append(a.encoded, encoded{coding.name, b})
			}
		}
		assets[name] = a
		return nil
	})
	return assets, err
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Add("Vary", "Accept-Encoding")
	body, tag := a.plain, a.etag
	for _, e := range a.encoded {
		if accepts(r.Header.Get("Accept-Encoding"), e.name) {
			h.Set("Content-Encoding", e.name)
			body, tag = e.bytes, a.etag+"-"+e.name
			break
		}
	}
	h.Set("ETag", strconv.Quote(tag))
	// The name is empty and the time zero: the type and the ETag are set above.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// accepts reports whether an Accept-Encoding header names the coding with a
// weight above zero. A bare "*" is not taken for more than the plain file.
func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, parameters, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		weight, ok := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q=")
		if !ok {
			return true
		}
		q, err := strconv.ParseFloat(weight, 64)
		return err == nil && q > 0
	}
	return false
}
