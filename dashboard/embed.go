package dashboard

import (
	"embed"
	"io/fs"
)

// dist always has .keep, so that this compiles in a clone where the dashboard
// was never built.
//
//go:embed all:dist
var dist embed.FS

// Files returns the built app and whether there is one: false when the binary
// was built before `npm run build`.
func Files() (fs.FS, bool) {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, false
	}
	_, err = fs.Stat(files, indexName)
	return files, err == nil
}
