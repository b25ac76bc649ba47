// What the published package and the examples of the documentation do, rule
// by rule. Where it is odd, the published client is. Like the package, it
// believes that an answer is what contract.ts says; the tests look.
import { setTimeout as wait } from 'node:timers/promises';
import type { ApiError, ErrorCode, LogEntry, LogFilters, LogPage, StreamedEntry, StreamFilters } from './contract.js';
import { type Socket, WebSocket } from './websocket.js';

type Parameters = Readonly<Record<string, string | number | undefined>>;

export class TheazoError extends Error {
  readonly status: number;
  readonly code: ErrorCode | undefined;
  readonly details: ApiError['error']['details'] | undefined;
  readonly requestIdInside: string | undefined; // where the documentation looks
  readonly requestIdBeside: string | undefined; // where the package looks

  constructor(status: number, body: ApiError | undefined) {
    super(body?.error.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = body?.error.code;
    this.details = body?.error.details;
    this.requestIdInside = body?.error.requestId;
    this.requestIdBeside = body?.requestId;
  }

  static async of(response: Response): Promise<TheazoError> {
    // Something on the way may have answered, with a page for people.
    const body = await response.json().catch(() => undefined) as ApiError | undefined;
    return new TheazoError(response.status, body?.error === undefined ? undefined : body);
  }
}

export interface Options {
  apiKey: string;
  baseUrl: string;
  retryDelays?: readonly number[];
  timeout?: number;
}

export class Theazo {
  readonly logs = {
    query: (filters: LogFilters) => this.#query(filters),
    stream: (filters: StreamFilters) => this.#socket(filters),
    sse: (filters: StreamFilters) => this.#sse(filters),
  };
  readonly #apiKey: string;
  readonly #baseUrl: string;
  readonly #retryDelays: readonly number[];
  readonly #timeout: number;

  constructor({ apiKey, baseUrl, retryDelays = [1000, 2000], timeout = 30_000 }: Options) {
    this.#apiKey = apiKey;
    this.#baseUrl = baseUrl;
    this.#retryDelays = retryDelays;
    this.#timeout = timeout;
  }

  get #headers(): Record<string, string> {
    return { Authorization: `Bearer ${this.#apiKey}`, 'Content-Type': 'application/json', 'X-SDK-Version': '0.1.6' };
  }

  #url(path: string, parameters: Parameters = {}): URL {
    const url = new URL(path, this.#baseUrl);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  }

  // 429 and 5xx are tried twice more, after 1 s and 2 s; nothing else is.
  async request<T>(method: string, path: string, { parameters, body }: { parameters?: Parameters; body?: unknown } = {}): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      const response = await fetch(this.#url(path, parameters), {
        method,
        headers: this.#headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal: AbortSignal.timeout(this.#timeout),
      });
      if (response.ok) return (response.status === 204 ? undefined : await response.json()) as T;
      const delay = this.#retryDelays[attempt];
      const retry = response.status === 429 || response.status >= 500;
      if (!retry || delay === undefined) throw await TheazoError.of(response);
      await response.body?.cancel();
      await wait(delay);
    }
  }

  async #query(filters: LogFilters): Promise<{ logs: LogEntry[]; total: number; page: LogPage }> {
    const page = await this.request<LogPage>('GET', '/v1/logs', { parameters: filters });
    return { logs: page.data, total: page.total, page };
  }

  // The SSE reader of the package: it splits on line feeds, takes lines that
  // begin with "data: ", parses each as JSON and yields it; [DONE] ends it.
  async *#sse(filters: StreamFilters): AsyncGenerator<StreamedEntry, void, undefined> {
    const abort = new AbortController();
    try {
      const response = await fetch(this.#url('/v1/logs/stream', filters), { headers: this.#headers, signal: abort.signal });
      if (!response.ok) throw await TheazoError.of(response);
      let buffer = '';
      for await (const chunk of textOf(response)) {
        const lines = (buffer + chunk).split('\n');
        buffer = lines.pop() ?? '';
        for (const line of lines) {
          if (!line.startsWith('data: ')) continue;
          const data = line.slice('data: '.length);
          if (data === '[DONE]') return;
          yield JSON.parse(data) as StreamedEntry;
        }
      }
    } finally {
      abort.abort();
    }
  }

  // The WebSocket of the documentation: one LogEntry per message. A browser
  // can send no header, so the credential goes into the URL.
  async *#socket(filters: StreamFilters): AsyncGenerator<StreamedEntry, void, undefined> {
    const url = this.#url('/v1/logs/stream', { ...filters, token: this.#apiKey });
    url.protocol = url.protocol.replace('http', 'ws');
    yield* messages<StreamedEntry>(new WebSocket(url.href));
  }
}

