package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// engine is all that this package asks of a Docker engine. The moby client is
// behind it in this one file, because its options still change between
// versions.
type engine interface {
	// Ping agrees on an API version.
	Ping(ctx context.Context) error
	Info(ctx context.Context) (engineInfo, error)
	// Events follows the events of containers, and of their networks, from a time
	// on until ctx or the connection ends. The channel of errors gives one error
	// then.
	Events(ctx context.Context, since time.Time) (<-chan engineEvent, <-chan error)
	List(ctx context.Context) ([]listed, error)
	Inspect(ctx context.Context, id string) (*details, error)
	// Logs follows a container's log, or reads what is there of it.
	Logs(ctx context.Context, id string, since time.Time, follow bool) (io.ReadCloser, error)
	// Stats measures what a running container has used.
	Stats(ctx context.Context, id string) (usage, error)
	// Tail reads the last lines of a log between two times.
	Tail(ctx context.Context, id string, since, until time.Time, lines int) (io.ReadCloser, error)
	Close() error
}

// engineInfo is what the engine says of itself.
type engineInfo struct {
	Version     string
	API         string // version of the API that both speak
	Endpoint    string
	Root        string // DockerRootDir
	Local       bool   // reached by a socket of this machine: its files are ours to read
	LogDriver   string // of new containers
	LiveRestore bool
}

// engineEvent is one event of a container.
type engineEvent struct {
	At         time.Time
	Action     string
	ID         string
	Attributes map[string]string
}

// listed is a container as the engine's list has it.
type listed struct {
	ID    string
	State string
}

// details is what inspect says of a container, as far as anybody here asks.
// Its environment is not read: it holds secrets.
type details struct {
	ID, Name, Image string
	Labels          map[string]string
	Driver          string
	LogOpts         map[string]string
	LogPath         string
	TTY             bool
	Running         bool
	Paused          bool
	Created         time.Time
	Started         time.Time // zero: never
	Finished        time.Time // zero: never
	ExitCode        int
	OOMKilled       bool
	// Digest names the image's exact content.
	Digest string
	// Of a running container, as this host sees it.
	PID int // of its first process
	// ForeignNetwork says that its network is the host's or another container's.
	ForeignNetwork bool
	Addresses      []netip.Addr
	// MemoryLimit in bytes; 0: none.
	MemoryLimit int64
	// Probe is the command of the health check, as its exec events tell it; empty
	// where there is none.
	Probe string
}

// errGone says that the engine does not know the container (any more).
var errGone = errdefs.ErrNotFound

// mobyEngine speaks to the engine with the client that the last Ping made.
type mobyEngine struct {
	opts    []client.Opt
	current atomic.Pointer[client.Client]
}

func newMobyEngine(endpoint string) (engine, error) {
	opts := []client.Opt{client.FromEnv}
	if endpoint != "" {
		opts = append(opts, client.WithHost(endpoint))
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("docker endpoint %q: %w", endpoint, err)
	}
	m := &mobyEngine{opts: opts}
	m.current.Store(c)
	return m, nil
}

func (m *mobyEngine) client() *client.Client { return m.current.Load() }

func (m *mobyEngine) Close() error { return m.client().Close() }

// Ping asks whether the engine is there, and which version of the API it
// speaks: it may have been replaced. A client must not negotiate again while
// others use it (it writes its version without a lock), and it never goes up
// again, so each answer gets a client of its own. What still runs on the old one
// goes on.
func (m *mobyEngine) Ping(ctx context.Context) error {
	c, err := client.New(m.opts...)
	if err != nil {
		return err
	}
	if _, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return errors.Join(err, c.Close())
	}
	return m.current.Swap(c).Close()
}

func (m *mobyEngine) Info(ctx context.Context) (engineInfo, error) {
	r, err := m.client().Info(ctx, client.InfoOptions{})
	if err != nil {
		return engineInfo{}, err
	}
	return engineInfo{
		Version: r.Info.ServerVersion, API: m.client().ClientVersion(), Endpoint: m.client().DaemonHost(),
		Root: r.Info.DockerRootDir, Local: strings.HasPrefix(m.client().DaemonHost(), "unix://"),
		LogDriver: r.Info.LoggingDriver, LiveRestore: r.Info.LiveRestoreEnabled,
	}, nil
}

func (m *mobyEngine) Events(ctx context.Context, since time.Time) (<-chan engineEvent, <-chan error) {
	opts := client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType), string(events.NetworkEventType))}
	if !since.IsZero() {
		opts.Since = apiTime(since)
	}
	from := m.client().Events(ctx, opts)
	to, errs := make(chan engineEvent), make(chan error, 1)
	go func() {
		defer close(to)
		for {
			select {
			case e := <-from.Messages:
				event, ok := ofContainer(&e)
				if !ok {
					continue
				}
				select {
				case to <- event:
				case <-ctx.Done():
				}
			case err := <-from.Err:
				errs <- err
				return
			}
		}
	}()
	return to, errs
}

// Actions of our own for what the engine tells of a network.
const (
	actionConnect    = "network connect"
	actionDisconnect = "network disconnect"
)

// ofContainer reads an event that is about a container.
func ofContainer(e *events.Message) (engineEvent, bool) {
	event := engineEvent{At: unixNano(e.TimeNano), Action: string(e.Action), ID: e.Actor.ID, Attributes: e.Actor.Attributes}
	if e.Type == events.ContainerEventType {
		return event, true
	}
	if e.Type != events.NetworkEventType || e.Action != events.ActionConnect && e.Action != events.ActionDisconnect {
		return engineEvent{}, false
	}
	event.Action, event.ID, event.Attributes = actionConnect, e.Actor.Attributes["container"], nil
	if e.Action == events.ActionDisconnect {
		event.Action = actionDisconnect
	}
	return event, true
}

