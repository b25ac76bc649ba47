//go:build !citus

package storetest

// preload is what the server of the tests loads.
const preload = ""
