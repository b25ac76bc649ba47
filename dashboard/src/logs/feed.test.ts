import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { QueryValue } from '../api/client';
import { LiveStream, type EventSourceLike } from '../api/stream';
import type { Gap, LogEntry, LogPage } from '../api/types';
import { LogFeed } from './feed';
import type { Filters } from './filters';
import { gapRow, logRow } from './store';

const base = Date.parse('2026-09-01T10:00:00.000Z');
const entry = (n: number, ms = n * 1000): LogEntry => ({
  id: `log_${n}`, timestamp: new Date(base + ms).toISOString(), level: 'info', agentId: 'agt_1', source: 'agent', message: `line ${n}`,
});
const page = (data: LogEntry[], more: Partial<LogPage> = {}): LogPage => ({
  data, total: data.length, totalIsExact: true, hasMore: false, cursor: null, streamCursor: '1-10', gaps: [], ...more,
});

class FakeSource implements EventSourceLike {
  static all: FakeSource[] = [];
  readyState = 1;
  onerror: ((event: Event) => void) | null = null;
  private readonly handlers = new Map<string, (event: MessageEvent<string>) => void>();
  constructor(readonly url: string) {
    FakeSource.all.push(this);
  }
  addEventListener(type: string, listener: (event: MessageEvent<string>) => void): void {
    this.handlers.set(type, listener);
  }
  close(): void {
    this.readyState = 2;
  }
  send(type: string, data: unknown, lastEventId = ''): void {
    this.handlers.get(type)?.({ data: JSON.stringify(data), lastEventId } as MessageEvent<string>);
  }
}

function open(filters: Filters, pages: LogPage[], limit?: number) {
  const queries: Record<string, QueryValue>[] = [];
  const feed = new LogFeed(
    filters,
    (query) => {
      queries.push(query);
      const next = pages.shift();
      return next ? Promise.resolve(next) : Promise.reject(new Error('no page left'));
    },
    (cursor, of) => new LiveStream({}, cursor, of.streamHandlers, (url) => new FakeSource(url)),
    base + 60_000,
    limit,
  );
  return { feed, queries };
}

/** As many rows as a feed holds, in the tests of that limit. */
const limit = 200;
const keys = (feed: LogFeed) => feed.store.rows.map((row) => (row.kind === 'gap' ? `gap:${row.gap.reason}` : row.key));

