import { LoaderCircle } from 'lucide-react';
import { memo } from 'react';
import type { Gap } from '../api/types';
import { visible } from '../text/controls';
import { LogText } from '../text/LogText';
import { knownLevel, LevelGlyph } from './LevelMark';
import type { GapRow, LogRow } from './store';
import { clock } from './time';

const longestInRow = 2_000;

interface LogRowProps {
  row: LogRow;
  index: number;
  start: number;
  selected: boolean;
  wrapped: boolean;
  search: string | undefined;
  measure: ((element: Element | null) => void) | undefined;
  open: (row: LogRow) => void;
}

export const LogRowView = memo(function LogRowView({ row, index, start, selected, wrapped, search, measure, open }: LogRowProps) {
  const { entry } = row;
  const level = knownLevel(entry.level);
  const { date, time, millis } = clock(row.time);
  return (
    <div
      ref={measure} data-index={index} data-key={row.key} role="listitem" aria-current={selected || undefined}
      className={`log-row is-${level}${selected ? ' is-selected' : ''}`} style={{ transform: `translateY(${start}px)` }}
      onClick={() => {
        // Selecting text to copy it is not a click on the line.
        if (!window.getSelection()?.toString()) open(row);
      }}
    >
      <time className={`log-time${row.late ? ' is-late' : ''}`} dateTime={entry.timestamp} title={row.late ? `${entry.timestamp}, arrived late` : entry.timestamp}>
        {date}
        {time}
        <span className="log-ms">{millis}</span>
      </time>
      <span className={`log-level lv-${level}`}>
        <LevelGlyph level={level} />
        {level}
      </span>
      <span className="log-agent" title={visible(entry.agentId)}>
        <i className="log-dot" style={{ '--hue': hueOf(entry.agentId) } as React.CSSProperties} aria-hidden="true" />
        <span>{visible(entry.agentId)}</span>
      </span>
      {row.late && <span className="log-tag">late</span>}
      <span className="log-message">
        <LogText message={entry.message} search={search} limit={longestInRow} oneLine={!wrapped} />
      </span>
    </div>
  );
});

function hueOf(id: string): number {
  let hash = 7;
  for (let i = 0; i < id.length; i++) hash = (hash * 31 + id.charCodeAt(i)) | 0;
  return (Math.abs(hash) % 24) * 15;
}

const reasons: Readonly<Record<string, string>> = {
  corrupt: 'damaged on the node’s disk',
  evicted: 'the node’s buffer was full',
  rotated: 'the log file rotated before it was read',
  truncated: 'the log file was cut before it was read',
  unclean_stop: 'the node stopped uncleanly',
  unreadable: 'the source could not be read',
  quarantined: 'refused by the aggregator',
  slow_reader: 'this browser was too slow',
};

export function gapText(gap: Gap): string {
  const what = gap.count < 0 ? 'An unknown number of lines is' : gap.count === 1 ? '1 line is' : `${gap.count.toLocaleString('en')} lines are`;
  return `${what} missing: ${reasons[gap.reason] ?? visible(gap.reason)}`;
}

interface GapRowProps {
  row: GapRow;
  index: number;
  start: number;
  missed: 'loading' | 'loaded' | 'failed' | undefined;
  load: (row: GapRow) => void;
  measure: ((element: Element | null) => void) | undefined;
}

export function GapRowView({ row, index, start, missed, load, measure }: GapRowProps) {
  const { gap } = row;
  const where = [gap.agentId, gap.nodeId].filter((part) => part !== undefined).map((part) => visible(part));
  return (
    <div ref={measure} data-index={index} role="listitem" className="log-gap" style={{ transform: `translateY(${start}px)` }} title={gap.detail && visible(gap.detail)}>
      <span>
        {missed === 'loaded' ? 'Lines that this browser missed were loaded' : gapText(gap)}
        {where.length > 0 && ` · ${where.join(' · ')}`}
      </span>
      {gap.href !== undefined && missed !== 'loaded' && (
        <button type="button" className="btn !h-6 shrink-0 !px-2 !text-[12px]" disabled={missed === 'loading'} onClick={() => load(row)}>
          {missed === 'loading' && <LoaderCircle size={12} className="spin" aria-hidden />}
          {missed === 'failed' ? 'Failed, try again' : 'Load what was missed'}
        </button>
      )}
    </div>
  );
}