func (m *mobyEngine) List(ctx context.Context) ([]listed, error) {
	r, err := m.client().ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	all := make([]listed, 0, len(r.Items))
	for i := range r.Items {
		all = append(all, listed{ID: r.Items[i].ID, State: string(r.Items[i].State)})
	}
	return all, nil
}

func (m *mobyEngine) Inspect(ctx context.Context, id string) (*details, error) {
	r, err := m.client().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, err
	}
	c := &r.Container
	if c.Config == nil || c.State == nil || c.HostConfig == nil {
		return nil, fmt.Errorf("the engine's answer about container %.12s is not complete", id)
	}
	d := &details{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Image: c.Config.Image, Labels: c.Config.Labels,
		Driver: c.HostConfig.LogConfig.Type, LogOpts: c.HostConfig.LogConfig.Config, LogPath: c.LogPath, TTY: c.Config.Tty,
		Running: c.State.Running, Paused: c.State.Paused,
		Created: engineTime(c.Created), Started: engineTime(c.State.StartedAt), Finished: engineTime(c.State.FinishedAt),
		ExitCode: c.State.ExitCode, OOMKilled: c.State.OOMKilled,
		Digest: c.Image, PID: c.State.Pid, MemoryLimit: c.HostConfig.Memory, Probe: probeOf(c.Config),
	}
	d.ForeignNetwork = c.HostConfig.NetworkMode.IsHost() || c.HostConfig.NetworkMode.IsContainer()
	if c.ImageManifestDescriptor != nil {
		d.Digest = c.ImageManifestDescriptor.Digest.String()
	}
	if c.State.Running && c.NetworkSettings != nil && !d.ForeignNetwork {
		for _, n := range c.NetworkSettings.Networks {
			for _, a := range []netip.Addr{n.IPAddress, n.GlobalIPv6Address} {
				if a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() {
					d.Addresses = append(d.Addresses, a.Unmap().WithZone(""))
				}
			}
		}
	}
	return d, nil
}

// probeOf returns the command of a health check in the form of exec events.
func probeOf(c *container.Config) string {
	if c.Healthcheck == nil || len(c.Healthcheck.Test) < 2 {
		return ""
	}
	command := c.Healthcheck.Test[1:]
	if c.Healthcheck.Test[0] == "CMD-SHELL" {
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = append(slices.Clone(shell), command[0])
	}
	return strings.TrimSpace(strings.Join(command, " "))
}

func (m *mobyEngine) Logs(ctx context.Context, id string, since time.Time, follow bool) (io.ReadCloser, error) {
	opts := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: follow}
	if !since.IsZero() {
		opts.Since = apiTime(since)
	}
	return m.client().ContainerLogs(ctx, id, opts)
}

func (m *mobyEngine) Stats(ctx context.Context, id string) (usage, error) {
	r, err := m.client().ContainerStats(ctx, id, client.ContainerStatsOptions{})
	if err != nil {
		return noUsage(time.Time{}), err
	}
	defer r.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(io.LimitReader(r.Body, maxStats)).Decode(&s); err != nil {
		return noUsage(time.Time{}), fmt.Errorf("read what container %.12s uses: %w", id, err)
	}
	return usageOf(&s), nil
}

// maxStats bounds one answer about a container's usage.
const maxStats = 1 << 20

// usageOf reads the engine's own measure.
func usageOf(s *container.StatsResponse) usage {
	u := noUsage(s.Read.UTC())
	if s.CPUStats.CPUUsage.TotalUsage == 0 && s.MemoryStats.Usage == 0 {
		return u // it does not run
	}
	u.cpu, u.throttled = time.Duration(whole(s.CPUStats.CPUUsage.TotalUsage)), time.Duration(whole(s.CPUStats.ThrottlingData.ThrottledTime))
	u.memory, u.pids = whole(s.MemoryStats.Usage), whole(s.PidsStats.Current)
	for _, name := range []string{"inactive_file", "total_inactive_file"} { // of version 2 and 1
		u.uncached(whole(s.MemoryStats.Stats[name]))
	}
	if s.MemoryStats.MaxUsage > 0 {
		u.peak = whole(s.MemoryStats.MaxUsage)
	}
	u.read, u.written = 0, 0
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			u.read += whole(e.Value)
		case "write":
			u.written += whole(e.Value)
		}
	}
	if len(s.Networks) > 0 {
		u.rx, u.tx = 0, 0
	}
	for name := range s.Networks {
		u.rx, u.tx = u.rx+whole(s.Networks[name].RxBytes), u.tx+whole(s.Networks[name].TxBytes)
	}
	return u
}

// whole keeps what another machine says within int64.
func whole(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

func (m *mobyEngine) Tail(ctx context.Context, id string, since, until time.Time, lines int) (io.ReadCloser, error) {
	opts := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Tail: strconv.Itoa(lines)}
	if !since.IsZero() {
		opts.Since = apiTime(since)
	}
	if !until.IsZero() {
		opts.Until = apiTime(until)
	}
	return m.client().ContainerLogs(ctx, id, opts)
}

// apiTime writes a time as the API's parameters take it: to the nanosecond.
func apiTime(t time.Time) string {
	nanos := strconv.Itoa(1_000_000_000 + t.Nanosecond())
	return strconv.FormatInt(t.Unix(), 10) + "." + nanos[1:]
}

// engineTime reads a time of inspect. The engine writes the year 1 for never.
func engineTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t.UTC()
}

func unixNano(n int64) time.Time { return time.Unix(0, n).UTC() }
