// Command agentd-exec runs one command and sends a copy of its output to the
// node's local endpoint. See agentd-exec --help and docs/exec.md.
package main

import (
	"os"

	"github.com/theazo/observability/agentd/execclient"
)

// version is set by the Makefile.
var version = "dev"

func main() { os.Exit(execclient.Main(os.Args[1:], version)) }
