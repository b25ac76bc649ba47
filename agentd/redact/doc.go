// Package redact takes secrets out of text before it reaches a disk or a wire.
//
//	text ─▶ prefilter: one pass over pairs of bytes ── nothing ──▶ the same text, nothing copied
//	             │ a keyword such as "ghp_", "password" or "://"
//	             ▼
//	        matcher of that keyword: what precedes and follows, bounded ─▶ spans
//	             │
//	             ▼
//	        spans that overlap are joined, each becomes [redacted:rule-id]
//
// What it promises:
//
//   - Only ids of rules and counts leave it, never a value: not in a log, not in
//     a metric, not in an error.
//   - Its work is linear in the length of a text, whatever the text is. Matchers
//     walk over bytes by hand; what a matcher has walked over in vain is
//     remembered, so that a line of nothing but prefixes costs no more than a
//     few passes. Rules of the operator's own are RE2 expressions.
//   - A text without secrets is returned as it is: no copy, no allocation.
//   - Redacting what was redacted changes nothing. (For an operator's own rules
//     this holds as long as they do not match the marker's surroundings.)
//   - Spans begin and end at whole characters: valid UTF-8 stays valid.
//
// What it cannot do: find a secret that has no form (a password alone on a
// line), one that is encoded (base64 of a key), or one that two lines share.
// The one exception is a private key printed over several lines, for which
// RedactNext remembers a stream's state.
//
// A Redactor is never changed and may be used by any number of goroutines.
package redact