// textOf yields the body of a response, decoded, as it comes.
export async function* textOf(response: Response): AsyncGenerator<string, void, undefined> {
  if (response.body === null) return;
  const decoder = new TextDecoder();
  for await (const chunk of response.body) yield decoder.decode(chunk, { stream: true });
}

// messages yields each message of a socket, parsed, and closes it at the end.
export async function* messages<T>(socket: Socket): AsyncGenerator<T, never, undefined> {
  const queue: T[] = [];
  let wake = (): void => {};
  let ended: Error | undefined;
  socket.addEventListener('message', (event) => { queue.push(JSON.parse(event.data) as T); wake(); });
  socket.addEventListener('error', (event) => { ended ??= event.error ?? new Error('the socket failed'); wake(); });
  socket.addEventListener('close', (event) => { ended ??= new Error(`closed with ${event.code}`); wake(); });
  try {
    for (;;) {
      for (let message = queue.shift(); message !== undefined; message = queue.shift()) yield message;
      if (ended) throw ended;
      await new Promise<void>((resolve) => { wake = resolve; });
    }
  } finally {
    if (!ended) socket.close();
  }
}

export interface ServerEvent {
  type: string;
  data: string;
  lastEventId: string;
}

// A browser's EventSource (as far as tests need it): events by name, the last
// id kept and sent when it reconnects.
export class EventSourceLike {
  lastEventId = '';
  retry = 3000;
  readonly #listeners = new Map<string, ((event: ServerEvent) => void)[]>();
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;

  constructor(url: string) {
    this.#done = this.#run(url);
  }

  addEventListener(kind: string, listener: (event: ServerEvent) => void): void {
    this.#listeners.set(kind, [...(this.#listeners.get(kind) ?? []), listener]);
  }

  close(): Promise<void> {
    this.#abort.abort();
    return this.#done;
  }

  async #run(url: string): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        const headers: Record<string, string> = { Accept: 'text/event-stream', 'Cache-Control': 'no-store' };
        if (this.lastEventId !== '') headers['Last-Event-ID'] = this.lastEventId;
        const response = await fetch(url, { headers, signal });
        if (response.status !== 200 || !response.headers.get('content-type')?.startsWith('text/event-stream')) return;
        await this.#read(textOf(response));
      } catch {
        // The connection broke, or close was called: the loop looks which.
      }
      await wait(this.retry, undefined, { signal }).catch(() => {});
    }
  }

  async #read(chunks: AsyncIterable<string>): Promise<void> {
    let buffer = '';
    let type = 'message';
    let data: string[] = [];
    for await (const chunk of chunks) {
      const lines = (buffer + chunk).split(/\r\n|\n|\r/);
      buffer = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') {
          if (data.length > 0) this.#dispatch(type, data.join('\n'));
          [type, data] = ['message', []];
          continue;
        }
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'event') type = value;
        else if (field === 'data') data.push(value);
        else if (field === 'id' && !value.includes('\0')) this.lastEventId = value;
        else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
      }
    }
  }

  #dispatch(type: string, data: string): void {
    for (const listener of this.#listeners.get(type) ?? []) listener({ type, data, lastEventId: this.lastEventId });
  }
}
