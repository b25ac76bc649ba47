package api

import "github.com/theazo/observability/shared/telemetry"

// RouteLine is a line of the route table for tests.
type RouteLine struct {
	Method, Pattern string
	Need            telemetry.Permission
	Params          []string
	Stream          bool
}

// Routes is the route table.
func Routes() []RouteLine {
	var all []RouteLine
	for _, r := range routes() {
		all = append(all, RouteLine{r.method, r.pattern, r.need, r.params, r.stream})
	}
	return all
}

// What the fuzz tests look into.
var (
	ParsePageCursor = parsePageCursor
	ParseListCursor = parseListCursor
	ListCursor      = listCursor
	Redact          = redact
)
