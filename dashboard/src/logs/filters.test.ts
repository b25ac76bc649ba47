import { describe, expect, it } from 'vitest';
import { queryString } from '../api/client';
import { isFiltered, isLive, logsQuery, parseUrlSearch, printUrlSearch, readSearch, streamQuery, toggleLevel, without, withValue } from './filters';

describe('the URL', () => {
  it('comes back as it was written', () => {
    const search = readSearch({
      level: 'warn,error', agentId: ['agt_1', 'agt_2'], userId: 'a,b', search: '50% & <b>', since: '-15m', entry: 'log_1',
    });
    expect(readSearch(parseUrlSearch(printUrlSearch({ ...search })))).toEqual(search);
    expect(search).toEqual({
      level: ['warn', 'error'], agentId: ['agt_1', 'agt_2'], userId: ['a,b'], search: '50% & <b>', since: '-15m', entry: 'log_1',
    });
  });

  it('stays readable', () => {
    expect(printUrlSearch({ level: ['warn', 'error'], since: '2026-09-01T10:00:00.000Z', search: 'a b', until: undefined })).toBe(
      '?level=warn,error&since=2026-09-01T10:00:00.000Z&search=a+b',
    );
    expect(printUrlSearch({})).toBe('');
  });

  it('leaves out what it does not know', () => {
    expect(readSearch({ level: 'fatal', since: 'yesterdayish', at: 'x', agentId: '', bogus: '1', search: 7, until: ['a'], nodeId: 'n'.repeat(300) })).toEqual({});
    expect(readSearch({ search: 'x'.repeat(1000) }).search).toHaveLength(512);
  });
});

describe('the API query', () => {
  const now = Date.parse('2026-09-01T10:00:00Z');

  it('fixes relative times and repeats lists', () => {
    const query = logsQuery(readSearch({ since: '-15m', level: 'error', userId: ['a,b', 'c'], search: 'x y' }), now);
    expect(queryString(query)).toBe('?userId=a%2Cb&userId=c&level=error&search=x+y&since=2026-09-01T09%3A45%3A00.000Z');
  });

  it('gives a stream no times', () => {
    expect(queryString(streamQuery(readSearch({ since: '-15m', level: 'error', agentId: 'agt_1' })))).toBe('?agentId=agt_1&level=error');
  });

  it('is live unless the view has an end', () => {
    expect([isLive({}), isLive({ since: '-1h' }), isLive({ until: '2026-09-01' }), isLive({ at: '2026-09-01T10:00:00Z' })]).toEqual([true, true, false, false]);
    expect([isFiltered({}), isFiltered({ search: 'x' })]).toEqual([false, true]);
  });
});

describe('changes', () => {
  it('toggles levels; none and all are the same', () => {
    expect(toggleLevel({}, 'error')).toEqual(['error']);
    expect(toggleLevel({ level: ['error'] }, 'debug')).toEqual(['debug', 'error']);
    expect(toggleLevel({ level: ['error'] }, 'error')).toBeUndefined();
    expect(toggleLevel({ level: ['info', 'warn', 'error'] }, 'debug')).toBeUndefined();
  });

  it('adds and removes list values', () => {
    expect(withValue(['a'], 'b')).toEqual(['a', 'b']);
    expect(withValue(['a'], 'a')).toEqual(['a']);
    expect(without(['a', 'b'], 'a')).toEqual(['b']);
    expect(without(['a'], 'a')).toBeUndefined();
  });
});
