import { useLayoutEffect, useRef, type KeyboardEvent, type RefObject, type WheelEvent } from 'react';
import type { LogFeed } from './feed';

/** Less than this upwards is a tremor and no wish to read. */
const pausesAfterPx = 48;

/**
 * Keeps the end of the list in sight while the view follows, and tells the
 * feed when the reader scrolls away from it or back to it.
 *
 * A browser scrolls on another thread than this one: what a wheel began can
 * arrive here after the reader has already asked for the newest line again.
 * Such a rest is undone, and a scroll by this hook is never taken for the reader's.
 */
export function useFollow(scroller: RefObject<HTMLDivElement | null>, feed: LogFeed, following: boolean, hasNewer: boolean) {
  const lastTop = useRef(0);
  const scrolling = useRef(false);
  /** The view was told to follow while a scroll was under way. */
  const settling = useRef(false);

  const toEnd = (element: HTMLElement) => {
    element.scrollTop = element.scrollHeight;
    lastTop.current = element.scrollTop;
  };

  useLayoutEffect(() => {
    settling.current = following && scrolling.current;
  }, [following]);

  useLayoutEffect(() => {
    if (scroller.current && following) toEnd(scroller.current);
  });

  const settled = () => {
    settling.current = false;
  };

  // The wish to go up counts before the scroll event tells of it: in between,
  // a new line could take the view back to the end.
  const wantsUp = () => {
    const element = scroller.current;
    if (!element || element.scrollHeight <= element.clientHeight) return;
    settled();
    scrolling.current = true;
    feed.pause('scroll');
  };

  const onScroll = () => {
    const element = scroller.current;
    if (!element) return;
    const moved = element.scrollTop - lastTop.current;
    const fromEnd = element.scrollHeight - element.clientHeight - element.scrollTop;
    lastTop.current = element.scrollTop;
    scrolling.current = true;
    if (moved < 0 && settling.current) toEnd(element);
    else if (moved < 0 && fromEnd > pausesAfterPx) feed.pause('scroll');
    else if (moved > 0 && fromEnd < 4 && !hasNewer) {
      scrolling.current = false; // arrived: turning back is a new wish
      feed.reachedEnd();
    }
  };

  return {
    onScroll,
    onScrollEnd: () => {
      scrolling.current = false;
      settled();
    },
    onPointerDown: settled,
    onWheel: (event: WheelEvent) => event.deltaY < 0 && wantsUp(),
    onKeyDown: (event: KeyboardEvent) => ['ArrowUp', 'PageUp', 'Home'].includes(event.key) && wantsUp(),
  };
}