beforeEach(() => {
  vi.useFakeTimers();
  FakeSource.all = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('LogFeed', () => {
  it('shows the newest page oldest first and streams after it, each line once', async () => {
    const { feed } = open({}, [page([entry(3), entry(2), entry(1)], { total: 3 })]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(keys(feed)).toEqual(['log_1', 'log_2', 'log_3']);
    const source = FakeSource.all[0]!;
    expect(source.url).toBe('/v1/logs/stream?after=1-10');
    source.send('ready', { cursor: '1-10' });
    source.send('log', entry(3), '1-11');
    source.send('log', entry(4), '1-12');
    await vi.advanceTimersByTimeAsync(200);
    expect(keys(feed)).toEqual(['log_1', 'log_2', 'log_3', 'log_4']);
    expect(feed.snapshot()).toMatchObject({ connection: 'live', total: 4, fresh: 0, following: true });
    feed.close();
  });

  it('counts new lines while paused and goes on when resumed', async () => {
    const { feed } = open({}, [page([entry(1)])]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    feed.pause('user');
    for (let n = 2; n < 7; n++) FakeSource.all[0]!.send('log', entry(n));
    await vi.advanceTimersByTimeAsync(200);
    expect(feed.snapshot()).toMatchObject({ following: false, fresh: 5 });
    feed.reachedEnd();
    expect(feed.snapshot().following).toBe(false); // paused by choice: scrolling down does not resume
    feed.resume();
    expect(feed.snapshot()).toMatchObject({ following: true, fresh: 0 });
    feed.pause('scroll');
    feed.reachedEnd();
    expect(feed.snapshot().following).toBe(true);
    feed.close();
  });

  it('only counts at the limit while paused, and loads anew when resumed', async () => {
    const { feed } = open({}, [page([entry(1)]), page([entry(9)])], limit);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    feed.pause('user');
    feed.store.addLive(Array.from({ length: 1.05 * limit }, (_, n) => logRow(entry(n + 10, n))));
    const before = feed.store.rows.length;
    FakeSource.all[0]!.send('log', entry(999_999, 1e9));
    await vi.advanceTimersByTimeAsync(200);
    expect(feed.store.rows).toHaveLength(before);
    expect(feed.snapshot().fresh).toBe(1);
    feed.resume();
    await vi.advanceTimersByTimeAsync(0);
    expect(keys(feed)).toEqual(['log_9']);
    feed.close();
  });

  it('forgets the oldest at the limit while following, and can load them again', async () => {
    const { feed, queries } = open({}, [page([entry(1)]), page([entry(2)])], limit);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    feed.store.addLive(Array.from({ length: limit }, (_, n) => logRow(entry(n + 10, 2000 + n))));
    FakeSource.all[0]!.send('log', entry(999_999, 1e9));
    await vi.advanceTimersByTimeAsync(200);
    expect(feed.store.rows.length).toBeLessThanOrEqual(limit);
    expect(feed.snapshot().hasOlder).toBe(true);
    await feed.loadOlder();
    expect(queries[1]!.until).toBe(new Date(feed.store.rows[1]!.time + 1).toISOString());
    feed.close();
  });

  it('pages older lines by cursor and draws gaps only where it has come to', async () => {
    const old: Gap = { reason: 'rotated', count: 7, until: new Date(base + 1500).toISOString() };
    const recent: Gap = { reason: 'evicted', count: -1, until: new Date(base + 4500).toISOString() };
    const { feed, queries } = open({ search: 'x', since: '-15m' }, [
      page([entry(5), entry(4)], { total: 4, hasMore: true, cursor: 'c1', gaps: [old, recent] }),
      page([entry(2), entry(1)], { total: 4, gaps: [old, recent] }),
    ]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(keys(feed)).toEqual(['log_4', 'gap:evicted', 'log_5']);
    await feed.loadOlder();
    expect(keys(feed)).toEqual(['log_1', 'gap:rotated', 'log_2', 'log_4', 'gap:evicted', 'log_5']);
    expect(queries[1]).toMatchObject({ cursor: 'c1', search: 'x', since: queries[0]!.since });
    expect(feed.snapshot()).toMatchObject({ hasOlder: false, loadingOlder: false });
    feed.close();
  });

  it('tells of late lines, also of those above what is loaded', async () => {
    const { feed } = open({}, [page([entry(200), entry(100)], { hasMore: true, cursor: 'c1', total: 9 })]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    FakeSource.all[0]!.send('log', entry(150));
    FakeSource.all[0]!.send('log', entry(50));
    await vi.advanceTimersByTimeAsync(200);
    expect(keys(feed)).toEqual(['log_100', 'log_150', 'log_200']);
    expect(feed.snapshot()).toMatchObject({ late: 2, total: 11 });
    feed.lateSeen();
    expect(feed.snapshot().late).toBe(0);
    feed.close();
  });

  it('puts its own gap after the newest line and loads what was missed', async () => {
    const { feed } = open({}, [page([entry(1)])]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    const source = FakeSource.all[0]!;
    source.send('gap', { from: '1-10', to: '1-13', count: 2, reason: 'slow_reader', href: '/v1/logs?since=a' }, '1-13');
    source.send('log', entry(4), '1-14');
    await vi.advanceTimersByTimeAsync(200);
    expect(keys(feed)).toEqual(['log_1', 'gap:slow_reader', 'log_4']);

    const asked: string[] = [];
    vi.stubGlobal('fetch', (path: string) => {
      asked.push(path);
      const body = asked.length === 1 ? page([entry(3)], { hasMore: true, cursor: 'c' }) : page([entry(2), entry(1)]);
      return Promise.resolve(new Response(JSON.stringify(body)));
    });
    const row = feed.store.rows[1]!;
    if (row.kind !== 'gap') throw new Error('not a gap');
    await feed.loadMissed(row);
    expect(feed.missed.get(row.key)).toBe('loaded');
    expect(asked).toEqual(['/v1/logs?since=a', '/v1/logs?since=a&cursor=c']);
    expect(keys(feed)).toEqual(['log_1', 'gap:slow_reader', 'log_2', 'log_3', 'log_4']);
    await feed.loadMissed(gapRow({ reason: 'slow_reader', count: 1, href: 'https://evil.example/v1/logs?' }));
    expect(asked).toHaveLength(2);
    feed.close();
  });

  it('has no stream for a range that ended', async () => {
    const { feed, queries } = open({ since: '2026-09-01', until: '2026-09-02' }, [page([entry(1)])]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(FakeSource.all).toHaveLength(0);
    expect(feed.snapshot().connection).toBe('history');
    expect(queries[0]).toMatchObject({ since: '2026-09-01', until: '2026-09-02' });
    feed.close();
  });

  it('shows both sides of a moment and lives on once it has come to now', async () => {
    const { feed, queries } = open({ at: new Date(base + 2000).toISOString() }, [
      page([entry(2), entry(1)], { total: 2 }),
      page([entry(3)], { total: 2, hasMore: true, cursor: 'n1' }),
      page([entry(4)], { streamCursor: '1-44' }),
    ]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(queries.map((query) => [query.since, query.until, query.order])).toEqual([
      [undefined, '2026-09-01T10:00:02.001Z', undefined],
      ['2026-09-01T10:00:02.001Z', undefined, 'asc'],
    ]);
    expect(FakeSource.all).toHaveLength(0);
    await feed.loadNewer();
    expect(keys(feed)).toEqual(['log_1', 'log_2', 'log_3', 'log_4']);
    expect(FakeSource.all[0]!.url).toContain('after=1-44');
    feed.close();
  });

  it('gives its connection back while nobody looks, and starts at the newest line when somebody does', async () => {
    const { feed } = open({}, [page([entry(1)]), page([entry(2)]), page([entry(3)])]);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    feed.sleep();
    expect(FakeSource.all[0]!.readyState).toBe(2);
    feed.wake();
    await vi.advanceTimersByTimeAsync(0);
    expect(keys(feed)).toEqual(['log_2']);

    feed.pause('user');
    feed.sleep();
    feed.wake();
    await vi.advanceTimersByTimeAsync(0);
    expect(keys(feed)).toEqual(['log_2']); // what was paused to be read stays
    feed.resume();
    await vi.advanceTimersByTimeAsync(0);
    expect(keys(feed)).toEqual(['log_3']);
    feed.close();
  });

  it('says what failed and can try again', async () => {
    const { feed } = open({}, []);
    feed.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(feed.snapshot()).toMatchObject({ phase: 'failed', error: { code: 'unexpected' } });
    feed.close();
  });
});

describe('LiveStream', () => {
  it('opens again after the last position when the browser gives up, and when all is silent', async () => {
    vi.stubGlobal('fetch', () => Promise.resolve(new Response('{}')));
    const states: string[] = [];
    const stream = new LiveStream({ level: ['error'] }, '1-5', { onEntry: () => {}, onGap: () => {}, onState: (state) => states.push(state) }, (url) => new FakeSource(url));
    stream.open();
    FakeSource.all[0]!.send('ready', {});
    FakeSource.all[0]!.send('heartbeat', {}, '1-9');
    FakeSource.all[0]!.readyState = 2;
    FakeSource.all[0]!.onerror?.({} as Event);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(FakeSource.all[1]!.url).toBe('/v1/logs/stream?level=error&after=1-9');
    FakeSource.all[1]!.send('ready', {});
    expect(states).toEqual(['live', 'reconnecting', 'live']);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSource.all.length).toBeGreaterThan(2);
    stream.close();
    const count = FakeSource.all.length;
    await vi.advanceTimersByTimeAsync(120_000);
    expect(FakeSource.all).toHaveLength(count);
  });
});
