// A stand-in for the aggregator: the fixture of the `mock` project of the
// browser tests (`npm run e2e:mock`), and something to look at while working
// on the dashboard (`npm run mock`, then open the printed address).
//
// It speaks the part of the HTTP API that the dashboard uses: sign-in by
// cookie, /v1/me, /v1/logs with filters, cursors and gaps, the event stream
// with ids, heartbeats and gaps, agents and sessions. It is no second
// implementation of the aggregator: the tests of the `real` project run
// against the real one.
//
//   MOCK_PORT   port, default 4173      MOCK_LINES  lines to begin with, default 2000
//   MOCK_RATE   new lines a second, default 5        MOCK_ENV    live or test
//
// Tests steer it by POST /mock/<what> with a JSON body: emit {entries}, gap
// {gap}, cut {} (breaks all streams), hold {on} (refuses streams), expire {}
// (ends all sessions), burst {count}, rate {perSecond}, reset {lines}, fail {times}.
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const port = Number(process.env.MOCK_PORT ?? 4173);
const apiKey = 'th_test_mockmockmockmockmockmock';
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'";
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

const sessions = new Set();
const streams = new Set();
let entries = []; // in commit order; position = index + 1
let gaps = [];
let failures = 0;
let refuseStreams = false;
let ticker;

// ---- data -----------------------------------------------------------------

const agents = [
  { id: 'agt_researcher', sessionId: 'ses_a1b2c3', userId: 'user_123', status: 'running' },
  { id: 'agt_coder', sessionId: 'ses_a1b2c3', userId: 'user_123', status: 'running' },
  { id: 'agt_browser', sessionId: 'ses_d4e5f6', userId: 'user_456', status: 'completed' },
  { id: 'agt_x7y8z9', sessionId: 'ses_d4e5f6', userId: 'user_456', status: 'failed' },
];
const messages = [
  ['info', 'Starting step 4 of 9: compare vendor prices'],
  ['debug', 'cache hit key=prompt:7f3a ttl=284s'],
  ['info', 'POST https://api.example.com/v1/chat 200 in 1 847 ms (1 204 tokens in, 318 out)'],
  ['info', '\u001b[32m✓\u001b[0m wrote \u001b[36mreports/summary.md\u001b[0m (4.2 kB)'],
  ['warn', 'rate limited by provider, retrying in 2 s (attempt 2 of 5)'],
  ['debug', 'tool call args={"path":"/workspace/src/index.ts","encoding":"utf-8"}'],
  ['error', 'Error: ENOENT: no such file or directory, open \'/workspace/data.csv\'\n    at Object.openSync (node:fs:581:18)\n    at readRows (/workspace/load.js:14:20)'],
  ['info', 'running: npm test -- --reporter=dot'],
  ['info', '  \u001b[1m42 passing\u001b[22m \u001b[90m(3s)\u001b[39m'],
  ['debug', 'heartbeat ok rss=184MB cpu=12%'],
];

let made = 0;
function makeEntry(at, over = {}) {
  const n = made++;
  const agent = agents[(n * 7 + (n >> 3)) % agents.length];
  const [level, message] = messages[(n * 3 + (n >> 2)) % messages.length];
  return {
    id: `log_${n.toString(36).padStart(8, '0')}`, timestamp: new Date(at).toISOString(), level,
    agentId: agent.id, sessionId: agent.sessionId, userId: agent.userId, provider: 'docker', sandboxId: `${(n % 4).toString(16)}f3c9a7b21de`.repeat(3),
    stream: level === 'error' ? 'stderr' : 'stdout', source: 'agent', message: n % 25 === 0 ? `line ${n}: ${message}` : message,
    ...(n % 6 === 0 ? { metadata: { step: 4, tool: 'fs.read', request: { id: 'req_8c1', attempts: 2, cached: false }, bytes: 4312 } } : {}),
    ...(n % 9 === 0 ? { traceId: 'trc_51ab77', spanId: 'spn_02' } : {}),
    ...(n % 5 === 0 ? { levelInferred: true } : {}),
    nodeId: 'nod_7', seq: n + 1, observedAt: new Date(at + 34).toISOString(), ...over,
  };
}

function reset(lines) {
  made = 0;
  const now = Date.now();
  entries = Array.from({ length: lines }, (_, i) => makeEntry(now - (lines - i) * 400));
  gaps = lines > 100 ? [{ reason: 'rotated', count: 48, until: new Date(now - 40 * 400).toISOString(), nodeId: 'nod_7', agentId: 'agt_coder', detail: 'The log file was rotated twice while the node was down.', observedAt: new Date(now - 30 * 400).toISOString() }] : [];
}

