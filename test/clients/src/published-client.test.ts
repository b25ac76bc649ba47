import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { Envelope, Heartbeat, LogEntry, StreamedEntry, StreamToken } from './contract.js';
import { EventSourceLike, messages, type ServerEvent, textOf, Theazo, TheazoError } from './published-client.js';
import { MinimalWebSocket, WebSocket } from './websocket.js';

const baseUrl = setting('THEAZO_URL');
const apiKey = setting('THEAZO_API_KEY');
const agentId = setting('THEAZO_AGENT_ID');
const sessionId = setting('THEAZO_SESSION_ID');
const theazo = new Theazo({ apiKey, baseUrl });
// A loaded machine is slow; a hanging test must still end.
const patience = { timeout: 120_000 };

function setting(name: string): string {
  const value = process.env[name];
  assert.ok(value, `set ${name}: README.md says how to run this`);
  return value;
}

const isoMillis = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

// assertEntry looks whether an entry is what its type promises.
function assertEntry(entry: LogEntry): void {
  assert.match(entry.id, /^log_/);
  assert.match(entry.timestamp, isoMillis);
  assert.ok(['debug', 'info', 'warn', 'error'].includes(entry.level), entry.level);
  assert.ok(['agent', 'system', 'provider', 'model'].includes(entry.source), entry.source);
  assert.equal(typeof entry.agentId, 'string');
  assert.equal(typeof entry.message, 'string');
}

function assertStreamed(entry: StreamedEntry): void {
  assertEntry(entry);
  assert.match(entry.cursor, /^\d+-\d+$/);
}

// refusal returns the error that a call must end with.
async function refusal(call: Promise<unknown>): Promise<TheazoError> {
  const error: unknown = await call.then(() => 'it was answered', (reason: unknown) => reason);
  assert.ok(error instanceof TheazoError, String(error));
  return error;
}

function streamToken(): Promise<StreamToken> {
  return theazo.request<StreamToken>('POST', '/v1/stream-tokens', { body: { agentId } });
}

async function take<T>(stream: AsyncIterable<T>, count: number): Promise<T[]> {
  const taken: T[] = [];
  for await (const entry of stream) {
    taken.push(entry);
    if (taken.length === count) break;
  }
  return taken;
}

test('logs.query maps data and total', patience, async () => {
  const { logs, total, page } = await theazo.logs.query({ agentId, sessionId, since: '2025-05-01T00:00:00Z', limit: 5, offset: 0 });
  assert.ok(logs.length >= 1 && logs.length <= 5 && total >= logs.length);
  assert.equal(typeof page.hasMore, 'boolean');
  for (const entry of logs) {
    assertEntry(entry);
    assert.equal(entry.agentId, agentId);
    assert.equal(entry.sessionId, sessionId);
  }
});

test('logs.query filters by level exactly, by text, and by time', patience, async () => {
  const { logs } = await theazo.logs.query({ agentId, level: 'info', limit: 100 });
  assert.ok(logs.every((entry) => entry.level === 'info'));
  const none = await theazo.logs.query({ agentId, search: 'no line holds this: 5f1c0f' });
  assert.deepEqual([none.logs, none.total], [[], 0]);
  const old = await theazo.logs.query({ agentId, until: '2001-01-01' });
  assert.equal(old.total, 0);
  const [entry] = (await theazo.logs.query({ agentId, limit: 1 })).logs;
  assert.ok(entry);
  const found = await theazo.logs.query({ agentId, search: entry.message.slice(0, 20).toUpperCase() });
  assert.ok(found.total >= 1);
});

test('logs.query pages without a line twice', patience, async () => {
  const until = new Date().toISOString();
  const seen = new Set<string>();
  let cursor: string | null = null;
  for (let pages = 0; pages < 3; pages += 1) {
    const { logs, page }: Awaited<ReturnType<typeof theazo.logs.query>> = await theazo.logs.query({ agentId, until, limit: 2, ...(cursor !== null && { cursor }) });
    for (const { id } of logs) assert.ok(!seen.has(id) && seen.add(id), id);
    if (!page.hasMore) break;
    cursor = page.cursor;
  }
  assert.ok(seen.size > 0);
});

test('errors carry code, field and request id in both places', patience, async () => {
  const bad = await refusal(theazo.request('GET', '/v1/logs', { parameters: { agentId, level: 'loud' } }));
  assert.deepEqual([bad.status, bad.code, bad.details?.errors?.[0]?.field], [400, 'invalid_request', 'level']);
  assert.match(bad.requestIdInside ?? '', /^req_/);
  assert.equal(bad.requestIdInside, bad.requestIdBeside);
  const missing = await refusal(theazo.request('GET', '/v1/agents/agt_of_nobody'));
  assert.deepEqual([missing.status, missing.code], [404, 'not_found']);
  const unknown = await refusal(new Theazo({ apiKey: 'th_live_wrong', baseUrl }).logs.query({}));
  assert.deepEqual([unknown.status, unknown.code], [401, 'unauthorized']);
});

test('the SSE reader of the package sees entries and nothing else', patience, async () => {
  for (const entry of await take(theazo.logs.sse({ agentId, tail: 1 }), 3)) {
    assertEntry(entry);
    assert.equal(entry.agentId, agentId);
  }
});

