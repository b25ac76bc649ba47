import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { LogEntry } from '../api/types';
import { contextOf, curlOfEntry, curlOfView, jsonOf, permalink, shellWord } from './copies';
import { parseUrlSearch, readSearch } from './filters';

const entry: LogEntry = {
  id: 'log_1', timestamp: '2026-09-01T10:00:00.123Z', level: 'info', agentId: 'agt_1', sessionId: 'ses_1', source: 'agent', message: 'm', cursor: '1-5',
};
const origin = 'https://logs.example';

describe('copied texts', () => {
  it('quotes whatever a log author put into a value', () => {
    for (const text of ["it's $(id) `id` \"x\"; rm -rf /", '', 'plain', "''", 'a\nb', '-n', '$HOME', 'ä 日本']) {
      expect(execFileSync('/bin/sh', ['-c', `printf %s ${shellWord(text)}`], { encoding: 'utf8' })).toBe(text);
    }
  });

  it('asks for the view with its times fixed', () => {
    const now = Date.parse('2026-09-01T10:00:00Z');
    expect(curlOfView({ level: ['error'], since: '-15m', userId: ["o'hara"] }, now, origin)).toBe(
      `curl -sS -H "Authorization: Bearer $THEAZO_API_KEY" '${origin}/v1/logs?userId=o%27hara&level=error&since=2026-09-01T09%3A45%3A00.000Z&limit=1000'`,
    );
  });

  it('asks for the one line by its millisecond', () => {
    expect(curlOfEntry(entry, origin)).toContain('/v1/logs?agentId=agt_1&sessionId=ses_1&since=2026-09-01T10%3A00%3A00.123Z&until=2026-09-01T10%3A00%3A00.124Z');
  });

  it('links to the line among its neighbours', () => {
    const url = new URL(permalink(entry, origin));
    expect([url.origin, url.pathname]).toEqual([origin, '/logs']);
    expect(readSearch(parseUrlSearch(url.search))).toEqual(contextOf(entry));
  });

  it('leaves the position of one stream out of the JSON', () => {
    expect(JSON.parse(jsonOf(entry))).toEqual({ ...entry, cursor: undefined });
  });
});
