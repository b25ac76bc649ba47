import { describe, expect, it } from 'vitest';
import type { Gap, LogEntry } from '../api/types';
import { gapRow, gapTime, lateAfterMs, logRow, LogStore } from './store';

const base = Date.parse('2026-09-01T10:00:00.000Z');
const entry = (id: string, ms: number): LogEntry => ({
  id, timestamp: new Date(base + ms).toISOString(), level: 'info', agentId: 'agt_1', source: 'agent', message: id,
});
const row = (id: string, ms: number) => logRow(entry(id, ms));
const keys = (store: LogStore) => store.rows.map((one) => one.key).join(' ');

describe('LogStore', () => {
  it('appends in arrival order, equal times included', () => {
    const store = new LogStore();
    const added = store.addLive([row('a', 0), row('b', 1), row('c', 1)]);
    expect(keys(store)).toBe('a b c');
    expect(added).toEqual({ appended: 3, inserted: 0, late: 0, duplicates: 0 });
  });

  it('takes each line once', () => {
    const store = new LogStore();
    store.addOlder([row('a', 0), row('b', 1)]);
    expect(store.addLive([row('b', 1), row('c', 2), row('c', 2)]).duplicates).toBe(2);
    expect(store.addOlder([row('a', 0)])).toBe(0);
    expect(keys(store)).toBe('a b c');
    expect(store.lines).toBe(3);
  });

  it('puts late lines in timestamp order and counts only the really late', () => {
    const store = new LogStore();
    store.addLive([row('a', 0), row('b', 10_000), row('c', 20_000)]);
    const added = store.addLive([row('soon', 20_000 - lateAfterMs), row('late2', 9_000), row('late1', 500), row('d', 20_000)]);
    expect(keys(store)).toBe('a late1 late2 b soon c d');
    expect(added).toEqual({ appended: 1, inserted: 3, late: 2, duplicates: 0 });
    expect(store.rows.filter((one) => one.kind === 'log' && one.late).map((one) => one.key)).toEqual(['late1', 'late2']);
  });

  it('keeps the server order of equal times on both sides', () => {
    const store = new LogStore();
    store.addOlder([row('c', 5), row('d', 5)]);
    store.addOlder([row('a', 5), row('b', 5)]);
    store.addNewer([row('e', 5), row('f', 6)]);
    expect(keys(store)).toBe('a b c d e f');
  });

  it('draws gaps where the missing lines would be', () => {
    const store = new LogStore();
    store.addOlder([row('a', 0), row('b', 1000)]);
    const gap: Gap = { reason: 'rotated', count: 12, until: new Date(base + 500).toISOString(), nodeId: 'nod_1' };
    store.addOlder([gapRow(gap)]);
    expect(store.rows.map((one) => one.kind)).toEqual(['log', 'gap', 'log']);
    expect(store.addLive([gapRow(gap)])).toMatchObject({ duplicates: 1 });
    expect(store.lines).toBe(2);
    expect(gapTime({ reason: 'evicted', count: -1, observedAt: '2026-09-01T10:00:01.000Z' })).toBe(base + 1000);
  });

  it('forgets the oldest and takes them again', () => {
    const store = new LogStore();
    store.addLive([row('a', 0), row('b', 1), row('c', 2)]);
    store.dropOldest(2);
    expect(keys(store)).toBe('c');
    expect([store.has('a'), store.indexOfKey('c'), store.indexOfKey('a')]).toEqual([false, 0, -1]);
    expect(store.addOlder([row('a', 0), row('b', 1)])).toBe(2);
    expect(keys(store)).toBe('a b c');
  });

  it('is always sorted, unique and complete, whatever the order of arrival', () => {
    let seed = 42;
    const next = (below: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
    for (let round = 0; round < 200; round++) {
      const store = new LogStore();
      const seen = new Set<string>();
      for (let step = 0; step < 12; step++) {
        const batch = Array.from({ length: next(30) }, () => row(`l${next(300)}`, 0)).map((one) => row(one.key, Number(one.key.slice(1)) >> 2));
        batch.forEach((one) => seen.add(one.key));
        if (next(2)) store.addLive(batch);
        else if (next(2)) store.addOlder(batch);
        else store.addNewer(batch);
      }
      const times = store.rows.map((one) => one.time);
      expect(times).toEqual([...times].sort((a, b) => a - b));
      expect(new Set(store.rows.map((one) => one.key))).toEqual(seen);
      expect(store.rows).toHaveLength(seen.size);
      expect(store.lines).toBe(seen.size);
    }
  });

  it('holds 200,000 lines with late ones among them', () => {
    const store = new LogStore();
    for (let i = 0; i < 200; i++) store.addLive(Array.from({ length: 1000 }, (_, j) => row(`${i}-${j}`, i * 1000 + j)));
    store.addLive(Array.from({ length: 1000 }, (_, j) => row(`late-${j}`, j * 150)));
    expect(store.rows).toHaveLength(201_000);
    expect(store.rows.every((one, i) => i === 0 || store.rows[i - 1]!.time <= one.time)).toBe(true);
  });
});
