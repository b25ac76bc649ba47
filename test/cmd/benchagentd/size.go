package main

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// What symbols of no module are called in the table.
const (
	standard = "Go's standard library and runtime"
	tables   = "tables of the runtime (functions, lines, types)"
)

// size prints how large agentd is and what each module brings.
func (b *bench) size(ctx context.Context) error {
	info, err := os.Stat(b.agentd)
	if err != nil {
		return err
	}
	const program = "github.com/theazo/observability/agentd/cmd/agentd"
	file := filepath.Join(b.dir, "agentd-with-symbols")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", file, program) //nolint:gosec // our own program
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build with symbols: %w: %s", err, out)
	}
	modules, err := modulesOf(ctx, program)
	if err != nil {
		return err
	}
	weight, packages, err := weigh(file, modules)
	if err != nil {
		return err
	}
	b.notef("agentd, stripped: %.1f MiB; %d modules, %d packages with symbols", megabytes(info.Size()), len(weight)-2, packages)
	names := slices.SortedFunc(maps.Keys(weight), func(x, y string) int { return cmp.Compare(weight[y], weight[x]) })
	for _, name := range names {
		b.notef("  %8.0f KiB  %s", float64(weight[name])/1024, name)
	}
	return b.sections()
}

// sections notes how the stripped file is laid out.
func (b *bench) sections() (err error) {
	f, err := elf.Open(b.agentd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var list []string
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && s.Size > 1<<16 {
			list = append(list, fmt.Sprintf("%s %.1f", s.Name, megabytes(int64(s.Size)))) //nolint:gosec // of a file
		}
	}
	b.notef("  sections, MiB: %s", strings.Join(list, ", "))
	return nil
}

// modulesOf maps the packages of a program to their modules.
func modulesOf(ctx context.Context, program string) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}", program).Output() //nolint:gosec // our own program
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, module, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[path] = cmp.Or(module, standard)
	}
	return m, nil
}

// weigh sums up the symbols' sizes by module.
func weigh(file string, modules map[string]string) (weight map[string]int64, packages int, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, 0, fmt.Errorf("symbols of %s: %w", file, err)
	}
	weight = map[string]int64{standard: 0, tables: 0}
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS {
			weight[tables] += int64(s.Size) //nolint:gosec // of a file
		}
	}
	seen := map[string]bool{}
	for _, s := range symbols {
		if int(s.Section) >= len(f.Sections) || f.Sections[s.Section].Type == elf.SHT_NOBITS {
			continue // takes no room in the file
		}
		path := packageOf(s.Name)
		module, known := modules[path]
		if !known {
			continue
		}
		if !seen[path] {
			seen[path] = true
			packages++
		}
		weight[module] += int64(s.Size) //nolint:gosec // of a file
		weight[tables] -= int64(s.Size) //nolint:gosec // of a file
	}
	return weight, packages, nil
}

// packageOf is the package in a symbol's name, such as
// "gopkg.in/yaml%2ev3.(*Node).Decode" or "go:itab.*os.File,io.Reader".
func packageOf(symbol string) string {
	if strings.HasPrefix(symbol, "type:") || strings.HasPrefix(symbol, "go:") || strings.HasPrefix(symbol, "runtime.pclntab") {
		return ""
	}
	slash := strings.LastIndexByte(symbol, '/')
	if i := strings.IndexAny(symbol, "([ "); i >= 0 { // receivers and type arguments have paths too
		slash = strings.LastIndexByte(symbol[:i], '/')
	}
	dot := strings.IndexByte(symbol[slash+1:], '.')
	if dot < 0 {
		return ""
	}
	return strings.ReplaceAll(symbol[:slash+1+dot], "%2e", ".")
}
