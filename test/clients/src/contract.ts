// What the API promises to the clients in the field: the JSON of the public
// documentation and of the published package.

export type Level = 'debug' | 'info' | 'warn' | 'error';
export type LogSource = 'agent' | 'system' | 'provider' | 'model';

export interface LogEntry {
  id: `log_${string}`;
  timestamp: string;
  level: Level;
  source: LogSource;
  agentId: string;
  sessionId?: string;
  userId?: string;
  provider?: string;
  message: string;
  metadata?: Record<string, unknown>;
  traceId?: string;
  spanId?: string;
  stream?: 'stdout' | 'stderr';
  nodeId?: string;
  sandboxId?: string;
  seq?: number;
}

// On streams, every entry says where to resume.
export interface StreamedEntry extends LogEntry {
  cursor: string;
}

export interface Page<T> {
  data: T[];
  hasMore: boolean;
  cursor: string | null;
}

export interface LogPage extends Page<LogEntry> {
  total: number;
}

export type StreamFilters = {
  sessionId?: string;
  agentId?: string;
  userId?: string;
  level?: Level;
  search?: string;
  tail?: number;
};

export type LogFilters = Omit<StreamFilters, 'tail'> & {
  since?: string;
  until?: string;
  limit?: number;
  offset?: number;
  cursor?: string;
};

export type ErrorCode =
  | 'invalid_request'
  | 'unauthorized'
  | 'session_limit_exceeded'
  | 'forbidden'
  | 'not_found'
  | 'conflict'
  | 'gone'
  | 'unprocessable_entity'
  | 'rate_limited'
  | 'internal_error'
  | 'provider_error'
  | 'unavailable'
  | 'timeout';

export interface FieldError {
  field: string;
  detail: string;
}

export interface ApiError {
  error: {
    code: ErrorCode;
    message: string;
    details: { errors?: FieldError[] };
    requestId: string;
  };
  requestId: string;
}

export interface StreamToken {
  token: `thz_${string}`;
  expiresAt: string;
}

export interface Heartbeat {
  timestamp: string;
}

// What a subscription of a WebSocket with theazo.logs.v1 receives, alone or as
// a list.
export type Envelope =
  | { type: 'ready'; sub: string; cursor: string; filters: LogFilters }
  | { type: 'log'; sub: string; cursor: string; entry: LogEntry }
  | { type: 'gap'; sub: string; cursor?: string; gap: { reason: string; count: number } }
  | { type: 'heartbeat'; sub: string; cursor: string; time: string }
  | { type: 'end'; sub: string; cursor: string }
  | { type: 'error'; sub: string; problem: { code: ErrorCode; message: string; errors?: FieldError[] } };
