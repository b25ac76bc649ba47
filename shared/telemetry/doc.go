// Package telemetry is the language of the product: the plain structs that
// every other package speaks in. A record read on a node, a row in the store
// and the JSON of the API are the same struct; only the wire has a second,
// generated shape, with one converter in shared/wire.
//
// The package imports nothing but the standard library, holds no behaviour
// beyond parsing and printing its own values, and promises:
//
//   - every time is a time.Time in UTC, with microsecond precision once it
//     left intake (PostgreSQL's precision, so nothing is rounded later);
//   - every enumeration is a small integer inside and the documented lower
//     case word in JSON, so a wrong word is an error at the door and not later;
//   - ids are named string types, so an agent's id is never taken for a session's.
package telemetry
