// Package test holds the end-to-end tests: both daemons as real processes, a
// real PostgreSQL, a real Docker engine and a real Chromium. Tests whose names
// begin with TestFault kill, cut and throttle; `make faults` runs them alone.
package test