const many = (params, name) => params.getAll(name).flatMap((value) => value.split(',')).filter(Boolean);
const fields = ['agentId', 'sessionId', 'userId', 'provider', 'nodeId', 'sandboxId', 'traceId', 'spanId', 'stream', 'source', 'level'];
const known = new Set([...fields, 'minLevel', 'search', 'since', 'until', 'limit', 'offset', 'cursor', 'order', 'after', 'lastEventId', 'tail']);

function matcher(params) {
  const lists = fields.map((field) => [field, many(params, field)]).filter(([, values]) => values.length > 0);
  const search = (params.get('search') ?? '').toLowerCase();
  return (entry) => lists.every(([field, values]) => values.includes(entry[field])) && entry.message.toLowerCase().includes(search);
}

function query(params) {
  const matches = matcher(params);
  const since = params.get('since') ? Date.parse(params.get('since')) : -Infinity;
  const until = params.get('until') ? Date.parse(params.get('until')) : Infinity;
  const found = entries
    .map((entry, position) => ({ entry, position, time: Date.parse(entry.timestamp) }))
    .filter(({ entry, time }) => time >= since && time < until && matches(entry))
    .sort((a, b) => a.time - b.time || a.position - b.position);
  if (params.get('order') !== 'asc') found.reverse();
  const cursor = params.get('cursor');
  const from = cursor ? found.findIndex(({ position }) => position === Number(cursor)) + 1 : 0;
  const limit = Math.min(Number(params.get('limit') ?? 100), 1000);
  const page = found.slice(from, from + limit);
  const more = from + limit < found.length;
  return {
    data: page.map(({ entry }) => entry), total: found.length, totalIsExact: true, hasMore: more,
    cursor: more ? String(page.at(-1).position) : null, streamCursor: `1-${entries.length}`,
    gaps: gaps.filter((gap) => Date.parse(gap.until ?? gap.observedAt) >= since && Date.parse(gap.until ?? gap.observedAt) < until),
  };
}

// ---- stream ---------------------------------------------------------------

function sendEntry(stream, entry, position) {
  if (stream.matches(entry)) stream.response.write(`id: 1-${position}\nevent: log\ndata: ${JSON.stringify({ ...entry, cursor: `1-${position}` })}\n\n`);
}

function emit(entry) {
  entries.push(entry);
  for (const stream of streams) sendEntry(stream, entry, entries.length);
}

function openStream(request, response, params) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache, no-transform' });
  const after = request.headers['last-event-id'] ?? params.get('after') ?? `1-${entries.length}`;
  const from = Number(after.split('-')[1]);
  const stream = { response, matches: matcher(params) };
  response.write(`retry: 300\n\nevent: ready\ndata:${JSON.stringify({ filters: Object.fromEntries(params), cursor: after })}\n\n`);
  for (let at = from; at < entries.length; at++) sendEntry(stream, entries[at], at + 1);
  streams.add(stream);
  const beat = setInterval(() => response.write(`id: 1-${entries.length}\nevent: heartbeat\ndata:${JSON.stringify({ timestamp: new Date().toISOString(), cursor: `1-${entries.length}` })}\n\n`), 15_000);
  response.on('close', () => {
    clearInterval(beat);
    streams.delete(stream);
  });
}

function setRate(perSecond) {
  clearInterval(ticker);
  if (perSecond <= 0) return;
  const every = Math.max(1000 / perSecond, 20);
  let owed = 0;
  ticker = setInterval(() => {
    for (owed += (perSecond * every) / 1000; owed >= 1; owed--) emit(makeEntry(Date.now()));
  }, every);
}

// ---- http -----------------------------------------------------------------

function json(response, status, value, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(value === undefined ? '' : JSON.stringify(value));
}

function problem(response, status, code, message, errors) {
  const requestId = `req_${randomBytes(6).toString('hex')}`;
  json(response, status, { error: { code, message, requestId, details: errors ? { errors } : {} }, requestId }, { 'X-Request-Id': requestId });
}

async function bodyOf(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text ? JSON.parse(text) : {};
}

