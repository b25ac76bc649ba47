import { FilterX, Pause, Play, Search, Terminal, WrapText, X } from 'lucide-react';
import { useEffect, useState, type RefObject } from 'react';
import { LEVELS } from '../api/types';
import { Copy } from '../app/Copy';
import { visible } from '../text/controls';
import { curlOfView } from './copies';
import { FIELD_FILTERS, FIELD_LABELS, isFiltered, isLive, toggleLevel, without, type Filters } from './filters';
import { IdPicker } from './IdPicker';
import { LevelGlyph } from './LevelMark';
import { TimeRange } from './TimeRange';

interface ToolbarProps {
  filters: Filters;
  change: (change: Partial<Filters>) => void;
  clear: () => void;
  following: boolean;
  canFollow: boolean;
  togglePause: () => void;
  wrapped: boolean;
  setWrapped: (wrapped: boolean) => void;
  searchBox: RefObject<HTMLInputElement | null>;
}

export function Toolbar({ filters, change, clear, following, canFollow, togglePause, wrapped, setWrapped, searchBox }: ToolbarProps) {
  return (
    <div className="shrink-0 border-b border-line bg-surface px-3 py-2 md:px-4" role="search" aria-label="Filter the logs">
      <div className="flex flex-wrap items-center gap-2">
        <SearchBox text={filters.search ?? ''} change={(search) => change({ search })} box={searchBox} />
        <div className="flex items-center gap-1" role="group" aria-label="Levels">
          {LEVELS.map((level) => {
            const on = filters.level?.includes(level) ?? false;
            return (
              <button
                key={level} type="button" aria-pressed={on} onClick={() => change({ level: toggleLevel(filters, level) })}
                className={`btn !px-2.5 ${on ? '!bg-selected' : ''}`} title={`Only ${level}`} data-testid={`level-${level}`}
              >
                <span className={`lv-${level}`}>
                  <LevelGlyph level={level} />
                </span>
                {level}
              </button>
            );
          })}
        </div>
        {isFiltered(filters) && (
          <button type="button" className="btn btn-quiet btn-icon" onClick={clear} aria-label="Clear all filters" title="Clear all filters">
            <FilterX size={15} aria-hidden />
          </button>
        )}
        <IdPicker label="Agent" path="/v1/agents" chosen={filters.agentId} choose={(agentId) => change({ agentId })} />
        <IdPicker label="Session" path="/v1/sessions" chosen={filters.sessionId} choose={(sessionId) => change({ sessionId })} />
        <TimeRange filters={filters} change={change} />
        <div className="ml-auto flex items-center gap-1">
          <button type="button" className="btn btn-icon" aria-pressed={wrapped} onClick={() => setWrapped(!wrapped)} aria-label="Wrap long lines" title="Wrap long lines (w)">
            <WrapText size={15} aria-hidden />
          </button>
          <Copy className="btn btn-icon max-md:!hidden" text={() => curlOfView(filters)} label="Copy this view as cURL" icon={<Terminal size={15} aria-hidden />} />
          {isLive(filters) ? (
            <button
              type="button" className="btn max-md:w-8 max-md:!px-0" disabled={!canFollow} onClick={togglePause}
              title={following ? 'Pause (Space)' : 'Resume (Space)'} data-testid="pause"
            >
              {following ? <Pause size={14} aria-hidden /> : <Play size={14} aria-hidden />}
              <span className="max-md:sr-only">{following ? 'Pause' : 'Resume'}</span>
            </button>
          ) : (
            <button type="button" className="btn" onClick={() => change({ since: undefined, until: undefined, at: undefined })}>
              <Play size={14} aria-hidden /> Go live
            </button>
          )}
        </div>
      </div>
      <ActiveFilters filters={filters} change={change} />
    </div>
  );
}

const typingPauseMs = 300;

function SearchBox({ text, change, box }: { text: string; change: (text: string | undefined) => void; box: RefObject<HTMLInputElement | null> }) {
  const [typed, setTyped] = useState(text);
  const [known, setKnown] = useState(text);
  if (known !== text) {
    // The URL changed from elsewhere (back, "clear all"): it wins over the box.
    setKnown(text);
    if (typed.trim() !== text) setTyped(text);
  }
  const apply = (value: string) => {
    const next = value.trim();
    if (next !== text) change(next || undefined);
  };
  useEffect(() => {
    if (typed.trim() === text) return;
    const timer = setTimeout(() => apply(typed), typingPauseMs);
    return () => clearTimeout(timer);
  });
  return (
    <div className="relative min-w-[180px] flex-1">
      <Search size={14} className="absolute top-1/2 left-2.5 -translate-y-1/2 text-faint" aria-hidden />
      <input
        ref={box} type="text" inputMode="search" className="field !px-8" value={typed} onChange={(event) => setTyped(event.target.value)} maxLength={512}
        placeholder="Search messages" aria-label="Search messages" spellCheck={false} autoComplete="off" enterKeyHint="search" data-testid="search"
        onKeyDown={(event) => {
          if (event.key === 'Enter') apply(typed);
          if (event.key === 'Escape') event.currentTarget.blur();
        }}
      />
      {typed === '' ? (
        <kbd className="kbd pointer-events-none absolute top-1/2 right-2 hidden -translate-y-1/2 md:block" aria-hidden="true">/</kbd>
      ) : (
        <button
          type="button" aria-label="Clear the search" className="absolute top-1/2 right-1 grid size-6 -translate-y-1/2 place-items-center rounded text-muted hover:text-text"
          onClick={() => {
            setTyped('');
            apply('');
          }}
        >
          <X size={14} aria-hidden />
        </button>
      )}
    </div>
  );
}

function ActiveFilters({ filters, change }: Pick<ToolbarProps, 'filters' | 'change'>) {
  const chips = FIELD_FILTERS.flatMap((field) => (filters[field] ?? []).map((value) => ({ field, value })));
  if (chips.length === 0) return null;
  return (
    <div className="mt-2 flex flex-wrap items-center gap-1.5 text-[12.5px]" data-testid="active-filters">
      {chips.map(({ field, value }) => (
        <span key={`${field} ${value}`} className="inline-flex max-w-full items-center gap-1 rounded-md border border-line bg-raised py-0.5 pr-0.5 pl-2">
          <span className="text-muted">{FIELD_LABELS[field]}</span>
          <bdi className="min-w-0 truncate font-mono">{visible(value)}</bdi>
          <button
            type="button" onClick={() => change({ [field]: without(filters[field], value) })} aria-label={`Remove the filter ${FIELD_LABELS[field]} ${visible(value)}`}
            className="grid size-5 place-items-center rounded text-muted hover:bg-hover hover:text-text"
          >
            <X size={12} aria-hidden />
          </button>
        </span>
      ))}
    </div>
  );
}
