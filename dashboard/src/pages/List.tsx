import { useInfiniteQuery } from '@tanstack/react-query';
import { LoaderCircle, RotateCw } from 'lucide-react';
import { useEffect, useState, type ReactNode } from 'react';
import { queryString, request, type QueryValue } from '../api/client';
import type { Listing } from '../api/types';
import { Whose } from '../app/Whose';
import { Problem } from '../app/Problem';
import { visible } from '../text/controls';

interface ListProps<T> {
  title: string;
  path: string;
  query?: Record<string, QueryValue>;
  head: readonly string[];
  row: (item: T, now: number) => ReactNode;
  empty: string;
  above?: ReactNode;
}

const pageSize = 100;
const refreshMs = 10_000;

/** A page that is one list, newest first, kept fresh while it is looked at. */
export function List<T>({ title, path, query = {}, head, row, empty, above }: ListProps<T>) {
  const list = useInfiniteQuery({
    queryKey: [path, query],
    queryFn: ({ signal, pageParam }) =>
      request<Listing<T>>(`${path}${queryString({ ...query, limit: String(pageSize), cursor: pageParam || undefined })}`, { signal }),
    initialPageParam: '',
    getNextPageParam: (last) => (last.hasMore && last.cursor ? last.cursor : undefined),
    refetchInterval: (current) => ((current.state.data?.pages.length ?? 1) === 1 ? refreshMs : false),
  });
  const now = useNow();
  const items = list.data?.pages.flatMap((page) => page.data) ?? [];
  return (
    <>
      <title>{`${title} · Theazo`}</title>
      <header className="flex h-12 shrink-0 items-center gap-3 border-b border-line px-3 md:px-4">
        <h1 className="text-[15px] font-semibold">{title}</h1>
        <button type="button" className="btn btn-quiet btn-icon" onClick={() => void list.refetch()} aria-label="Refresh" title="Refresh">
          <RotateCw size={14} className={list.isFetching ? 'spin' : ''} aria-hidden />
        </button>
        <Whose />
      </header>
      {above}
      <div className="min-h-0 flex-1 overflow-auto">
        {list.error && items.length === 0 ? (
          <div className="grid h-full place-items-center p-4">
            <Problem title={`The ${title.toLowerCase()} could not be loaded`} error={list.error} retry={() => void list.refetch()} />
          </div>
        ) : list.isPending ? (
          <div className="grid h-full place-items-center text-muted" role="status" aria-label="Loading"><LoaderCircle className="spin" aria-hidden /></div>
        ) : items.length === 0 ? (
          <p className="grid h-full place-items-center p-6 text-center text-[13px] text-muted">{empty}</p>
        ) : (
          <table className="w-full text-left text-[13px]">
            <thead className="sticky top-0 bg-surface text-[12px] text-muted">
              <tr>
                {head.map((name) => (
                  <th key={name} scope="col" className="border-b border-line px-3 py-2 font-medium whitespace-nowrap md:px-4">{name}</th>
                ))}
              </tr>
            </thead>
            <tbody>{items.map((item) => row(item, now))}</tbody>
          </table>
        )}
        {list.hasNextPage && (
          <div className="p-4 text-center">
            <button type="button" className="btn" disabled={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
              Load more
            </button>
          </div>
        )}
      </div>
    </>
  );
}

export function Cell({ children, mono = false }: { children: ReactNode; mono?: boolean }) {
  return <td className={`max-w-72 truncate border-b border-line px-3 py-2 md:px-4 ${mono ? 'font-mono text-[12.5px]' : ''}`}>{children}</td>;
}

const tones: Readonly<Record<string, string>> = { running: 'text-ok', ready: 'text-ok', active: 'text-ok', failed: 'text-error', paused: 'text-warn', booting: 'text-info' };

export function Status({ status }: { status: string }) {
  return (
    <span className={`inline-flex items-center gap-1.5 ${tones[status] ?? 'text-muted'}`}>
      <span className="size-2 rounded-full bg-current" aria-hidden="true" />
      {visible(status)}
    </span>
  );
}

function useNow(): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 5_000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
