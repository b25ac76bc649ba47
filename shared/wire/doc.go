// Package wire is the contract between agentd and the aggregator: the protobuf
// package theazo.agent.v1, its generated code, and the one converter between
// it and the plain structs of shared/telemetry and shared/frame.
//
// What is lost at this boundary: a record's organisation and node (the
// certificate says them), its sequence (the frame header says where it
// starts), and times below a microsecond.
package wire
