import { useVirtualizer } from '@tanstack/react-virtual';
import { ArrowDown, LoaderCircle } from 'lucide-react';
import { useCallback, useEffect, useLayoutEffect, useRef } from 'react';
import { maxRows, type FeedState, type LogFeed } from './feed';
import { useFollow } from './follow';
import { GapRowView, LogRowView } from './LogRow';
import type { GapRow, LogRow } from './store';

const rowHeight = 24;
const gapHeight = 32;
const topMargin = 36;
/** How near an end of the list the next page is asked for. */
const loadWithinPx = 1_500;
/** Frames within which a scroll to the selected line has to arrive. */
const maxTries = 60;

interface LogListProps {
  feed: LogFeed;
  state: FeedState;
  wrapped: boolean;
  selected: string | undefined;
  search: string | undefined;
  open: (row: LogRow) => void;
}

/**
 * The rows, oldest on top, of which only those on screen exist. While the view
 * follows, its end is kept in sight; otherwise what is on screen stays where
 * it is, whatever is added above or below (the virtualizer's end anchor).
 */
export function LogList({ feed, state, wrapped, selected, search, open }: LogListProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const { rows } = feed.store;
  const { following, version, hasNewer } = state;

  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: useCallback((index: number) => (rows[index]?.kind === 'gap' ? gapHeight : rowHeight), [rows]),
    // A key of rows by identity: a version is a new function, so that sizes are computed anew.
    getItemKey: useCallback((index: number) => rows[index]?.key ?? index, [rows, version]),
    overscan: 12,
    paddingStart: topMargin,
    anchorTo: 'end',
  });

  // After the virtualizer: while the view follows, the end wins over the anchor.
  const follow = useFollow(scroller, feed, following, hasNewer);

  useLayoutEffect(() => virtualizer.measure(), [virtualizer, wrapped]);

  const onScroll = () => {
    follow.onScroll();
    if (scroller.current) loadNear(scroller.current, feed);
  };

  // Also without a scroll: a first page can be shorter than the window.
  useEffect(() => {
    if (scroller.current) loadNear(scroller.current, feed);
  }, [feed, version]);

  // The selected line is kept in sight when the selection moves, and not when
  // rows merely change: the reader may have scrolled away.
  const opened = useRef(false);
  const present = selected !== undefined && feed.store.indexOfKey(selected) >= 0;
  useEffect(() => {
    if (!present || selected === undefined) return;
    // A line that a link led to stands amid its neighbours.
    const align = !opened.current && feed.filters.at !== undefined ? 'center' : 'auto';
    opened.current = true;
    // A list that is being laid out can swallow a scroll: look whether it arrived.
    let frame = 0;
    let tries = 0;
    const show = () => {
      const index = feed.store.indexOfKey(selected);
      if (index < 0 || (tries > 0 && isInSight(scroller.current, selected))) return;
      virtualizer.scrollToIndex(index, { align });
      if (tries++ < maxTries) frame = requestAnimationFrame(show);
    };
    show();
    return () => cancelAnimationFrame(frame);
  }, [selected, present, feed, virtualizer]);

  const load = (row: GapRow) => void feed.loadMissed(row);
  const measure = wrapped ? virtualizer.measureElement : undefined;
  return (
    // The margin below the last line is outside of the scroller: within, a paused view would show a part of a new line there.
    <div className="relative min-h-0 flex-1 pb-2">
      <div
        ref={scroller} {...follow} onScroll={onScroll} role="log" aria-label="Log lines" aria-live="off" tabIndex={0} data-testid="log-list"
        className={`log-list h-full overflow-x-hidden overflow-y-auto focus-visible:-outline-offset-2${wrapped ? ' is-wrapped' : ''}${feed.filters.agentId?.length === 1 ? ' is-one-agent' : ''}`}
      >
        <div role="list" className="relative" style={{ height: virtualizer.getTotalSize() }}>
          <TopMark state={state} empty={feed.store.lines === 0} />
          {virtualizer.getVirtualItems().map(({ index, key, start }) => {
            const row = rows[index];
            if (!row) return null;
            if (row.kind === 'gap') {
              return <GapRowView key={key} row={row} index={index} start={start} missed={feed.missed.get(row.key)} load={load} measure={measure} />;
            }
            return (
              <LogRowView
                key={key} row={row} index={index} start={start} wrapped={wrapped} search={search} open={open}
                selected={row.key === selected} measure={measure}
              />
            );
          })}
        </div>
      </div>
      {!following && (state.fresh > 0 || state.connection !== 'history') && (
        <button
          type="button" onClick={() => feed.resume()} data-testid="new-lines"
          className="btn btn-primary absolute bottom-4 left-1/2 !h-8 -translate-x-1/2 !rounded-full !px-4 shadow-lg"
        >
          {state.fresh > 0 ? `${state.fresh.toLocaleString('en')} new` : 'Newest'} <ArrowDown size={14} aria-hidden />
        </button>
      )}
    </div>
  );
}

function isInSight(element: HTMLElement | null, key: string): boolean {
  const row = element?.querySelector(`[data-key="${CSS.escape(key)}"]`)?.getBoundingClientRect();
  const list = element?.getBoundingClientRect();
  return row !== undefined && list !== undefined && row.top < list.bottom && row.bottom > list.top;
}

function loadNear(element: HTMLElement, feed: LogFeed): void {
  const fromEnd = element.scrollHeight - element.clientHeight - element.scrollTop;
  if (element.scrollTop < loadWithinPx) void feed.loadOlder();
  if (fromEnd < loadWithinPx) void feed.loadNewer();
}

function TopMark({ state, empty }: { state: FeedState; empty: boolean }) {
  return (
    <div className="absolute inset-x-0 top-0 flex h-9 items-center justify-center gap-2 font-sans text-[12px] text-faint">
      {state.loadingOlder ? (
        <>
          <LoaderCircle size={13} className="spin" aria-hidden /> Loading older lines
        </>
      ) : state.full && state.hasOlder ? (
        `${maxRows.toLocaleString('en')} lines are loaded. Narrow the time range to see older ones.`
      ) : state.hasOlder ? (
        ''
      ) : empty ? (
        'No line matches'
      ) : (
        'The first line of this view'
      )}
    </div>
  );
}
