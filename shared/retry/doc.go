// Package retry says how long to wait before trying again. It promises:
//
//   - a pause is never below Min, so that nothing spins, and never above Max;
//   - pauses grow twofold and are drawn at random up to that ("full jitter"),
//     so that a thousand nodes that lost the same aggregator do not come back
//     in the same second;
//   - a wait ends with its context.
//
// It decides nothing else: whether an error is worth another attempt is the
// caller's to say, and nothing here gives up.
package retry
