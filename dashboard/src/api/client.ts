import { parseJson } from './json';

/** An answer that was not a success, or no answer at all (status 0). */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly requestId: string;
  readonly fields: { field: string; detail: string }[];

  constructor(status: number, code: string, message: string, requestId = '', fields: { field: string; detail: string }[] = []) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.requestId = requestId;
    this.fields = fields;
  }
}

interface Envelope {
  error?: { code?: string; message?: string; requestId?: string; details?: { errors?: { field: string; detail: string }[] } };
}

type Listener = () => void;
const unauthorized = new Set<Listener>();

/** Calls the listener whenever the session turns out to be missing or over. */
export function onUnauthorized(listener: Listener): () => void {
  unauthorized.add(listener);
  return () => unauthorized.delete(listener);
}

export type QueryValue = string | readonly string[] | undefined;

/** Lists become repeated parameters: a user id may contain a comma. */
export function queryString(query: Readonly<Record<string, QueryValue>>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === '') continue;
    for (const one of typeof value === 'string' ? [value] : value) params.append(name, one);
  }
  const text = params.toString();
  return text && `?${text}`;
}

interface RequestOptions {
  method?: 'GET' | 'POST';
  body?: unknown;
  signal?: AbortSignal;
  /** False for sign-in, where 401 is an answer and not the end of a session. */
  announceUnauthorized?: boolean;
}

export async function request<T>(path: string, options: RequestOptions = {}): Promise<T> {
  const { method = 'GET', body, signal, announceUnauthorized = true } = options;
  let response: Response;
  let text: string;
  try {
    const init: RequestInit = { method, credentials: 'same-origin', headers: { Accept: 'application/json' } };
    if (signal) init.signal = signal;
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { Accept: 'application/json', 'Content-Type': 'application/json' };
    }
    response = await fetch(path, init);
    text = await response.text();
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError(0, 'unreachable', 'The aggregator did not answer. Check that it is running and that this machine can reach it.');
  }
  if (response.ok) return (text ? parseJson<T>(text) : undefined) as T;

  const error = errorOf(response, text);
  if (error.status === 401 && announceUnauthorized) for (const listener of unauthorized) listener();
  throw error;
}

function errorOf(response: Response, text: string): ApiError {
  let envelope: Envelope = {};
  try {
    envelope = parseJson<Envelope>(text);
  } catch {
    // A proxy's page and not our envelope: the status is all there is to tell.
  }
  const error = envelope.error ?? {};
  return new ApiError(
    response.status,
    error.code ?? 'internal_error',
    error.message ?? `The aggregator answered ${response.status} ${response.statusText}`.trim(),
    error.requestId ?? response.headers.get('X-Request-Id') ?? '',
    error.details?.errors ?? [],
  );
}
