/** The JSON that the aggregator answers with. Field names are the API's own. */

export const LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type Level = (typeof LEVELS)[number];

export interface LogEntry {
  id: string;
  timestamp: string;
  level: Level;
  agentId: string;
  sessionId?: string;
  userId?: string;
  provider?: string;
  sandboxId?: string;
  stream?: string;
  source: string;
  message: string;
  metadata?: unknown;
  traceId?: string;
  spanId?: string;
  levelInferred?: boolean;
  truncated?: boolean;
  nodeId?: string;
  seq?: number;
  observedAt?: string;
  cursor?: string;
}

/** A record of lines that are missing. `count` is -1 where nobody can know. */
export interface Gap {
  reason: string;
  count: number;
  bytes?: number;
  since?: string;
  until?: string;
  firstSeq?: number;
  lastSeq?: number;
  agentId?: string;
  sessionId?: string;
  sandboxId?: string;
  detail?: string;
  nodeId?: string;
  observedAt?: string;
  cursor?: string;
  /** Only for this reader's own gap (reason slow_reader): where the stream jumped, and the query for the lines. */
  from?: string;
  to?: string;
  href?: string;
}

export interface LogPage {
  data: LogEntry[];
  total: number;
  totalIsExact: boolean;
  hasMore: boolean;
  cursor: string | null;
  streamCursor: string;
  gaps?: Gap[];
}

export interface Listing<T> {
  data: T[];
  hasMore: boolean;
  cursor: string | null;
}

export interface Agent {
  id: string;
  sessionId?: string;
  userId?: string;
  status: string;
  provider?: string;
  sandboxId?: string;
  nodeId?: string;
  createdAt: string;
  firstLogAt?: string;
  lastLogAt?: string;
}

export interface Session {
  id: string;
  userId?: string;
  status: string;
  environment: string;
  metadata?: unknown;
  createdAt: string;
  firstLogAt?: string;
  lastLogAt?: string;
}

export interface Me {
  organisation: { id: string; name: string; mode: string };
  environment: string;
  key: { id: string; name: string; permissions: string[] };
}
