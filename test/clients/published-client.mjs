// What the published package and the examples of the documentation do, rule
// by rule. Where it is odd, the published client is.
import { setTimeout as wait } from 'node:timers/promises';
import { WebSocket } from './websocket.mjs';

export class TheazoError extends Error {
  constructor(status, body) {
    const error = body?.error ?? {};
    super(error.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error.code;
    this.details = error.details;
    this.requestIdInside = error.requestId; // where the documentation looks
    this.requestIdBeside = body?.requestId; // where the package looks
  }
}

export class Theazo {
  constructor({ apiKey, baseUrl, retryDelays = [1000, 2000], timeout = 30_000 }) {
    Object.assign(this, { apiKey, baseUrl, retryDelays, timeout });
    this.logs = { query: (filters) => this.#query(filters), stream: (filters) => this.#socket(filters), sse: (filters) => this.#sse(filters) };
  }

  get headers() {
    return { Authorization: `Bearer ${this.apiKey}`, 'Content-Type': 'application/json', 'X-SDK-Version': '0.1.6' };
  }

  url(path, parameters = {}) {
    const url = new URL(path, this.baseUrl);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  }

  // 429 and 5xx are tried twice more, after 1 s and 2 s; nothing else is.
  async request(method, path, { parameters, body } = {}) {
    for (let attempt = 0; ; attempt += 1) {
      const response = await fetch(this.url(path, parameters), {
        method,
        headers: this.headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(this.timeout),
      });
      if (response.ok) return response.status === 204 ? undefined : response.json();
      const retry = response.status === 429 || response.status >= 500;
      if (!retry || attempt >= this.retryDelays.length) {
        throw new TheazoError(response.status, await response.json().catch(() => undefined));
      }
      await response.body?.cancel();
      await wait(this.retryDelays[attempt]);
    }
  }

  async #query(filters) {
    const page = await this.request('GET', '/v1/logs', { parameters: filters });
    return { logs: page.data, total: page.total, page };
  }

  // The SSE reader of the package: it splits on line feeds, takes lines that
  // begin with "data: ", parses each as JSON and yields it; [DONE] ends it.
  async *#sse(filters) {
    const abort = new AbortController();
    try {
      const response = await fetch(this.url('/v1/logs/stream', filters), { headers: this.headers, signal: abort.signal });
      if (!response.ok) throw new TheazoError(response.status, await response.json().catch(() => undefined));
      let buffer = '';
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        buffer += chunk;
        const lines = buffer.split('\n');
        buffer = lines.pop();
        for (const line of lines) {
          if (!line.startsWith('data: ')) continue;
          const data = line.slice('data: '.length);
          if (data === '[DONE]') return;
          yield JSON.parse(data);
        }
      }
    } finally {
      abort.abort();
    }
  }

  // The WebSocket of the documentation: one LogEntry per message. A browser
  // can send no header, so the credential goes into the URL.
  async *#socket(filters) {
    const url = this.url('/v1/logs/stream', { ...filters, token: this.apiKey });
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url.href);
    yield* messages(socket);
  }
}

// messages yields each message of a socket, parsed, and closes it at the end.
export async function* messages(socket) {
  const queue = [];
  let wake = () => {};
  let ended;
  socket.addEventListener('message', (event) => { queue.push(JSON.parse(event.data)); wake(); });
  socket.addEventListener('error', (event) => { ended ??= event.error ?? new Error('the socket failed'); wake(); });
  socket.addEventListener('close', (event) => { ended ??= new Error(`closed with ${event.code}`); wake(); });
  try {
    for (;;) {
      while (queue.length > 0) yield queue.shift();
      if (ended) throw ended;
      await new Promise((resolve) => { wake = resolve; });
    }
  } finally {
    if (!ended) socket.close();
  }
}

// A browser's EventSource (as far as tests need it): events by name, the last
// id kept and sent when it reconnects.
export class EventSourceLike {
  lastEventId = '';
  retry = 3000;
  #listeners = new Map();
  #abort = new AbortController();

  constructor(url) {
    this.done = this.#run(url);
  }

  addEventListener(kind, listener) {
    this.#listeners.set(kind, [...(this.#listeners.get(kind) ?? []), listener]);
  }

  close() {
    this.#abort.abort();
    return this.done;
  }

  async #run(url) {
    while (!this.#abort.signal.aborted) {
      try {
        const headers = { Accept: 'text/event-stream', 'Cache-Control': 'no-store' };
        if (this.lastEventId !== '') headers['Last-Event-ID'] = this.lastEventId;
        const response = await fetch(url, { headers, signal: this.#abort.signal });
        this.status = response.status;
        if (response.status !== 200 || !response.headers.get('content-type')?.startsWith('text/event-stream')) return;
        await this.#read(response.body.pipeThrough(new TextDecoderStream()));
        await wait(this.retry, undefined, { signal: this.#abort.signal });
      } catch {
        if (!this.#abort.signal.aborted) await wait(this.retry).catch(() => {});
      }
    }
  }

  async #read(chunks) {
    let buffer = '';
    let event = { type: 'message', data: [] };
    for await (const chunk of chunks) {
      buffer += chunk;
      const lines = buffer.split(/\r\n|\n|\r/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (event.data.length > 0) this.#dispatch(event);
          event = { type: 'message', data: [] };
          continue;
        }
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'event') event.type = value;
        else if (field === 'data') event.data.push(value);
        else if (field === 'id' && !value.includes('\0')) this.lastEventId = value;
        else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
      }
    }
  }

  #dispatch({ type, data }) {
    for (const listener of this.#listeners.get(type) ?? []) listener({ type, data: data.join('\n'), lastEventId: this.lastEventId });
  }
}
