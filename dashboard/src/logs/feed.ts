import { ApiError, queryString, request, type QueryValue } from '../api/client';
import { LiveStream, type StreamState } from '../api/stream';
import type { Gap, LogEntry, LogPage } from '../api/types';
import { isLive, logsQuery, streamQuery, type Filters } from './filters';
import { gapRow, gapTime, logRow, LogStore, type GapRow, type Row } from './store';

/**
 * Feeds one view (one set of filters) of the Logs page: the first page, older
 * pages on the way up, and the stream after the position that the first page
 * ended with, so that nothing falls between page and stream.
 *
 *   loading --page--> ready --filters change--> closed (a new feed takes over)
 *      \--error--> failed --reload()--> loading
 *
 * In `ready` the view follows the newest line until it is paused. While it is
 * paused, lines go on arriving below; at the limit of what a browser should
 * hold they are only counted, and resuming loads the newest page again.
 */
export interface FeedState {
  /** Changes whenever the rows did. */
  readonly version: number;
  readonly phase: 'loading' | 'ready' | 'failed';
  readonly error: ApiError | null;
  readonly connection: StreamState | 'history';
  readonly following: boolean;
  /** Lines that came since the view was paused. */
  readonly fresh: number;
  /** Lines that came long after their neighbours, since this was last looked at. */
  readonly late: number;
  readonly total: number;
  readonly totalIsExact: boolean;
  readonly hasOlder: boolean;
  readonly hasNewer: boolean;
  readonly loadingOlder: boolean;
  readonly loadingNewer: boolean;
  /** Older lines exist, but no more fit. */
  readonly full: boolean;
}

export const maxRows = 200_000;
const firstPage = 300;
const nextPage = 500;
/** Copying row positions costs more with more rows, so large stores are shown less often. */
const frameMs = (rows: number) => (rows < 20_000 ? 40 : 120);

export type FetchPage = (query: Readonly<Record<string, QueryValue>>, signal: AbortSignal) => Promise<LogPage>;

const fetchPage: FetchPage = (query, signal) => request<LogPage>(`/v1/logs${queryString(query)}`, { signal });

export class LogFeed {
  readonly store = new LogStore();
  private state: FeedState;
  private readonly listeners = new Set<() => void>();
  private readonly query: Record<string, QueryValue>;
  private abort = new AbortController();
  private stream: LiveStream | null = null;
  private olderCursor: string | null = null;
  private newerCursor: string | null = null;
  /** Gaps older than the oldest loaded line: drawn when the view has come there. */
  private olderGaps: Gap[] = [];
  private arrivals: Row[] = [];
  private flushTimer: ReturnType<typeof setTimeout> | undefined;
  private uncounted = 0;
  private asleep = false;
  private pausedBy: 'user' | 'scroll' = 'scroll';
  /** What became of the gaps whose lines were asked for again, by row key. */
  readonly missed = new Map<string, 'loading' | 'loaded' | 'failed'>();

  constructor(
    readonly filters: Filters,
    private readonly fetchLogs: FetchPage = fetchPage,
    private readonly openStream = (cursor: string, feed: LogFeed) => new LiveStream(streamQuery(filters), cursor, feed.streamHandlers),
    now = Date.now(),
    private readonly limit = maxRows,
  ) {
    this.query = logsQuery(filters, now);
    this.state = initialState(filters);
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): FeedState => this.state;

  start(): void {
    this.abort = new AbortController();
    void this.load();
  }

  close(): void {
    this.abort.abort();
    clearTimeout(this.flushTimer);
    this.flushTimer = undefined;
    this.stream?.close();
    this.stream = null;
  }

  /** Starts over with the newest page. */
  reload(): void {
    this.close();
    this.store.dropOldest(this.store.rows.length);
    this.olderGaps = [];
    this.arrivals = [];
    this.uncounted = 0;
    this.asleep = false;
    this.state = { ...initialState(this.filters), version: this.state.version + 1 };
    this.emit({});
    this.start();
  }

  pause(by: 'user' | 'scroll'): void {
    if (!this.state.following) return;
    this.pausedBy = by;
    this.emit({ following: false, fresh: 0 });
  }

  /** The view was scrolled to the newest line: that ends a pause by scrolling, not one by choice. */
  reachedEnd(): void {
    if (!this.state.following && this.pausedBy === 'scroll' && (this.stream || this.asleep)) this.resume();
  }

  resume(): void {
    if (this.uncounted > 0 || this.asleep) this.reload();
    else this.emit({ following: true, fresh: 0 });
  }

