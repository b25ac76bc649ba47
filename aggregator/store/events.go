package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// maxEventsBytes bounds the last words and contents of one page: events with
// more of them than that come on the next.
const maxEventsBytes = 4 << 20

// Events lists what happened to an agent, newest first, and says whether more
// follow. Its listing goes by an event's time and place.
func (s *Store) Events(ctx context.Context, scope telemetry.Scope, agent telemetry.AgentID, l telemetry.Listing) ([]telemetry.StoredEvent, bool, error) {
	return shown(l, func(l telemetry.Listing) ([]telemetry.StoredEvent, bool, *exclusions, error) {
		after, id := maxTime, "~" // after every place
		if l.After != nil {
			after, id = clampTime(l.After.CreatedAt), l.After.ID
		}
		found := 0
		scan := func(row pgx.CollectableRow) (telemetry.StoredEvent, error) { return scanEvent(row, &found) }
		list, x, err := collectShown(ctx, s, "list events", scope, scan, selectEvents, string(agent), after, id, max(0, l.Limit)+1, maxEventsBytes)
		list, _ = cut(list, l.Limit)
		return list, found > len(list), x, err
	}, func(x *exclusions, e *telemetry.StoredEvent) bool {
		return x.erased(&e.Origin, e.Timestamp)
	}, func(e *telemetry.StoredEvent) telemetry.ListingKey {
		return telemetry.ListingKey{CreatedAt: e.Timestamp, ID: e.Place}
	})
}

// An event's place is its sequence, node and epoch: what tells it from another
// of the same time. "C" orders bytes, whatever the database's own order is.
// found counts those that a page of any size would have; large ones before a
// row, which are counted without being read, end the page.
const selectEvents = `select place, type, at, agent, session, "user", provider, sandbox, node, exit_code, reason, inferred, attributes, last_words, content, found
from (select *, count(*) over () as found, sum(bytes) over (order by at desc, place desc) - bytes as before
  from (select *, coalesce(octet_length(last_words), 0) + coalesce(octet_length(content), 0) as bytes
    from (select *, (lpad(to_hex(seq), 11, '0') || node || to_hex(epoch)) collate "C" as place from event
      where org = $1 and env = $2 and agent = $3 and at <= $4) e
    where (at, place) < ($4, $5 collate "C") order by at desc, place desc limit $6) page) sized
where before < $7 order by at desc, place desc`

func scanEvent(row pgx.CollectableRow, found *int) (telemetry.StoredEvent, error) {
	var e telemetry.StoredEvent
	var provider int16
	var code *int32
	var at time.Time
	var attributes []byte
	var lastWords, content *string
	err := row.Scan(&e.Place, &e.Type, &at, &e.Agent, &e.Session, &e.User, &provider, &e.Sandbox, &e.Node, &code, &e.Reason, &e.Inferred, &attributes, &lastWords, &content, found)
	if err != nil {
		return e, err
	}
	e.Timestamp, e.Provider, e.Source = at.UTC(), telemetry.Provider(provider), telemetry.SourceProvider //nolint:gosec // stored from one
	if code != nil {
		n := int(*code)
		e.ExitCode = &n
	}
	if err := json.Unmarshal(attributes, &e.Attributes); err != nil {
		return e, fmt.Errorf("attributes of an event: %w", err)
	}
	if lastWords != nil {
		e.LastWords = &telemetry.LastWords{}
		if err := json.Unmarshal([]byte(*lastWords), e.LastWords); err != nil {
			return e, fmt.Errorf("last words of an event: %w", err)
		}
	}
	if content != nil {
		e.Content = json.RawMessage(*content)
	}
	return e, nil
}
