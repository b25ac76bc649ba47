// Package config fills a program's configuration struct: defaults in code,
// then one strict YAML file, then the environment, then flags. Every setting
// has one name in all of them: `listen.api` in the file is
// AGGREGATOR_LISTEN_API in the environment and -listen.api as a flag, and its
// `help` tag is its documentation.
//
// An unknown key, a value of the wrong kind or a ${NAME} that is not set is an
// error that names the setting; nothing is guessed.
package config

import (
	"bytes"
	"encoding"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Set is the settings of one program.
type Set struct {
	program  string
	settings []*setting
	File     string // -config
	flags    []override
}

type setting struct {
	path  string // listen.api
	help  string
	value reflect.Value
}

type override struct {
	s    *setting
	text string
}

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// New lists the settings of cfg, a pointer to a struct whose fields have
// `yaml` and `help` tags and hold the defaults. program is the prefix of the
// environment's names.
func New(program string, cfg any) *Set {
	s := &Set{program: program}
	s.walk("", reflect.ValueOf(cfg).Elem())
	return s
}

func (s *Set) walk(prefix string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Struct && !isText(v.Field(i)) {
			s.walk(prefix+name+".", v.Field(i))
			continue
		}
		s.settings = append(s.settings, &setting{path: prefix + name, help: f.Tag.Get("help"), value: v.Field(i)})
	}
}

func isText(v reflect.Value) bool {
	_, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	return ok
}

func (s *Set) env(x *setting) string {
	return strings.ToUpper(s.program + "_" + strings.NewReplacer(".", "_", "-", "_").Replace(x.path))
}

// Flags adds -config and a flag for every setting to fs.
func (s *Set) Flags(fs *flag.FlagSet) {
	fs.StringVar(&s.File, "config", os.Getenv(strings.ToUpper(s.program)+"_CONFIG"), "the YAML `file`")
	for _, x := range s.settings {
		if x.value.Kind() == reflect.Bool {
			fs.BoolFunc(x.path, x.help, func(text string) error { return s.override(x, text) })
			continue
		}
		fs.Func(x.path, x.help, func(text string) error { return s.override(x, text) })
	}
}

// override keeps a flag for later, after checking that its value is of the
// right kind: the file and the environment are read first.
func (s *Set) override(x *setting, text string) error {
	scratch := &setting{path: x.path, value: reflect.New(x.value.Type()).Elem()}
	if err := scratch.parse(text); err != nil {
		return err
	}
	s.flags = append(s.flags, override{x, text})
	return nil
}

// Load reads the file (if one is named), the environment and the flags that
// were parsed, in this order, into the struct given to New.
func (s *Set) Load(cfg any) error {
	if s.File != "" {
		if err := s.loadFile(cfg); err != nil {
			return fmt.Errorf("configuration file %s: %w", s.File, err)
		}
	}
	for _, x := range s.settings {
		text, ok := os.LookupEnv(s.env(x))
		if !ok {
			continue
		}
		if err := x.parse(text); err != nil {
			return fmt.Errorf("environment variable %s: %w", s.env(x), err)
		}
	}
	for _, o := range s.flags {
		if err := o.s.parse(o.text); err != nil {
			return fmt.Errorf("flag -%s: %w", o.s.path, err)
		}
	}
	return s.expand()
}

func (s *Set) loadFile(cfg any) error {
	f, err := os.Open(s.File)
	if err != nil {
		return errors.Unwrap(err) // the path is in the caller's message
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return fmt.Errorf("is larger than %d bytes", maxFile)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(cfg)
	if errors.Is(err, io.EOF) { // comments alone
		return nil
	}
	return err
}

var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME} in texts, so that a secret need not stand in a file.
func (s *Set) expand() error {
	var missing []string
	replace := func(text string) string {
		return reference.ReplaceAllStringFunc(text, func(m string) string {
			v, ok := os.LookupEnv(m[2 : len(m)-1])
			if !ok {
				missing = append(missing, m)
			}
			return v
		})
	}
	for _, x := range s.settings {
		switch v := x.value; {
		case v.Kind() == reflect.String:
			v.SetString(replace(v.String()))
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
			for i := range v.Len() {
				v.Index(i).SetString(replace(v.Index(i).String()))
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("setting %s: %s is not set in the environment", x.path, missing[0])
		}
	}
	return nil
}

func (x *setting) parse(text string) error {
	v := x.value
	if t, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return t.UnmarshalText([]byte(text))
	}
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 25ms or 24h", text)
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	case v.Type() == reflect.TypeFor[[]string]():
		v.Set(reflect.ValueOf(splitList(text)))
	default:
		return fmt.Errorf("setting %s cannot be given as text: use the configuration file", x.path)
	}
	return nil
}

func splitList(text string) []string {
	list := strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// Help writes what can be set, a setting a block.
func (s *Set) Help(w io.Writer) {
	for _, x := range s.settings {
		_, _ = fmt.Fprintf(w, "  %s\n      %s\n      flag -%s, environment %s, default %s\n", x.path, x.help, x.path, s.env(x), show(x.value))
	}
}

func show(v reflect.Value) string {
	if t, ok := reflect.TypeAssert[fmt.Stringer](v.Addr()); ok {
		return t.String()
	}
	if v.Kind() == reflect.Slice {
		if v.Len() == 0 {
			return "none"
		}
		return strings.Trim(fmt.Sprint(v.Interface()), "[]")
	}
	if text := fmt.Sprint(v.Interface()); text != "" {
		return text
	}
	return "none"
}

// YAML prints a configuration as a file would hold it, for people: passwords in
// URLs, what follows a "password=", and settings named …_token are left out.
func YAML(cfg any) ([]byte, error) {
	b, err := yaml.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("print the configuration: %w", err)
	}
	b = urlPassword.ReplaceAll(b, []byte("$1:…@"))
	b = namedPassword.ReplaceAll(b, []byte("$1…"))
	return secretSetting.ReplaceAll(b, []byte("$1 …")), nil
}

var (
	urlPassword   = regexp.MustCompile(`(://[^:@/\s]+):[^@/\s]+@`)
	namedPassword = regexp.MustCompile(`(?im)(password\s*=).*$`) // however it is quoted
	secretSetting = regexp.MustCompile(`(?m)^(\s*\w*token:) (?:[^"\s]|".*[^"].*").*$`)
)
