import { useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useMemo, useRef, useSyncExternalStore } from 'react';
import { Whose } from '../app/Whose';
import { useKeys } from '../app/keys';
import { Problem } from '../app/Problem';
import { useFlag } from '../app/settings';
import { visible } from '../text/controls';
import { contextOf } from './copies';
import { LogFeed, type FeedState } from './feed';
import { filtersOf, isFiltered, isLive, toggleLevel, withValue, type Filters, type LogsSearch } from './filters';
import { LogList } from './LogList';
import { MissingLine, Panel } from './Panel';
import { FirstRun, LoadingRows, NoMatch } from './States';
import type { LogRow } from './store';
import { Toolbar } from './Toolbar';

/** One feed per set of filters: a change of filters is a new view, and nothing of the old one can reach it. */
function useFeed(filters: Filters): [LogFeed, FeedState] {
  const key = JSON.stringify(filters);
  const feed = useMemo(() => new LogFeed(JSON.parse(key) as Filters), [key]);
  useEffect(() => {
    feed.start();
    return () => feed.close();
  }, [feed]);
  useSleepWhileHidden(feed);
  return [feed, useSyncExternalStore(feed.subscribe, feed.snapshot)];
}

const sleepAfterMs = 60_000;

function useSleepWhileHidden(feed: LogFeed): void {
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const change = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(() => feed.sleep(), sleepAfterMs);
      else feed.wake();
    };
    document.addEventListener('visibilitychange', change);
    return () => {
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', change);
    };
  }, [feed]);
}

export function LogsPage() {
  const search = useSearch({ from: '/shell/logs' });
  const navigate = useNavigate({ from: '/logs' });
  const filters = filtersOf(search);
  const [feed, state] = useFeed(filters);
  const [wrapped, setWrapped] = useFlag('theazo.wrap', false);
  const searchBox = useRef<HTMLInputElement>(null);

  const go = (next: LogsSearch, replace = false) => void navigate({ search: next, replace });
  const change = (part: Partial<Filters>) => go({ ...filters, ...part });
  const clear = () => go({});
  const select = (row: LogRow | undefined) => {
    if (row) feed.pause('user'); // what is being read must not scroll away
    go({ ...filters, ...(row ? { entry: row.key, time: row.entry.timestamp } : {}) }, search.entry !== undefined);
  };
  const step = (by: 1 | -1) => {
    const row = neighbour(feed, search.entry, by);
    if (row) select(row);
  };
  const togglePause = () => (state.following ? feed.pause('user') : feed.resume());
  const canFollow = state.phase === 'ready' && state.connection !== 'history';

  useKeys({
    '/': () => searchBox.current?.select(),
    ' ': () => canFollow && togglePause(),
    j: () => step(1),
    k: () => step(-1),
    G: () => feed.resume(),
    w: () => setWrapped(!wrapped),
    Enter: () => search.entry === undefined && step(-1),
    Escape: () => search.entry !== undefined && !document.querySelector(':popover-open, dialog[open]') && select(undefined),
  });

  const at = search.entry === undefined ? -1 : feed.store.indexOfKey(search.entry);
  const row = feed.store.rows[at];
  const open = row?.kind === 'log' ? row : undefined;
  return (
    <>
      <Header state={state} feed={feed} />
      <Toolbar
        filters={filters} change={change} clear={clear} following={state.following} canFollow={canFollow} togglePause={togglePause}
        wrapped={wrapped} setWrapped={setWrapped} searchBox={searchBox}
      />
      {state.phase === 'ready' && state.error && (
        <p role="alert" className="shrink-0 border-b border-line bg-error-bg px-4 py-1.5 text-[13px] text-error">{visible(state.error.message)}</p>
      )}
      <div className="flex min-h-0 flex-1">
        <div className="flex min-w-0 flex-1 flex-col">
          <Body feed={feed} state={state} wrapped={wrapped} selected={search.entry} open={select} clear={clear} />
        </div>
        {open && (
          <Panel
            entry={open.entry} late={open.late} search={filters.search} close={() => select(undefined)} step={step}
            addFilter={(field, value) => change({ [field]: withValue(filters[field], value) })}
            addLevel={() => filters.level?.includes(open.entry.level) !== true && change({ level: toggleLevel(filters, open.entry.level) })}
            showContext={() => go(contextOf(open.entry))}
          />
        )}
        {search.entry !== undefined && !open && state.phase === 'ready' && (
          <MissingLine time={search.time} close={() => select(undefined)} showContext={(time) => go({ ...filters, since: undefined, until: undefined, at: time, entry: search.entry, time })} />
        )}
      </div>
    </>
  );
}

