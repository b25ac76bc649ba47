package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

// images made so far, by engine and program.
var images sync.Map

// Image builds a Go program of this module without cgo and makes it the
// entrypoint of an image that holds nothing else. It returns the image's name.
func (e *Engine) Image(t testing.TB, program string) string {
	t.Helper()
	name := "theazo-test/" + filepath.Base(program)
	once, _ := images.LoadOrStore(e.host+" "+name, new(sync.Once))
	once.(*sync.Once).Do(func() { e.makeImage(t, program, name) })
	return name
}

func (e *Engine) makeImage(t testing.TB, program, name string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", file, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", program, err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	entry := filepath.Base(program)
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	if err := w.WriteHeader(&tar.Header{Name: entry, Mode: 0o755, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := e.c.ImageImport(t.Context(), client.ImageImportSource{Source: &image, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: []string{fmt.Sprintf("ENTRYPOINT [%q]", "/"+entry)}})
	if err != nil {
		t.Fatalf("import %s: %v", name, err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatalf("import %s: %v", name, err)
	}
}

// RunOptions say how to run a container.
type RunOptions struct {
	Image      string
	Cmd        []string
	Labels     map[string]string
	Env        []string
	TTY        bool
	LogDriver  string // empty: the engine's default
	LogOpts    map[string]string
	AutoRemove bool
	Memory     int64 // bytes; 0: no limit
}

// Create makes a container without starting it, and removes it when the test
// ends. It returns its full id.
func (e *Engine) Create(t testing.TB, o RunOptions) string {
	t.Helper()
	id, err := e.create(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	e.removeAtEnd(t, id)
	return id
}

func (e *Engine) create(ctx context.Context, o *RunOptions) (id string, err error) {
	created, err := e.c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{
			Image: o.Image, Cmd: o.Cmd, Labels: o.Labels, Env: o.Env, Tty: o.TTY, NetworkDisabled: true,
		},
		HostConfig: &container.HostConfig{
			NetworkMode: "none", AutoRemove: o.AutoRemove,
			LogConfig: container.LogConfig{Type: o.LogDriver, Config: o.LogOpts},
			Resources: container.Resources{Memory: o.Memory},
		},
	})
	if err != nil {
		return "", fmt.Errorf("create a container of %s: %w", o.Image, err)
	}
	return created.ID, nil
}

func (e *Engine) removeAtEnd(t testing.TB, id string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		// One that removes itself may be gone, and a stopped engine's go with it.
		_, _ = e.c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	})
}

// RunMany creates and starts n containers, so many at a time, and returns their
// full ids.
func (e *Engine) RunMany(t testing.TB, n, parallel int, o RunOptions) []string {
	t.Helper()
	ids := make([]string, n)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(parallel)
	for i := range ids {
		group.Go(func() (err error) {
			if ids[i], err = e.create(ctx, &o); err == nil {
				_, err = e.c.ContainerStart(ctx, ids[i], client.ContainerStartOptions{})
			}
			return err
		})
	}
	err := group.Wait()
	for _, id := range ids {
		if id != "" {
			e.removeAtEnd(t, id)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// StartContainer starts a container.
func (e *Engine) StartContainer(t testing.TB, id string) {
	t.Helper()
	if _, err := e.c.ContainerStart(t.Context(), id, client.ContainerStartOptions{}); err != nil {
		t.Fatalf("start container %.12s: %v", id, err)
	}
}

// Run creates and starts a container and returns its full id.
func (e *Engine) Run(t testing.TB, o RunOptions) string {
	t.Helper()
	id := e.Create(t, o)
	e.StartContainer(t, id)
	return id
}

// AwaitExit waits until a container is not running any more; one that removes
// itself may be gone.
func (e *Engine) AwaitExit(t testing.TB, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	// Polled: the engine's own wait has been seen not to return.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := e.c.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil && ctx.Err() == nil || err == nil && r.Container.State != nil && !r.Container.State.Running {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("container %.12s did not exit", id)
		case <-tick.C:
		}
	}
}

// Remove removes a container, running or not.
func (e *Engine) Remove(t testing.TB, id string) {
	t.Helper()
	if _, err := e.c.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatalf("remove container %.12s: %v", id, err)
	}
}