const steer = {
  emit: ({ entries: list = [{}] }) => list.forEach((over) => emit(makeEntry(Date.now(), over))),
  burst: ({ count }) => {
    const now = Date.now();
    for (let n = 0; n < count; n++) emit(makeEntry(now + n / 100, { message: `row ${n} ${'some words '.repeat(n % 30)}` }));
  },
  gap: ({ gap }) => {
    for (const { response } of streams) response.write(`id: 1-${entries.length}\nevent: gap\ndata:${JSON.stringify(gap)}\n\n`);
  },
  cut: () => streams.forEach(({ response }) => response.destroy()),
  hold: ({ on }) => void (refuseStreams = on),
  expire: () => sessions.clear(),
  rate: ({ perSecond }) => setRate(perSecond),
  reset: ({ lines }) => reset(lines),
  fail: ({ times }) => void (failures = times),
};

async function api(request, response, url) {
  const cookie = /theazo_session=(\w+)/.exec(request.headers.cookie ?? '')?.[1];
  const { pathname, searchParams: params } = url;
  if (pathname === '/v1/auth/sign-in' && request.method === 'POST') {
    if ((await bodyOf(request)).apiKey !== apiKey) return problem(response, 401, 'unauthorized', 'The API key is not valid.');
    const session = randomBytes(16).toString('hex');
    sessions.add(session);
    return json(response, 204, undefined, { 'Set-Cookie': `theazo_session=${session}; HttpOnly; SameSite=Lax; Path=/` });
  }
  if (!sessions.has(cookie)) return problem(response, 401, 'unauthorized', 'Sign in, or send an API key.');
  if (pathname === '/v1/auth/sign-out') {
    sessions.delete(cookie);
    return json(response, 204, undefined, { 'Set-Cookie': 'theazo_session=; Max-Age=0; Path=/' });
  }
  if (pathname === '/v1/me') {
    return json(response, 200, { organisation: { id: 'org_acme', name: 'Acme Agents', mode: 'full_platform' }, environment: process.env.MOCK_ENV ?? 'live', key: { id: 'key_1', name: 'laptop', permissions: ['logs:read'] } });
  }
  const unknown = [...params.keys()].find((name) => pathname.startsWith('/v1/logs') && !known.has(name));
  if (unknown) return problem(response, 400, 'invalid_request', `Unknown parameter ${unknown}.`, [{ field: unknown, detail: 'is not a parameter of this call' }]);
  if (pathname === '/v1/logs') {
    if (failures > 0) {
      failures--;
      return problem(response, 500, 'internal_error', 'The database did not answer.');
    }
    return json(response, 200, query(params));
  }
  if (pathname === '/v1/logs/stream') return refuseStreams ? problem(response, 500, 'internal_error', 'No stream now.') : openStream(request, response, params);
  const dated = (item) => ({ provider: 'docker', nodeId: 'nod_7', sandboxId: '4f3c9a7b21de4f3c', createdAt: new Date(Date.now() - 3_600_000).toISOString(), lastLogAt: new Date(Date.now() - 1_500).toISOString(), ...item });
  if (pathname === '/v1/agents') return json(response, 200, { data: agents.filter((agent) => !params.get('sessionId') || agent.sessionId === params.get('sessionId')).map(dated), hasMore: false, cursor: null });
  if (pathname === '/v1/sessions') {
    const list = ['ses_a1b2c3', 'ses_d4e5f6'].map((id, index) => dated({ id, userId: `user_${index ? 456 : 123}`, status: index ? 'terminated' : 'active', environment: 'live' }));
    return json(response, 200, { data: list, hasMore: false, cursor: null });
  }
  return problem(response, 404, 'not_found', 'There is no such route.');
}

async function asset(response, pathname) {
  const name = normalize(pathname).replace(/^(\.\.[/\\])+/, '');
  const file = extname(name) && !name.endsWith('/') ? name : '/index.html';
  try {
    const bytes = await readFile(join(dist, file));
    response.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'application/octet-stream', 'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff' });
    response.end(bytes);
  } catch {
    response.writeHead(404).end('not found');
  }
}

reset(Number(process.env.MOCK_LINES ?? 2000));
setRate(Number(process.env.MOCK_RATE ?? 5));

createServer((request, response) => {
  const url = new URL(request.url, 'http://mock.invalid');
  const handle = async () => {
    const steering = steer[url.pathname.replace(/^\/mock\//, '')];
    if (url.pathname.startsWith('/mock/') && steering) {
      steering(await bodyOf(request));
      return json(response, 204);
    }
    return url.pathname.startsWith('/v1/') ? api(request, response, url) : asset(response, url.pathname);
  };
  handle().catch((cause) => problem(response, 500, 'internal_error', String(cause)));
}).listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port} with the key ${apiKey}`));
