package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/theazo/observability/shared/telemetry"
)

// The audit log is a chain for each organisation: the hash of an entry covers
// the entry and the hash of the one before, beginning with 32 zero bytes. No
// role can change or delete an entry. Who can all the same (the database's
// superuser) changes a hash that the next entry covers, up to the last one:
// whoever keeps a copy of that, as `aggregator audit verify` prints it, can
// prove any change of what was before.

// querier is what a transaction is worked through.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// auditEntry is a row of the log on its way in.
type auditEntry struct {
	org    telemetry.OrgID
	seq    int64
	at     time.Time
	actor  string
	action string
	target string
	detail string
}

// chain is the entry's hash behind that of the one before.
func (e *auditEntry) chain(before []byte) []byte {
	return digestOf("theazo audit 1", before, string(e.org), e.seq, e.at, e.actor, e.action, e.target, e.detail)
}

// digestOf is the SHA-256 of texts, numbers and times in their order. Every
// part is preceded by its length, so that none can lend bytes to another.
func digestOf(parts ...any) []byte {
	h := sha256.New()
	for _, part := range parts {
		var b []byte
		switch v := part.(type) {
		case string:
			b = []byte(v)
		case []byte:
			b = v
		case int64:
			b = binary.BigEndian.AppendUint64(nil, uint64(v)) //nolint:gosec // 64 bits are 64 bits
		case time.Time:
			b = binary.BigEndian.AppendUint64(nil, uint64(v.UnixMicro()))
		default:
			panic(fmt.Sprintf("store: a digest of a %T", part))
		}
		h.Write(binary.AppendUvarint(nil, uint64(len(b)))) // a hash's Write never fails
		h.Write(b)
	}
	return h.Sum(nil)
}

// maxAuditDetail bounds the details of one entry, in bytes.
const maxAuditDetail = 16 << 10

// appendAudit adds an entry in the transaction of what it tells of. Two at a
// time take the same number: the later transaction fails with a unique
// violation and starts again (lostAudit).
func appendAudit(ctx context.Context, tx querier, e auditEntry) (seq int64, err error) {
	before := make([]byte, sha256.Size)
	err = tx.QueryRow(ctx, "select seq, hash from audit where org = $1 order by seq desc limit 1", string(e.org)).Scan(&e.seq, &before)
	if err != nil && !noRows(err) {
		return 0, fmt.Errorf("read the last audit entry: %w", err)
	}
	e.seq++
	e.at = clampTime(e.at)
	e.actor, e.action, e.target, e.detail = cleanText(e.actor), cleanText(e.action), cleanText(e.target), cleanText(e.detail)
	if len(e.detail) > maxAuditDetail {
		return 0, fmt.Errorf("the details of an audit entry are %d bytes, the limit is %d", len(e.detail), maxAuditDetail)
	}
	_, err = tx.Exec(ctx, "insert into audit (org, seq, at, actor, action, target, detail, hash) values ($1, $2, $3, $4, $5, $6, $7, $8)",
		string(e.org), e.seq, e.at, e.actor, e.action, e.target, e.detail, e.chain(before))
	if err != nil {
		return 0, fmt.Errorf("append to the audit log: %w", err)
	}
	return e.seq, nil
}

// lostAudit reports whether another transaction took the number of our entry.
func lostAudit(err error) bool {
	return lostRace(err) || isCode(err, uniqueViolation)
}

// AuditFault is the first entry of a log that is not as it was written.
type AuditFault struct {
	Seq  int64
	What string
}

// AuditReport is what a check of one organisation's log found.
type AuditReport struct {
	Org     telemetry.OrgID
	Entries int64  // that are as they were written
	Head    string // hash of the last of them, hexadecimal
	Fault   *AuditFault
}

// Chained is an entry that was seen earlier, by its number and hash.
type Chained struct {
	Seq  int64
	Hash string
}

// auditPage is how many entries a check holds at a time.
const auditPage = 1000

// VerifyAudit checks an organisation's log from its first entry to its last.
// Given an entry that was seen earlier, it also checks that it is still there:
// only that shows a log whose end was cut off or that was made anew.
func (a *Admin) VerifyAudit(ctx context.Context, org telemetry.OrgID, seen *Chained) (AuditReport, error) {
	report := AuditReport{Org: org}
	err := a.asRole(ctx, roleMaint, func(tx pgx.Tx) error {
		before := make([]byte, sha256.Size)
		for {
			page, err := auditRows(ctx, tx, org, report.Entries)
			if err != nil {
				return fmt.Errorf("read the audit log of %s: %w", org, err)
			}
			for i := range page {
				e := &page[i]
				hash := e.chain(before)
				switch {
				case e.seq != report.Entries+1:
					report.Fault = &AuditFault{Seq: report.Entries + 1, What: fmt.Sprintf("is missing; the next one is %d", e.seq)}
				case hex.EncodeToString(hash) != hex.EncodeToString(e.hash):
					report.Fault = &AuditFault{Seq: e.seq, What: "was changed, or the one before was"}
				case seen != nil && seen.Seq == e.seq && seen.Hash != hex.EncodeToString(hash):
					report.Fault = &AuditFault{Seq: e.seq, What: "is another one than was seen earlier: the log was made anew"}
				}
				if report.Fault != nil {
					return nil
				}
				report.Entries, report.Head, before = e.seq, hex.EncodeToString(hash), hash
			}
			if len(page) < auditPage {
				break
			}
		}
		if seen != nil && seen.Seq > report.Entries {
			report.Fault = &AuditFault{Seq: seen.Seq, What: "was seen earlier and is missing: the end of the log was cut off"}
		}
		return nil
	})
	return report, failure(ctx, "verify the audit log of "+string(org), err)
}

// storedAudit is an entry as it is in the database.
type storedAudit struct {
	auditEntry
	hash []byte
}

func auditRows(ctx context.Context, tx querier, org telemetry.OrgID, after int64) ([]storedAudit, error) {
	rows, err := tx.Query(ctx, "select seq, at, actor, action, target, detail, hash from audit where org = $1 and seq > $2 order by seq limit $3", string(org), after, auditPage)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (storedAudit, error) {
		e := storedAudit{auditEntry: auditEntry{org: org}}
		err := row.Scan(&e.seq, &e.at, &e.actor, &e.action, &e.target, &e.detail, &e.hash)
		return e, err
	})
}

// Audit lists an organisation's log, oldest first, from after an entry on: at
// most a thousand entries.
func (a *Admin) Audit(ctx context.Context, org telemetry.OrgID, after int64) (list []telemetry.AuditEntry, err error) {
	err = a.asRole(ctx, roleMaint, func(tx pgx.Tx) error {
		rows, err := auditRows(ctx, tx, org, after)
		for i := range rows {
			e := &rows[i]
			list = append(list, telemetry.AuditEntry{
				Seq: e.seq, At: e.at.UTC(), Actor: e.actor, Action: e.action, Target: e.target, Detail: e.detail, Hash: hex.EncodeToString(e.hash),
			})
		}
		return err
	})
	return list, failure(ctx, "read the audit log of "+string(org), err)
}

// asRole runs fn in a transaction of one of the program's roles: row-level
// security is forced, so the tables' owner may not see their rows.
func (a *Admin) asRole(ctx context.Context, role string, fn func(tx pgx.Tx) error) error {
	tx, err := a.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer rollback(ctx, a.conn) // after a commit there is nothing to roll back
	if _, err := tx.Exec(ctx, "set local role "+role); err != nil {
		return fmt.Errorf("act as %s: %w", role, err)
	}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