function neighbour(feed: LogFeed, key: string | undefined, by: 1 | -1): LogRow | undefined {
  const { rows } = feed.store;
  const from = key === undefined ? -1 : feed.store.indexOfKey(key);
  for (let index = from < 0 ? rows.length - 1 : from + by; index >= 0 && index < rows.length; index += by) {
    const row = rows[index];
    if (row?.kind === 'log') return row;
    if (from < 0) by = -1;
  }
  return undefined;
}

interface BodyProps {
  feed: LogFeed;
  state: FeedState;
  wrapped: boolean;
  selected: string | undefined;
  open: (row: LogRow) => void;
  clear: () => void;
}

function Body({ feed, state, wrapped, selected, open, clear }: BodyProps) {
  if (state.phase === 'failed' && state.error) {
    return (
      <div className="grid flex-1 place-items-center p-4">
        <Problem title="The logs could not be loaded" error={state.error} retry={() => feed.reload()} />
      </div>
    );
  }
  if (state.phase !== 'ready') return <LoadingRows />;
  if (feed.store.rows.length === 0 && !state.hasOlder) {
    return isFiltered(feed.filters) ? <NoMatch live={isLive(feed.filters)} clear={clear} /> : <FirstRun />;
  }
  return <LogList key={JSON.stringify(feed.filters)} feed={feed} state={state} wrapped={wrapped} selected={selected} search={feed.filters.search} open={open} />;
}

function Header({ feed, state }: { feed: LogFeed; state: FeedState }) {
  return (
    <header className="flex h-12 shrink-0 items-center gap-3 px-3 md:px-4">
      <title>Logs · Theazo</title>
      <h1 className="text-[15px] font-semibold">Logs</h1>
      <Connection state={state} />
      {state.phase === 'ready' && (
        <span className="truncate text-[13px] text-muted tabular-nums" data-testid="total">
          {state.totalIsExact ? '' : 'over '}
          {state.total.toLocaleString('en')} {state.total === 1 ? 'line' : 'lines'}
        </span>
      )}
      {state.late > 0 && (
        <button type="button" className="btn !h-6 shrink-0 !border-warn !bg-warn-bg !px-2 !text-[12px] text-warn" onClick={() => feed.lateSeen()} title="They were put where their time says. Click to hide this." data-testid="late">
          +{state.late.toLocaleString('en')} arrived late
        </button>
      )}
      <Whose />
    </header>
  );
}

function Connection({ state }: { state: FeedState }) {
  const paused = !state.following && state.connection !== 'history';
  const [word, tone, pulse] =
    state.connection === 'reconnecting' ? (['Reconnecting', 'text-warn', true] as const)
    : state.connection === 'history' ? (['History', 'text-muted', false] as const)
    : state.connection === 'ended' ? (['Ended', 'text-muted', false] as const)
    : paused ? (['Paused', 'text-warn', false] as const)
    : state.connection === 'live' ? (['Live', 'text-ok', true] as const)
    : (['Connecting', 'text-muted', true] as const);
  return (
    <span role="status" className={`inline-flex shrink-0 items-center gap-1.5 rounded-full border border-line bg-raised px-2.5 py-0.5 text-[12px] font-semibold ${tone}`} data-testid="connection">
      <span className={`size-2 rounded-full bg-current ${pulse ? 'pulse' : ''}`} aria-hidden="true" />
      {word}
    </span>
  );
}
