import { Check, ChevronDown, Clock } from 'lucide-react';
import { useState, type FormEvent } from 'react';
import { Popover } from '../app/Popover';
import type { Filters } from './filters';
import { fromLocalInput, shortDateTime, toLocalInput } from './time';

const presets = [
  { label: 'Live', detail: 'everything, newest first', since: undefined },
  { label: 'Last 15 minutes', detail: 'and what comes', since: '-15m' },
  { label: 'Last hour', detail: 'and what comes', since: '-1h' },
  { label: 'Last 24 hours', detail: 'and what comes', since: '-24h' },
] as const;

type Times = Pick<Filters, 'since' | 'until' | 'at'>;

export function TimeRange({ filters, change }: { filters: Filters; change: (times: Times) => void }) {
  return (
    <Popover
      label={`Time range: ${rangeLabel(filters)}`} pressed={filters.since !== undefined || filters.until !== undefined || filters.at !== undefined}
      button={
        <>
          <Clock size={14} className="max-md:hidden" aria-hidden />
          <span className="max-w-56 truncate">{rangeLabel(filters)}</span>
          <ChevronDown size={13} className="text-muted" aria-hidden />
        </>
      }
    >
      {(close) => (
        <>
          <ul>
            {presets.map(({ label, detail, since }) => {
              const current = filters.since === since && filters.until === undefined && filters.at === undefined;
              return (
                <li key={label}>
                  <button
                    type="button" aria-current={current || undefined} className="flex w-full items-center gap-2 rounded-md px-2 py-1.5 text-left text-[13px] hover:bg-hover"
                    onClick={() => {
                      change({ since, until: undefined, at: undefined });
                      close();
                    }}
                  >
                    <Check size={14} className={current ? 'text-accent' : 'invisible'} aria-hidden />
                    {label}
                    <span className="ml-auto text-[12px] text-faint">{detail}</span>
                  </button>
                </li>
              );
            })}
          </ul>
          <Custom filters={filters} change={change} close={close} />
        </>
      )}
    </Popover>
  );
}

function Custom({ filters, change, close }: { filters: Filters; change: (times: Times) => void; close: () => void }) {
  const [since, setSince] = useState(toLocalInput(filters.since));
  const [until, setUntil] = useState(toLocalInput(filters.until));
  const from = fromLocalInput(since);
  const to = fromLocalInput(until);
  const backwards = from !== undefined && to !== undefined && from >= to;
  const apply = (event: FormEvent) => {
    event.preventDefault();
    change({ since: from, until: to, at: undefined });
    close();
  };
  return (
    <form onSubmit={apply} className="mt-2 border-t border-line px-2 pt-3">
      <p className="mb-2 text-[12px] font-medium text-muted">Custom, in this browser’s time zone</p>
      <label className="mb-2 flex items-center gap-2 text-[13px]">
        <span className="w-12">From</span>
        <input type="datetime-local" step={1} className="field" value={since} onChange={(event) => setSince(event.target.value)} />
      </label>
      <label className="mb-2 flex items-center gap-2 text-[13px]">
        <span className="w-12">Until</span>
        <input type="datetime-local" step={1} className="field" value={until} onChange={(event) => setUntil(event.target.value)} />
      </label>
      {backwards && <p className="mb-2 text-[12.5px] text-error">The end must be after the beginning.</p>}
      <button type="submit" className="btn btn-primary w-full" disabled={backwards || (from === undefined && to === undefined)}>
        Apply
      </button>
    </form>
  );
}

function rangeLabel({ since, until, at }: Filters): string {
  if (at !== undefined) return `Around ${shortDateTime(at)}`;
  const preset = presets.find((one) => one.since === since);
  if (preset && until === undefined) return preset.label;
  const from = since === undefined ? '' : shortDateTime(since);
  return until === undefined ? `Since ${from}` : from === '' ? `Until ${shortDateTime(until)}` : `${from} – ${shortDateTime(until)}`;
}