test('logs.stream is one entry per WebSocket message', patience, async () => {
  for (const entry of await take(theazo.logs.stream({ agentId, sessionId }), 2)) {
    assertStreamed(entry);
  }
});

test('a WebSocket with theazo.logs.v1 subscribes, and resumes where it was', patience, async () => {
  const url = new URL('/v1/logs/stream', baseUrl).href.replace('http', 'ws');
  const entriesAfter = async (after: { tail: number } | { after: string }) => {
    const socket = new WebSocket(url, ['theazo.logs.v1', `theazo.token.${(await streamToken()).token}`]);
    await once(socket, 'open');
    assert.equal(socket.protocol, 'theazo.logs.v1');
    socket.send(JSON.stringify({ type: 'subscribe', id: 's', filters: { agentId }, ...after }));
    const taken: Extract<Envelope, { type: 'log' }>[] = [];
    for await (const message of messages<Envelope | Envelope[]>(socket)) {
      for (const envelope of [message].flat()) {
        assert.equal(envelope.sub, 's', JSON.stringify(envelope));
        if (envelope.type === 'log') taken.push(envelope);
      }
      if (taken.length >= 2) break;
    }
    return taken;
  };
  const [first, second] = await entriesAfter({ tail: 2 });
  assert.ok(first && second);
  assertEntry(first.entry);
  const [again] = await entriesAfter({ after: first.cursor });
  assert.equal(again?.entry.id, second.entry.id);
});

test('a browser reads the agent stream with a token, and resumes without a gap', patience, async () => {
  const { token, expiresAt } = await streamToken();
  assert.match(token, /^thz_/);
  assert.match(expiresAt, isoMillis);
  const url = `${baseUrl}/v1/agents/${agentId}/logs/stream?tail=1&token=${token}`;
  const seen: StreamedEntry[] = [];
  const kinds = new Set<string>();
  const source = new EventSourceLike(url);
  for (const kind of ['ready', 'log', 'heartbeat', 'gap']) source.addEventListener(kind, () => kinds.add(kind));
  await new Promise<void>((resolve) => {
    source.addEventListener('log', ({ data, lastEventId }) => {
      const entry = JSON.parse(data) as StreamedEntry;
      assertStreamed(entry);
      assert.equal(entry.cursor, lastEventId);
      seen.push(entry);
      if (seen.length === 3) resolve();
    });
  });
  assert.ok(kinds.has('ready') && !kinds.has('gap'));
  assert.equal(source.retry, 2000);
  await source.close();

  // What EventSource does when a connection breaks: the same URL with
  // Last-Event-ID. From the first line it must get the second.
  const [first, second] = seen;
  assert.ok(first && second);
  const response = await fetch(url, { headers: { Accept: 'text/event-stream', 'Last-Event-ID': first.cursor } });
  assert.equal(response.status, 200);
  let text = '';
  for await (const chunk of textOf(response)) {
    text += chunk;
    if (/^data: .*\n/m.test(text)) break;
  }
  const resumed = JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? 'null') as LogEntry | null;
  assert.equal(resumed?.id, second.id);
});

test('a heartbeat comes every 15 s and is no entry for the package', patience, async () => {
  const source = new EventSourceLike(`${baseUrl}/v1/logs/stream?search=no-line-holds-this-5f1c0f&token=${apiKey}`);
  const beat = await new Promise<ServerEvent>((resolve) => { source.addEventListener('heartbeat', resolve); });
  assert.match((JSON.parse(beat.data) as Heartbeat).timestamp, isoMillis);
  assert.match(beat.lastEventId, /^\d+-\d+$/);
  await source.close();
});

test('a token opens no other agent, and is refused outside of streams', patience, async () => {
  const { token } = await streamToken();
  const status = async (path: string) => {
    const response = await fetch(`${baseUrl}${path}`);
    await response.body?.cancel();
    return response.status;
  };
  assert.equal(await status(`/v1/agents/agt_of_nobody/logs/stream?token=${token}`), 404);
  assert.equal(await status(`/v1/logs/stream?agentId=agt_of_nobody&token=${token}`), 404);
  assert.equal(await status(`/v1/logs?token=${token}`), 400);
  assert.equal(await status('/v1/logs/stream?token=thz_x'), 401);
});

test('the client retries 429 and 5xx twice, and nothing else', patience, async () => {
  const answers: number[] = [];
  let calls = 0;
  const server = http.createServer((request, response) => {
    calls += 1;
    assert.equal(request.headers['x-sdk-version'], '0.1.6');
    response.writeHead(answers.shift() ?? 200, { 'Content-Type': 'application/json' }).end('{"data":[],"total":0}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new Theazo({ apiKey, baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, retryDelays: [1, 2] });
  try {
    answers.push(503, 429);
    await client.logs.query({});
    assert.equal(calls, 3);
    answers.push(500, 500, 500);
    assert.equal((await refusal(client.logs.query({}))).status, 500);
    assert.equal(calls, 6);
    answers.push(404);
    assert.equal((await refusal(client.logs.query({}))).status, 404);
    assert.equal(calls, 7);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test('the minimal WebSocket reads messages of every length', patience, async () => {
  const socket = new MinimalWebSocket(`${baseUrl.replace('http', 'ws')}/v1/logs/stream?tail=20&token=${apiKey}`);
  for (const entry of await take(messages<StreamedEntry>(socket), 2)) assertStreamed(entry);
});