  /** Gives the connection back: a browser has six for one origin, over all of its tabs. */
  sleep(): void {
    if (!this.stream) return;
    this.stream.close();
    this.stream = null;
    this.asleep = true;
  }

  /** Looked at again: what follows the newest line starts there, what was paused waits to be resumed. */
  wake(): void {
    if (this.asleep && this.state.following) this.reload();
  }

  lateSeen(): void {
    this.emit({ late: 0 });
  }

  async loadOlder(): Promise<void> {
    const { phase, hasOlder, loadingOlder } = this.state;
    if (phase !== 'ready' || !hasOlder || loadingOlder) return;
    if (this.store.rows.length >= this.limit) {
      if (!this.state.full) this.emit({ full: true });
      return;
    }
    this.emit({ loadingOlder: true });
    const query = this.olderCursor === null ? { ...this.query, until: this.beforeOldest() } : { ...this.query, ...this.atBounds('older'), cursor: this.olderCursor };
    const page = await this.fetchInto({ ...query, limit: String(nextPage) });
    if (!page) return this.emit({ loadingOlder: false });
    this.olderCursor = page.cursor;
    this.olderGaps.push(...(page.gaps ?? []));
    this.store.addOlder([...page.data.map(logRow).reverse(), ...this.takeGaps(page)]);
    this.changed({ loadingOlder: false, hasOlder: page.hasMore });
  }

  /** Only around a moment: goes towards now and, once there, lives on. */
  async loadNewer(): Promise<void> {
    if (this.state.phase !== 'ready' || !this.state.hasNewer || this.state.loadingNewer || this.newerCursor === null) return;
    this.emit({ loadingNewer: true });
    const page = await this.fetchInto({ ...this.query, ...this.atBounds('newer'), order: 'asc', cursor: this.newerCursor, limit: String(nextPage) });
    if (!page) return this.emit({ loadingNewer: false });
    this.addNewerPage(page);
    this.changed({ loadingNewer: false, hasNewer: page.hasMore });
  }

  /** Fetches what this reader was too slow for and puts it where it belongs. */
  async loadMissed({ key, gap: { href } }: GapRow): Promise<void> {
    if (!href?.startsWith('/v1/logs?') || this.missed.get(key) === 'loading') return;
    this.missed.set(key, 'loading');
    this.changed({});
    const oldestFirst = new URLSearchParams(href.slice(href.indexOf('?'))).get('order') === 'asc';
    try {
      let next: string | null = href;
      while (next !== null) {
        const page: LogPage = await request<LogPage>(next, { signal: this.abort.signal });
        const rows = page.data.map(logRow);
        this.store.addOlder(oldestFirst ? rows : rows.reverse());
        next = page.hasMore && page.cursor !== null && this.store.rows.length < this.limit ? withCursor(href, page.cursor) : null;
        if (next !== null) this.changed({});
      }
      this.missed.set(key, 'loaded');
    } catch {
      this.missed.set(key, 'failed'); // the row says so and offers another try
    }
    this.changed({});
  }

  readonly streamHandlers = {
    onEntry: (entry: LogEntry): void => this.arrive(logRow(entry)),
    onGap: (gap: Gap): void => {
      this.arrive(gapRow(gap, gapTime(gap) || this.newestTime()));
    },
    onState: (connection: StreamState): void => this.emit({ connection }),
  };

  /** The oldest rows go many at a time, so that it is seldom. */
  private get dropChunk(): number {
    return Math.ceil(this.limit / 20);
  }

  private async load(): Promise<void> {
    const { at } = this.filters;
    this.emit({ phase: 'loading', error: null });
    const older = await this.fetchInto({ ...this.query, ...this.atBounds('older'), limit: String(firstPage) });
    const newer = older && at !== undefined ? await this.fetchInto({ ...this.query, ...this.atBounds('newer'), order: 'asc', limit: String(firstPage) }) : null;
    if (!older || (at !== undefined && !newer)) return;

    this.olderCursor = older.cursor;
    this.olderGaps = [...(older.gaps ?? [])];
    this.store.addOlder([...older.data.map(logRow).reverse(), ...this.takeGaps(older)]);
    if (newer) this.addNewerPage(newer);
    else if (isLive(this.filters)) this.follow(older.streamCursor);
    this.changed({
      phase: 'ready',
      total: older.total + (newer?.total ?? 0),
      totalIsExact: older.totalIsExact && (newer?.totalIsExact ?? true),
      hasOlder: older.hasMore,
      hasNewer: newer?.hasMore ?? false,
    });
  }

