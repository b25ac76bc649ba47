import { useQuery } from '@tanstack/react-query';
import { Check, ChevronDown } from 'lucide-react';
import { useState, type KeyboardEvent } from 'react';
import { queryString, request } from '../api/client';
import type { Listing } from '../api/types';
import { Popover } from '../app/Popover';
import { visible } from '../text/controls';
import { without, withValue } from './filters';
import { ago } from './time';

interface Item {
  id: string;
  status: string;
  lastLogAt?: string;
}

interface IdPickerProps {
  label: string;
  /** The list that suggestions come from: /v1/agents or /v1/sessions. */
  path: string;
  chosen: readonly string[] | undefined;
  choose: (ids: readonly string[] | undefined) => void;
}

const shown = 100;

/** Chooses agents or sessions: from the newest, or by typing any id. */
export function IdPicker({ label, path, chosen, choose }: IdPickerProps) {
  const count = chosen?.length ?? 0;
  const name = label.toLowerCase();
  return (
    <Popover
      label={`Filter by ${name}`} pressed={count > 0}
      button={
        <>
          {label}
          {count > 0 && <span className="rounded bg-selected px-1.5 text-[11px] tabular-nums">{count}</span>}
          <ChevronDown size={13} className="text-muted" aria-hidden />
        </>
      }
    >
      {() => <Choices name={name} path={path} chosen={chosen} choose={choose} />}
    </Popover>
  );
}

function Choices({ name, path, chosen, choose }: Omit<IdPickerProps, 'label'> & { name: string }) {
  const [text, setText] = useState('');
  const list = useQuery({
    queryKey: [path, 'picker'],
    queryFn: ({ signal }) => request<Listing<Item>>(`${path}${queryString({ limit: String(shown) })}`, { signal }),
    staleTime: 10_000,
  });
  const [now] = useState(() => Date.now());
  const toggle = (id: string) => choose(chosen?.includes(id) ? without(chosen, id) : withValue(chosen, id));
  const wanted = text.trim();
  const items = (list.data?.data ?? []).filter((item) => item.id.toLowerCase().includes(wanted.toLowerCase()));
  const missing = (chosen ?? []).filter((id) => !list.data?.data.some((item) => item.id === id));

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || wanted === '') return;
    event.preventDefault();
    toggle(items.length === 1 && items[0] ? items[0].id : wanted);
    setText('');
  };

  return (
    <div onKeyDown={(event) => moveFocus(event)}>
      <input
        className="field" autoFocus value={text} onChange={(event) => setText(event.target.value)} onKeyDown={onKeyDown}
        placeholder="Type or choose an id" aria-label={`Find by ${name} id`} spellCheck={false} autoComplete="off" maxLength={128}
      />
      <ul className="mt-2" aria-label={`Newest ${name}s`}>
        {missing.map((id) => (
          <Choice key={id} item={{ id, status: 'chosen' }} chosen now={now} toggle={toggle} />
        ))}
        {items.map((item) => (
          <Choice key={item.id} item={item} chosen={chosen?.includes(item.id) ?? false} now={now} toggle={toggle} />
        ))}
      </ul>
      {list.isPending && <p className="px-2 py-3 text-[13px] text-muted">Loading…</p>}
      {list.error && <p className="px-2 py-3 text-[13px] text-error">{visible(list.error.message)}</p>}
      {list.data && items.length === 0 && (
        <p className="px-2 py-3 text-[13px] text-muted">{wanted ? `Enter filters by “${visible(wanted)}”.` : `No ${name} has been seen yet.`}</p>
      )}
      {list.data?.hasMore && <p className="px-2 pt-1 text-[12px] text-faint">The newest {shown}. Type an id for any other.</p>}
    </div>
  );
}

function Choice({ item, chosen, now, toggle }: { item: Item; chosen: boolean; now: number; toggle: (id: string) => void }) {
  return (
    <li>
      <button type="button" aria-pressed={chosen} onClick={() => toggle(item.id)} className="flex w-full items-center gap-2 rounded-md px-2 py-1.5 text-left text-[13px] hover:bg-hover">
        <Check size={14} className={chosen ? 'text-accent' : 'invisible'} aria-hidden />
        <span className="min-w-0 flex-1 truncate font-mono text-[12.5px]">{visible(item.id)}</span>
        <span className="shrink-0 text-[11.5px] text-faint">
          {visible(item.status)}
          {item.lastLogAt && ` · ${ago(item.lastLogAt, now)}`}
        </span>
      </button>
    </li>
  );
}

function moveFocus(event: KeyboardEvent<HTMLElement>): void {
  if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
  const stops = [...event.currentTarget.querySelectorAll<HTMLElement>('input, button')];
  const at = stops.indexOf(document.activeElement as HTMLElement);
  stops[at + (event.key === 'ArrowDown' ? 1 : -1)]?.focus();
  event.preventDefault();
}
