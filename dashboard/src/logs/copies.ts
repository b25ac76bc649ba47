import { queryString, type QueryValue } from '../api/client';
import { prettyJson } from '../api/json';
import type { LogEntry } from '../api/types';
import { logsQuery, printUrlSearch, streamQuery, type Filters } from './filters';

/** The texts that the copy buttons put on the clipboard. */

/** A word for a POSIX shell, whatever is in it: log data can end up here. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(path: string, query: Record<string, QueryValue>, origin: string): string {
  return `curl -sS -H "Authorization: Bearer $THEAZO_API_KEY" ${shellWord(`${origin}${path}${queryString(query)}`)}`;
}

/** The view: its newest page, or its stream around no fixed time. */
export function curlOfView(filters: Filters, now = Date.now(), origin = location.origin): string {
  return curl('/v1/logs', { ...logsQuery(filters, now), limit: '1000' }, origin);
}

/** The one line: its agent and session within its millisecond. */
export function curlOfEntry(entry: LogEntry, origin = location.origin): string {
  const at = Date.parse(entry.timestamp);
  const times = Number.isNaN(at) ? {} : { since: new Date(at).toISOString(), until: new Date(at + 1).toISOString() };
  return curl('/v1/logs', { ...streamQuery(originOf(entry)), ...times }, origin);
}

/** A link that shows the line among its neighbours, wherever it is in time. */
export function permalink(entry: LogEntry, origin = location.origin): string {
  return `${origin}/logs${printUrlSearch({ ...contextOf(entry) })}`;
}

/** The view around a line: its whole agent and session, no other filter. */
export function contextOf(entry: LogEntry): Filters & { entry: string; time: string } {
  return { ...originOf(entry), at: entry.timestamp, entry: entry.id, time: entry.timestamp };
}

function originOf(entry: LogEntry): Filters {
  return { agentId: [entry.agentId], ...(entry.sessionId ? { sessionId: [entry.sessionId] } : {}) };
}

export function jsonOf(entry: LogEntry): string {
  const { cursor: _, ...rest } = entry;
  return prettyJson(rest);
}