  private addNewerPage(page: LogPage): void {
    this.newerCursor = page.cursor;
    this.store.addNewer([...page.data.map(logRow), ...(page.gaps ?? []).map((gap) => gapRow(gap))]);
    if (!page.hasMore) this.follow(page.streamCursor);
  }

  private follow(cursor: string): void {
    if (this.stream) return;
    this.stream = this.openStream(cursor, this);
    this.emit({ connection: 'connecting' });
    this.stream.open();
  }

  private async fetchInto(query: Record<string, QueryValue>): Promise<LogPage | null> {
    const { signal } = this.abort;
    try {
      return await this.fetchLogs(query, signal);
    } catch (cause) {
      if (signal.aborted) return null;
      const error = cause instanceof ApiError ? cause : new ApiError(0, 'unexpected', String(cause));
      this.emit(this.state.phase === 'loading' ? { phase: 'failed', error } : { error });
      return null;
    }
  }

  /** Around a moment, older means up to and including its millisecond. */
  private atBounds(side: 'older' | 'newer'): Record<string, string> {
    if (this.filters.at === undefined) return {};
    const after = new Date(Date.parse(this.filters.at) + 1).toISOString();
    return side === 'older' ? { until: after } : { since: after };
  }

  /** Where older lines were forgotten there is no cursor: ask by time, the store drops what it has. */
  private beforeOldest(): string {
    return new Date((this.store.rows[0]?.time ?? Date.now()) + 1).toISOString();
  }

  /** The gaps that lie within what is loaded once this page is; the others wait. */
  private takeGaps(page: LogPage): Row[] {
    const oldest = page.data.at(-1);
    const from = page.hasMore && oldest ? Date.parse(oldest.timestamp) : -Infinity;
    const within = this.olderGaps.filter((gap) => gapTime(gap) >= from);
    this.olderGaps = this.olderGaps.filter((gap) => gapTime(gap) < from);
    return within.map((gap) => gapRow(gap));
  }

  /** Where a gap without a time stands, which is this reader's own: after the newest line. */
  private newestTime(): number {
    const newest = this.arrivals.reduce((time, row) => Math.max(time, row.time), this.store.rows.at(-1)?.time ?? 0);
    return newest || Date.now();
  }

  private arrive(row: Row): void {
    this.arrivals.push(row);
    // A timer and not an animation frame: a hidden tab gets no frames and must still drain.
    this.flushTimer ??= setTimeout(() => {
      this.flushTimer = undefined;
      this.flush();
    }, frameMs(this.store.rows.length));
  }

  private flush(): void {
    const { following, hasOlder, fresh, late, total } = this.state;
    const oldest = this.store.rows[0]?.time ?? -Infinity;
    const arrivals = this.arrivals;
    this.arrivals = [];
    // A line older than all that is loaded would stand beside strangers; older pages bring it.
    const above = hasOlder ? arrivals.filter((row) => row.time < oldest && row.kind === 'log' && !this.store.has(row.key)).length : 0;
    const here = hasOlder ? arrivals.filter((row) => row.time >= oldest) : arrivals;

    if (!following && this.store.rows.length + here.length > this.limit + this.dropChunk) {
      const lines = here.filter((row) => row.kind === 'log').length;
      this.uncounted += lines;
      this.emit({ fresh: fresh + lines, total: total + lines + above, late: late + above });
      return;
    }
    const added = this.store.addLive(here);
    const count = added.appended + added.inserted;
    const trimmed = following && this.store.rows.length > this.limit;
    if (trimmed) {
      this.store.dropOldest(this.store.rows.length - this.limit + this.dropChunk);
      this.olderCursor = null;
    }
    this.changed({
      fresh: following ? 0 : fresh + count,
      late: late + added.late + above,
      total: total + count + above,
      hasOlder: hasOlder || trimmed,
    });
  }

  private changed(change: Partial<FeedState>): void {
    this.emit({ ...change, version: this.state.version + 1 });
  }

  private emit(change: Partial<FeedState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}

function initialState(filters: Filters): FeedState {
  return {
    version: 0, phase: 'loading', error: null, connection: isLive(filters) ? 'connecting' : 'history',
    // A view around a moment starts there, not at its end.
    following: filters.at === undefined, fresh: 0, late: 0, total: 0, totalIsExact: true,
    hasOlder: false, hasNewer: false, loadingOlder: false, loadingNewer: false, full: false,
  };
}

function withCursor(path: string, cursor: string): string {
  const url = new URL(path, 'http://origin.invalid');
  url.searchParams.set('cursor', cursor);
  return url.pathname + url.search;
}
