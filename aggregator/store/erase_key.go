package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/theazo/observability/shared/telemetry"
)

// ErasureKey is the secret of the hashes that stay of erased subjects. It is
// not in the database: who has a dump alone cannot try names. All aggregators
// of an installation have the same one; without it, or with another, late
// records of subjects erased earlier are not known for what they are.
type ErasureKey []byte

const erasureKeyBytes = 32

// OpenErasureKey reads the key from a file, which it makes where there is none.
func OpenErasureKey(path string) (ErasureKey, error) {
	key, err := readErasureKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the erasure key: %w", err)
	}
	fresh := make([]byte, erasureKeyBytes)
	_, _ = rand.Read(fresh) // never fails (crypto/rand)
	if err := writeOnce(path, hex.EncodeToString(fresh)+"\n"); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("write the erasure key: %w", err)
	}
	return readErasureKey(path) // another process may have been first
}

func readErasureKey(path string) (ErasureKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the erasure key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != erasureKeyBytes {
		return nil, fmt.Errorf("%s is not an erasure key (%d hexadecimal digits): put it back from its backup", path, 2*erasureKeyBytes)
	}
	return key, nil
}

// writeOnce makes a file that is complete whenever it is there, and fails with
// fs.ErrExist where there is one.
func writeOnce(path, text string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".erasure-key-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if _, err = f.WriteString(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// id tells keys apart, and nothing of them.
func (k ErasureKey) id() []byte {
	m := hmac.New(sha256.New, k)
	m.Write([]byte("theazo erasure key")) // a hash's Write never fails
	return m.Sum(nil)[:8]
}

// subjectHash is what stays of a subject.
type subjectHash [sha256.Size]byte

// hash is the keyed hash of a subject: two organisations' equal users have
// different ones.
func (k ErasureKey) hash(org telemetry.OrgID, kind telemetry.ErasureKind, subject string) (h subjectHash) {
	m := hmac.New(sha256.New, k)
	m.Write([]byte{1, byte(kind)}) // a hash's Write never fails
	m.Write([]byte(org))
	m.Write([]byte{0})
	m.Write([]byte(subject))
	m.Sum(h[:0])
	return h
}
