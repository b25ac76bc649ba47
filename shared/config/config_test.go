package config_test

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/shared/config"
)

type sample struct {
	Name   string   `yaml:"name" help:"a name"`
	Hosts  []string `yaml:"hosts" help:"some hosts"`
	Listen struct {
		API   string        `yaml:"api" help:"an address"`
		Delay time.Duration `yaml:"delay" help:"a delay"`
		On    bool          `yaml:"on" help:"a switch"`
		Count int           `yaml:"count" help:"a number"`
		Size  config.Size   `yaml:"size" help:"a size"`
	} `yaml:"listen"`
}

func load(t *testing.T, file string, args ...string) (sample, error) {
	t.Helper()
	var c sample
	c.Listen.Delay, c.Listen.Size = 25*time.Millisecond, 1<<30
	s := config.New("prog", &c)
	fs := flag.NewFlagSet("prog", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	s.Flags(fs)
	if file != "" {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-config", path)
	}
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	return c, s.Load(&c)
}

func TestFlagsWinOverEnvironmentOverFileOverDefaults(t *testing.T) {
	t.Setenv("PROG_LISTEN_API", "env:1")
	t.Setenv("PROG_HOSTS", "a, b,")
	t.Setenv("SECRET", "s3cret")
	c, err := load(t, "# comment\nname: x-${SECRET}\nlisten:\n  api: file:1\n  delay: 1s\n  size: 2MiB\n", "-listen.delay", "2s", "-listen.on", "-listen.count=7")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "x-s3cret" || c.Listen.API != "env:1" || c.Listen.Delay != 2*time.Second || !c.Listen.On || c.Listen.Count != 7 || c.Listen.Size != 2<<20 || !slices.Equal(c.Hosts, []string{"a", "b"}) {
		t.Fatalf("%+v", c)
	}
}

func TestErrorsNameTheSetting(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		args []string
		want string
	}{
		"unknown key":     {file: "naem: x\n", want: "naem"},
		"wrong kind":      {file: "listen:\n  count: many\n", want: "count"},
		"bad size":        {file: "listen:\n  size: 5 apples\n", want: "apples"},
		"bad flag":        {args: []string{"-listen.delay", "soon"}, want: "listen.delay"},
		"unset reference": {file: "name: ${NOT_SET_ANYWHERE}\n", want: "NOT_SET_ANYWHERE"},
		"no such file":    {args: []string{"-config", "/does/not/exist.yaml"}, want: "/does/not/exist.yaml"},
	} {
		if _, err := load(t, tc.file, tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v does not name %q", name, err, tc.want)
		}
	}
	if _, err := load(t, "# nothing but a comment\n"); err != nil {
		t.Error(err)
	}
}

func TestHelpNamesEverySetting(t *testing.T) {
	var c sample
	var b strings.Builder
	config.New("prog", &c).Help(&b)
	for _, want := range []string{"PROG_LISTEN_SIZE", "-listen.api", "a number", "default 0B", "default none"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, b.String())
		}
	}
}

func TestSizePrintsWhatItReads(t *testing.T) {
	for _, text := range []string{"0B", "1B", "1023B", "1KiB", "512MiB", "3GiB", "1TiB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != text {
			t.Errorf("%s: %s %v", text, s, err)
		}
	}
}

func TestAPrintedConfigurationHoldsNoSecret(t *testing.T) {
	for _, dsn := range []string{
		"postgres://me:hunter2@db/x", "postgres://db/x?user=me&password=hunter2", "host=db password=hunter2 user=me",
		"host=db password = 'hunter2 hunter2' user=me", `host=db password='it\'s hunter2' user=me`, "PASSWORD=hunter2",
		"host=db sslpassword=hunter2",
	} {
		for _, token := range []string{"hunter2", "hunter2: hunter2", "# hunter2", "'hunter2'", "\"hunter2\""} {
			b, err := config.YAML(&struct {
				DSN       string `yaml:"dsn"`
				JoinToken string `yaml:"join_token"`
				Name      string `yaml:"name"`
			}{dsn, token, "kept"})
			if err != nil {
				t.Fatal(err)
			}
			if text := string(b); strings.Contains(text, "hunter2") || !strings.Contains(text, "name: kept") {
				t.Errorf("%q and %q are printed as\n%s", dsn, token, text)
			}
		}
	}
}
