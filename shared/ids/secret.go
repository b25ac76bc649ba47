package ids

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"

	"github.com/theazo/observability/shared/telemetry"
)

// Hash is what is stored of a credential: SHA-256 of its whole text. 256
// random bits need no slow hash.
type Hash [sha256.Size]byte

// HashOf returns the hash of a credential's text.
func HashOf(credential string) Hash { return sha256.Sum256([]byte(credential)) }

const (
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretLen = 43 // base62 digits of 256 bits
	crcLen    = 6  // base62 digits of 32 bits
)

// NewAPIKey makes a key: th_live_<id>_<43 base62><6 checksum>. The id (12
// characters) finds its row; it is not a secret.
func NewAPIKey(env telemetry.Environment) (id, key string) {
	id = New("key")[len("key_"):][:12]
	body := "th_" + env.String() + "_" + id + "_" + randomSecret()
	return id, body + checksum(body)
}

// ParseAPIKey checks the form and checksum of a key and returns its id.
func ParseAPIKey(key string) (id string, env telemetry.Environment, err error) {
	parts := strings.Split(key, "_")
	if len(parts) != 4 || parts[0] != "th" || len(parts[2]) != 12 || len(parts[3]) != secretLen+crcLen {
		return "", 0, errors.New("is not an API key (th_live_… or th_test_…)")
	}
	if env, err = telemetry.ParseEnvironment(parts[1]); err != nil {
		return "", 0, errors.New("is not an API key (th_live_… or th_test_…)")
	}
	if err := checkChecksum(key); err != nil {
		return "", 0, err
	}
	return parts[2], env, nil
}

// NewStreamToken makes a token for the URL of a stream: thz_<43><6>.
func NewStreamToken() string {
	body := "thz_" + randomSecret()
	return body + checksum(body)
}

// CheckStreamToken checks the form and checksum of a stream token.
func CheckStreamToken(token string) error {
	if !strings.HasPrefix(token, "thz_") || len(token) != len("thz_")+secretLen+crcLen {
		return errors.New("is not a stream token (thz_…)")
	}
	return checkChecksum(token)
}

// NewSessionToken makes the value of a sign-in cookie: thc_<43><6>.
func NewSessionToken() string {
	body := "thc_" + randomSecret()
	return body + checksum(body)
}

// NewJoinToken makes a token with which nodes enrol: thj_<43><64 hex><6>. The
// middle is the SHA-256 of the certificate authority's certificate (DER), so
// that the node knows its aggregator before it trusts anything else.
func NewJoinToken(authority Hash) string {
	body := "thj_" + randomSecret() + hex.EncodeToString(authority[:])
	return body + checksum(body)
}

// ParseJoinToken checks the form and checksum of a join token and returns the
// hash of the authority's certificate that it names.
func ParseJoinToken(token string) (authority Hash, err error) {
	const hexLen = 2 * sha256.Size
	bad := errors.New("is not a join token (thj_…): copy it whole, as `aggregator node token` printed it")
	if !strings.HasPrefix(token, "thj_") || len(token) != len("thj_")+secretLen+hexLen+crcLen {
		return authority, bad
	}
	if err := checkChecksum(token); err != nil {
		return authority, err
	}
	hexText := token[len("thj_")+secretLen:][:hexLen]
	raw, err := hex.DecodeString(hexText)
	if err != nil {
		return authority, bad
	}
	return Hash(raw), nil
}

func randomSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return digits(new(big.Int).SetBytes(b[:]), secretLen)
}

func checksum(body string) string {
	return digits(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))), crcLen)
}

func checkChecksum(text string) error {
	body, sum := text[:len(text)-crcLen], text[len(text)-crcLen:]
	if checksum(body) != sum {
		return errors.New("has a wrong checksum: a character is missing or changed")
	}
	return nil
}

// digits prints n in base 62, filled with zeros to width.
func digits(n *big.Int, width int) string {
	out := make([]byte, width)
	base, digit := big.NewInt(62), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		out[i] = base62[digit.Int64()]
	}
	return string(out)
}
