import { LEVELS, type Level } from '../api/types';
import type { QueryValue } from '../api/client';

/**
 * What the Logs page shows is its URL: everything here is a search parameter,
 * under the API's own names, and filters are evaluated by the server.
 */
export const FIELD_FILTERS = ['agentId', 'sessionId', 'userId', 'provider', 'nodeId', 'sandboxId', 'traceId', 'spanId', 'stream', 'source'] as const;
export type FieldFilter = (typeof FIELD_FILTERS)[number];

export const FIELD_LABELS: Readonly<Record<FieldFilter, string>> = {
  agentId: 'Agent', sessionId: 'Session', userId: 'User', provider: 'Provider', nodeId: 'Node', sandboxId: 'Sandbox',
  traceId: 'Trace', spanId: 'Span', stream: 'Stream', source: 'Source',
};

export interface Filters extends Partial<Record<FieldFilter, readonly string[]>> {
  level?: readonly Level[];
  search?: string;
  /** RFC 3339, a date, or relative like -15m. */
  since?: string;
  until?: string;
  /** Show the lines around this moment. */
  at?: string;
}

export interface LogsSearch extends Filters {
  /** The line whose panel is open, and its time, to find it again when it is not loaded. */
  entry?: string;
  time?: string;
}

const longestSearch = 512;
const longestValue = 256;

/** Reads the URL. What is unknown or malformed is left out: a URL is input. */
export function readSearch(raw: Readonly<Record<string, unknown>>): LogsSearch {
  const search: LogsSearch = {};
  for (const field of FIELD_FILTERS) {
    const values = list(raw[field]);
    if (values.length > 0) search[field] = values;
  }
  const levels = LEVELS.filter((level) => list(raw.level).some((value) => value.split(',').includes(level)));
  if (levels.length > 0) search.level = levels;
  const text = one(raw.search);
  if (text) search.search = text.slice(0, longestSearch);
  const since = one(raw.since);
  if (since && isTime(since)) search.since = since;
  const until = one(raw.until);
  if (until && isTime(until)) search.until = until;
  const at = one(raw.at);
  if (at && !Number.isNaN(Date.parse(at))) search.at = at;
  const entry = one(raw.entry);
  if (entry) search.entry = entry;
  const time = one(raw.time);
  if (time && !Number.isNaN(Date.parse(time))) search.time = time;
  return search;
}

export function filtersOf({ entry: _entry, time: _time, ...filters }: LogsSearch): Filters {
  return filters;
}

/** The filters that choose lines whatever their time: what a stream takes. */
export function streamQuery(filters: Filters): Record<string, QueryValue> {
  const query: Record<string, QueryValue> = {};
  for (const field of FIELD_FILTERS) query[field] = filters[field];
  query.level = filters.level;
  query.search = filters.search;
  return query;
}

/** The API query of a view. Relative times are fixed at `now`, so that all pages of a view mean the same. */
export function logsQuery(filters: Filters, now: number): Record<string, QueryValue> {
  return { ...streamQuery(filters), since: fixed(filters.since, now), until: fixed(filters.until, now) };
}

/** Whether new lines belong into the view: not if it ends at some time. */
export function isLive(filters: Filters): boolean {
  return filters.until === undefined && filters.at === undefined;
}

export function isFiltered(filters: Filters): boolean {
  return Object.entries(filters).some(([, value]) => value !== undefined);
}

export function toggleLevel(filters: Filters, level: Level): readonly Level[] | undefined {
  const now = new Set(filters.level);
  if (!now.delete(level)) now.add(level);
  const levels = LEVELS.filter((one) => now.has(one));
  return levels.length === 0 || levels.length === LEVELS.length ? undefined : levels;
}

/** A list filter without one of its values; undefined when none is left. */
export function without(values: readonly string[] | undefined, value: string): readonly string[] | undefined {
  const rest = values?.filter((one) => one !== value) ?? [];
  return rest.length > 0 ? rest : undefined;
}

export function withValue(values: readonly string[] | undefined, value: string): readonly string[] {
  return values?.includes(value) ? values : [...(values ?? []), value];
}

const relative = /^-(\d{1,6})([smhd])$/;
const unitMs: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

function isTime(value: string): boolean {
  return relative.test(value) || !Number.isNaN(Date.parse(value));
}

function fixed(value: string | undefined, now: number): string | undefined {
  const match = value === undefined ? null : relative.exec(value);
  if (!match) return value;
  return new Date(now - Number(match[1]) * (unitMs[match[2] ?? 'm'] ?? 0)).toISOString();
}

function list(value: unknown): string[] {
  const values = Array.isArray(value) ? value : [value];
  const strings = values.filter((item): item is string => typeof item === 'string' && item !== '' && item.length <= longestValue);
  return [...new Set(strings)].slice(0, 50);
}

function one(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** The router's search parameters: plain text, repeated for lists, nothing encoded as JSON. */
export function parseUrlSearch(text: string): Record<string, string | string[]> {
  const out: Record<string, string | string[]> = {};
  for (const [name, value] of new URLSearchParams(text)) {
    const before = out[name];
    out[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
  }
  return out;
}

export function printUrlSearch(search: Readonly<Record<string, unknown>>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(search)) {
    if (name === 'level' && Array.isArray(value)) params.append(name, value.join(','));
    else if (Array.isArray(value)) value.forEach((item) => params.append(name, String(item)));
    else if (value !== undefined && value !== null && value !== '') params.append(name, String(value));
  }
  // Readable where the standard allows it.
  const text = params.toString().replaceAll('%3A', ':').replaceAll('%2C', ',');
  return text && `?${text}`;
}
