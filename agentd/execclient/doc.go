// Package execclient is agentd-exec: it runs one command and sends a copy of
// what the command prints to the node's local endpoint. It is for commands
// whose output no container log holds, such as those of docker exec.
//
//	command ──pipes or pty──▶ copy ──▶ our own stdout and stderr, as fast as they are read
//	                            └────▶ recorder (1 MiB) ──▶ sender ──▶ agentd
//
// # Promises
//
//   - Bytes, signals, window sizes and the exit code pass untouched. Where
//     stdout is a terminal the command gets a terminal of its own, else pipes;
//     its stdin is ours.
//   - The endpoint never blocks the command. What does not fit into the
//     recorder is dropped and counted, and agentd tells of it as a gap; when the
//     command has ended, what is left is sent for as long as that makes progress
//     (half a second without any, 10 seconds in all).
//   - Without an endpoint, or with one that this program does not speak, it
//     becomes the command (execve): nothing is between.
//   - It prints nothing of its own, but for --help, --version, and the reason
//     why a command cannot be started.
//
// It imports the standard library alone, without net/http, and stays below
// 3 MiB: it is put into other people's images.
package execclient
