// Package dockertest gives tests a real Docker engine, and images without a
// registry.
//
// The engine is the machine's own ($DOCKER_HOST, else /var/run/docker.sock)
// where one answers and its log files can be read, and otherwise a private one
// that the test binary starts once, as root, and stops at its end with all of
// its containers and mounts. Where neither is possible, tests are skipped with
// the reason. Main must wrap the tests of a package that uses NewEngine.
package dockertest
