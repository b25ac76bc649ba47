import { queryString, request, type QueryValue } from './client';
import { parseJson } from './json';
import type { Gap, LogEntry } from './types';

/**
 * One live view of the logs over Server-Sent Events.
 *
 *   connecting --ready--> live --error--> reconnecting --ready--> live
 *        \                  |                  |
 *         \---- close() ----+----- "end" ------+----------------> ended
 *
 * The browser itself reconnects with Last-Event-ID. Where it gives up (any
 * answer that is not 200) or hears nothing for long, the stream is opened
 * again here, after the last position that was seen: no line is lost and the
 * store drops what comes twice.
 */
export type StreamState = 'connecting' | 'live' | 'reconnecting' | 'ended';

export interface StreamHandlers {
  onEntry(entry: LogEntry): void;
  onGap(gap: Gap): void;
  onState(state: StreamState): void;
}

/** The server sends a heartbeat every 15 s; after this the connection is taken for dead. */
const silenceMs = 40_000;
const firstRetryMs = 1_000;
const longestRetryMs = 30_000;

export interface EventSourceLike {
  readonly readyState: number;
  onerror: ((event: Event) => void) | null;
  addEventListener(type: string, listener: (event: MessageEvent<string>) => void): void;
  close(): void;
}

export class LiveStream {
  private source: EventSourceLike | null = null;
  private state: StreamState = 'connecting';
  private retry: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setInterval> | undefined;
  private lastHeard = 0;
  private failures = 0;

  constructor(
    private readonly filters: Readonly<Record<string, QueryValue>>,
    private cursor: string,
    private readonly handlers: StreamHandlers,
    private readonly connect: (url: string) => EventSourceLike = (url) => new EventSource(url),
  ) {}

  open(): void {
    this.watchdog = setInterval(() => {
      if (Date.now() - this.lastHeard > silenceMs && this.source) this.reopen();
    }, silenceMs / 4);
    this.start();
  }

  close(): void {
    clearInterval(this.watchdog);
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.state = 'ended';
  }

  private start(): void {
    this.lastHeard = Date.now();
    const source = this.connect(`/v1/logs/stream${queryString({ ...this.filters, after: this.cursor })}`);
    this.source = source;
    const listen = (type: string, handle: (event: MessageEvent<string>) => void) =>
      source.addEventListener(type, (event) => {
        if (this.source !== source) return; // a late event of a connection given up
        this.heard(event);
        handle(event);
      });
    listen('ready', () => this.become('live'));
    listen('heartbeat', () => this.become('live'));
    listen('log', (event) => this.handlers.onEntry(parseJson<LogEntry>(event.data)));
    listen('gap', (event) => this.handlers.onGap({ ...parseJson<Gap>(event.data), cursor: event.lastEventId }));
    listen('end', () => {
      this.close();
      this.handlers.onState('ended');
    });
    source.onerror = () => {
      if (this.source !== source) return;
      this.become('reconnecting');
      const closed = 2; // EventSource.CLOSED: the browser will not try again
      if (source.readyState === closed) this.reopen();
    };
  }

  private heard(event: MessageEvent<string>): void {
    this.lastHeard = Date.now();
    this.failures = 0;
    if (event.lastEventId) this.cursor = event.lastEventId;
  }

  private reopen(): void {
    this.source?.close();
    this.source = null;
    this.become('reconnecting');
    const wait = Math.min(longestRetryMs, firstRetryMs * 2 ** this.failures++) * (0.75 + Math.random() / 2);
    clearTimeout(this.retry);
    this.retry = setTimeout(() => {
      // EventSource hides the status. Asking who we are tells an ended session
      // (which the client announces) from a server that is away.
      request('/v1/me').then(
        () => this.state !== 'ended' && this.start(),
        () => this.state !== 'ended' && this.reopen(),
      );
    }, wait);
  }

  private become(state: StreamState): void {
    if (this.state === state || this.state === 'ended') return;
    this.state = state;
    this.handlers.onState(state);
  }
}
