import type { Gap, LogEntry } from '../api/types';

/**
 * The loaded lines, outside React: rows in timestamp order, each line once.
 *
 * Lines of one millisecond keep the order in which the server gave them:
 * newer arrivals go behind their equals, older pages before them. Whoever
 * changes the store tells the views; the store itself knows no views.
 */
export interface LogRow {
  readonly kind: 'log';
  readonly key: string;
  readonly time: number;
  readonly entry: LogEntry;
  late: boolean;
}

export interface GapRow {
  readonly kind: 'gap';
  readonly key: string;
  readonly time: number;
  readonly gap: Gap;
}

export type Row = LogRow | GapRow;

export interface Added {
  /** Log lines added at the end. */
  appended: number;
  /** Log lines put between older ones. */
  inserted: number;
  /** Of all, those that came so long after their neighbours that it is worth telling. */
  late: number;
  /** Lines that were there already. */
  duplicates: number;
}

/** Nodes commit within fractions of a second of each other; only more than this is late. */
export const lateAfterMs = 5_000;

export function logRow(entry: LogEntry): LogRow {
  return { kind: 'log', key: entry.id, time: timeOf(entry.timestamp), entry, late: false };
}

export function gapRow(gap: Gap, time = gapTime(gap)): GapRow {
  return { kind: 'gap', key: gapKey(gap), time, gap };
}

/** Where a gap is drawn: at the end of what is missing, as far as that is known. */
export function gapTime(gap: Gap): number {
  return timeOf(gap.until ?? gap.since ?? gap.observedAt ?? '');
}

function timeOf(timestamp: string): number {
  const time = Date.parse(timestamp);
  return Number.isNaN(time) ? 0 : time;
}

function gapKey(gap: Gap): string {
  return [
    'gap', gap.reason, gap.nodeId, gap.agentId, gap.sandboxId, gap.firstSeq, gap.lastSeq, gap.since, gap.until,
    gap.from, gap.to, gap.observedAt, gap.count,
  ].join('|');
}

export class LogStore {
  rows: Row[] = [];
  /** Log lines among the rows. */
  lines = 0;
  private readonly keys = new Set<string>();

  /** Adds what a stream brought, in arrival order. */
  addLive(arrivals: readonly Row[]): Added {
    const added: Added = { appended: 0, inserted: 0, late: 0, duplicates: 0 };
    const behind: Row[] = [];
    for (const row of arrivals) {
      if (!this.take(row)) {
        added.duplicates++;
        continue;
      }
      const newest = this.rows.at(-1)?.time ?? -Infinity;
      if (row.time >= newest) {
        this.rows.push(row);
        if (row.kind === 'log') added.appended++;
        continue;
      }
      behind.push(row);
      if (row.kind === 'log') {
        added.inserted++;
        row.late = newest - row.time > lateAfterMs;
        if (row.late) added.late++;
      }
    }
    if (behind.length > 0) this.merge(behind.sort((a, b) => a.time - b.time), 'behind-equals');
    return added;
  }

  /** Adds a page of older rows, oldest first. Returns how many were new. */
  addOlder(rows: readonly Row[]): number {
    return this.addPage(rows, 'before-equals');
  }

  /** Adds a page of newer rows, oldest first. Returns how many were new. */
  addNewer(rows: readonly Row[]): number {
    return this.addPage(rows, 'behind-equals');
  }

  /** Forgets the oldest rows. */
  dropOldest(count: number): void {
    for (const row of this.rows.splice(0, count)) {
      this.keys.delete(row.key);
      if (row.kind === 'log') this.lines--;
    }
  }

  has(key: string): boolean {
    return this.keys.has(key);
  }

  /** The index of the row with this key, or -1. */
  indexOfKey(key: string): number {
    return this.keys.has(key) ? this.rows.findIndex((row) => row.key === key) : -1;
  }

  private addPage(rows: readonly Row[], ties: 'before-equals' | 'behind-equals'): number {
    const fresh = rows.filter((row) => this.take(row));
    // Gaps and lines come as two lists: the sort is stable, so lines keep the server's order.
    this.merge(fresh.sort((a, b) => a.time - b.time), ties);
    return fresh.length;
  }

  private take(row: Row): boolean {
    if (this.keys.has(row.key)) return false;
    this.keys.add(row.key);
    if (row.kind === 'log') this.lines++;
    return true;
  }

  /** Merges sorted rows, touching only the rows from the first place on. */
  private merge(sorted: Row[], ties: 'before-equals' | 'behind-equals'): void {
    const first = sorted[0];
    if (!first) return;
    const comesFirst = ties === 'before-equals' ? (mine: number, theirs: number) => mine < theirs : (mine: number, theirs: number) => mine <= theirs;
    const from = this.search((time) => comesFirst(time, first.time));
    const rest = this.rows.splice(from);
    let at = 0;
    for (const row of sorted) {
      while (at < rest.length && comesFirst(rest[at]!.time, row.time)) this.rows.push(rest[at++]!);
      this.rows.push(row);
    }
    while (at < rest.length) this.rows.push(rest[at++]!);
  }

  /** The index of the first row whose time does not satisfy the predicate. */
  private search(before: (time: number) => boolean): number {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (before(this.rows[middle]!.time)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
