package sandbox

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Key is the node's own secret that tokens are signed with. It never leaves
// the node; whoever can read it can speak for every sandbox of the node.
type Key [32]byte

const keyFile = "sandbox.key"

// LoadKey reads the node's key from its state directory, and makes it the
// first time.
func LoadKey(stateDir string) (Key, error) {
	path := filepath.Join(stateDir, keyFile)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	f, err := os.CreateTemp(stateDir, keyFile+".*")
	if err != nil {
		return Key{}, fmt.Errorf("key of the local endpoint: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(key[:])
	if err = errors.Join(err, givenTo(f, stateDir), f.Sync(), f.Close()); err != nil {
		return Key{}, fmt.Errorf("key of the local endpoint: %w", err)
	}
	// Linked, not renamed: of two processes that make one, the first's stays.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return Key{}, fmt.Errorf("key of the local endpoint: %w", err)
	}
	return readKey(path)
}

// givenTo makes the state directory's owner the file's: root may be asked for
// a token before agentd itself ran.
func givenTo(f *os.File, stateDir string) error {
	info, err := os.Stat(stateDir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

func readKey(path string) (Key, error) {
	b, err := os.ReadFile(path) //nolint:gosec // in our state directory
	if err != nil {
		return Key{}, fmt.Errorf("key of the local endpoint: %w", err)
	}
	if len(b) != len(Key{}) {
		return Key{}, fmt.Errorf("key of the local endpoint: %s holds %d bytes instead of %d; remove it, and a new one is made (tokens that are out become void)", path, len(b), len(Key{}))
	}
	return Key(b), nil
}

const tokenPrefix = "tht_"

// claims is what a token says. Its short names make short addresses.
type claims struct {
	Org      telemetry.OrgID       `json:"o,omitempty"`
	Env      telemetry.Environment `json:"e,omitempty"`
	Agent    telemetry.AgentID     `json:"a"`
	Session  telemetry.SessionID   `json:"s,omitempty"`
	User     telemetry.UserID      `json:"u,omitempty"`
	Provider telemetry.Provider    `json:"p,omitempty"`
	Sandbox  telemetry.SandboxID   `json:"b,omitempty"`
	Expires  int64                 `json:"x,omitempty"` // seconds since 1970
}

func claimsOf(t source.Target) claims {
	return claims{
		Org: t.Org, Env: t.Env, Agent: t.Origin.Agent, Session: t.Origin.Session, User: t.Origin.User,
		Provider: t.Origin.Provider, Sandbox: t.Origin.Sandbox,
	}
}

func (c *claims) target() source.Target {
	return source.Target{Org: c.Org, Env: c.Env, Origin: telemetry.Origin{
		Agent: c.Agent, Session: c.Session, User: c.User, Provider: c.Provider, Sandbox: c.Sandbox,
	}}
}

// Token makes the token with which a sender is the target; until expires,
// unless that is zero.
func (k Key) Token(t source.Target, expires time.Time) (string, error) {
	c := claimsOf(t)
	if err := telemetry.CheckID(string(c.Agent)); err != nil {
		return "", fmt.Errorf("token: the agent %w", err)
	}
	if !expires.IsZero() {
		c.Expires = expires.Unix()
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(k.sign(text)), nil
}

func (k Key) sign(text string) []byte {
	h := hmac.New(sha256.New, k[:])
	h.Write([]byte("theazo sandbox token\x00" + text))
	return h.Sum(nil)
}

var errToken = errors.New("the token in the path is not one of this node, or is not valid any more")

// target reads a token.
func (k Key) target(token string, now time.Time) (source.Target, error) {
	text, signature, ok := strings.Cut(token, ".")
	mac, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	if k == (Key{}) || !ok || err != nil || !hmac.Equal(mac, k.sign(text)) {
		return source.Target{}, errToken
	}
	body, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(text, tokenPrefix))
	if err != nil {
		return source.Target{}, errToken
	}
	var c claims
	if err := json.Unmarshal(body, &c); err != nil {
		return source.Target{}, errToken
	}
	if c.Expires != 0 && now.Unix() >= c.Expires {
		return source.Target{}, errToken
	}
	return c.target(), nil
}
