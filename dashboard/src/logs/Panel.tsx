import { Braces, ChevronDown, ChevronUp, Filter, Link2, ListTree, Terminal, X } from 'lucide-react';
import type { ReactNode } from 'react';
import { prettyJson } from '../api/json';
import type { LogEntry } from '../api/types';
import { Copy } from '../app/Copy';
import { visible } from '../text/controls';
import { LogText } from '../text/LogText';
import { curlOfEntry, jsonOf, permalink } from './copies';
import { FIELD_LABELS, type FieldFilter } from './filters';
import { knownLevel, LevelGlyph } from './LevelMark';
import { localDateTime } from './time';

interface PanelProps {
  entry: LogEntry;
  late: boolean;
  search: string | undefined;
  close: () => void;
  step: (by: 1 | -1) => void;
  addFilter: (field: FieldFilter, value: string) => void;
  addLevel: () => void;
  showContext: () => void;
}

const filterable: readonly FieldFilter[] = ['agentId', 'sessionId', 'userId', 'provider', 'sandboxId', 'nodeId', 'stream', 'source', 'traceId', 'spanId'];

/** Everything that is known of one line. */
export function Panel({ entry, late, search, close, step, addFilter, addLevel, showContext }: PanelProps) {
  const level = knownLevel(entry.level);
  return (
    <PanelFrame
      close={close}
      title={
        <>
          <span className={`inline-flex items-center gap-1.5 font-mono text-[13px] font-semibold lv-${level}`}>
            <LevelGlyph level={level} />
            {level}
          </span>
          <span className="truncate text-[13px] text-muted">{localDateTime(entry.timestamp)}</span>
        </>
      }
      tools={
        <>
          <button type="button" className="btn btn-quiet btn-icon" onClick={() => step(-1)} aria-label="Previous line" title="Previous line (k)">
            <ChevronUp size={16} aria-hidden />
          </button>
          <button type="button" className="btn btn-quiet btn-icon" onClick={() => step(1)} aria-label="Next line" title="Next line (j)">
            <ChevronDown size={16} aria-hidden />
          </button>
        </>
      }
    >
      <div className="flex flex-wrap gap-1.5 border-b border-line px-4 py-3">
        <Copy className="btn !h-7 !px-2 !text-[12px]" text={() => jsonOf(entry)} label="Copy JSON" icon={<Braces size={13} aria-hidden />}>JSON</Copy>
        <Copy className="btn !h-7 !px-2 !text-[12px]" text={() => permalink(entry)} label="Copy a link to this line" icon={<Link2 size={13} aria-hidden />}>Link</Copy>
        <Copy className="btn !h-7 !px-2 !text-[12px]" text={() => curlOfEntry(entry)} label="Copy as cURL" icon={<Terminal size={13} aria-hidden />}>cURL</Copy>
        <button type="button" className="btn !h-7 !px-2 !text-[12px]" onClick={showContext} title="All lines of this agent around this one">
          <ListTree size={13} aria-hidden /> In context
        </button>
      </div>

      <Section title="Message" tool={<Copy className="btn btn-quiet !h-6 !px-1.5" text={() => entry.message} label="Copy the message" />}>
        <pre data-testid="panel-message" className="max-h-[45vh] overflow-auto rounded-lg border border-line bg-bg p-3 font-mono text-[12.5px] leading-5 wrap-anywhere whitespace-pre-wrap [unicode-bidi:isolate]" dir="ltr">
          {entry.message === '' ? <span className="text-faint italic">empty</span> : <LogText message={entry.message} search={search} />}
        </pre>
        {entry.truncated && <p className="mt-2 text-[12.5px] text-warn">The message was longer and was cut when it was read.</p>}
      </Section>

      <Section title="Fields">
        <dl className="text-[12.5px]">
          <Field name="Time" value={entry.timestamp} note={late ? 'arrived late' : undefined} />
          {entry.observedAt && <Field name="Received" value={entry.observedAt} />}
          <Field name="Level" value={entry.level} note={entry.levelInferred ? 'guessed from the text' : undefined} filter={addLevel} />
          {filterable.map((field) => {
            const value = entry[field];
            return value ? <Field key={field} name={FIELD_LABELS[field]} value={value} filter={() => addFilter(field, value)} /> : null;
          })}
          <Field name="ID" value={entry.id} />
          {entry.seq !== undefined && <Field name="Sequence" value={String(entry.seq)} />}
        </dl>
      </Section>

      {entry.metadata !== undefined && (
        <Section title="Metadata" tool={<Copy className="btn btn-quiet !h-6 !px-1.5" text={() => prettyJson(entry.metadata)} label="Copy the metadata" />}>
          <Json value={entry.metadata} />
        </Section>
      )}
    </PanelFrame>
  );
}

/** What is shown when the line of the URL is not among the loaded ones. */
export function MissingLine({ time, close, showContext }: { time: string | undefined; close: () => void; showContext: (at: string) => void }) {
  return (
    <PanelFrame close={close} title={<span className="text-[13px] font-medium">Not loaded</span>}>
      <div className="p-4 text-[13px] text-muted">
        <p>This line is not among those that are loaded here.</p>
        {time !== undefined && (
          <button type="button" className="btn mt-3" onClick={() => showContext(time)}>
            <ListTree size={14} aria-hidden /> Go to {localDateTime(time)}
          </button>
        )}
      </div>
    </PanelFrame>
  );
}

function PanelFrame({ title, tools, close, children }: { title: ReactNode; tools?: ReactNode; close: () => void; children: ReactNode }) {
  return (
    <aside aria-label="Details of the line" data-testid="panel" className="fixed inset-0 z-10 flex flex-col bg-raised md:static md:w-[440px] md:shrink-0 md:border-l md:border-line">
      <header className="flex h-12 shrink-0 items-center gap-3 border-b border-line pr-2 pl-4">
        <h2 className="flex min-w-0 items-center gap-3">{title}</h2>
        <div className="ml-auto flex shrink-0 items-center">
          {tools}
          <button type="button" className="btn btn-quiet btn-icon" onClick={close} aria-label="Close the panel" title="Close (Esc)">
            <X size={16} aria-hidden />
          </button>
        </div>
      </header>
      <div className="min-h-0 flex-1 overflow-y-auto">{children}</div>
    </aside>
  );
}

function Section({ title, tool, children }: { title: string; tool?: ReactNode; children: ReactNode }) {
  return (
    <section className="border-b border-line px-4 py-3 last:border-b-0">
      <div className="mb-2 flex h-6 items-center">
        <h3 className="text-[12px] font-semibold text-muted">{title}</h3>
        <span className="ml-auto">{tool}</span>
      </div>
      {children}
    </section>
  );
}

function Field({ name, value, note, filter }: { name: string; value: string; note?: string | undefined; filter?: () => void }) {
  return (
    <div className="group flex min-h-7 items-center gap-2 rounded-md pl-1 hover:bg-hover">
      <dt className="w-20 shrink-0 text-muted">{name}</dt>
      <dd className="flex min-w-0 flex-1 items-center gap-1">
        {filter ? (
          <button
            type="button" onClick={filter} title={`Filter by this ${name.toLowerCase()}`}
            className="inline-flex min-w-0 items-center gap-1.5 rounded py-0.5 text-left font-mono hover:text-accent"
          >
            <bdi className="wrap-anywhere">{visible(value)}</bdi>
            <Filter size={12} className="shrink-0 text-faint group-hover:text-accent" aria-hidden />
          </button>
        ) : (
          <bdi className="font-mono wrap-anywhere">{visible(value)}</bdi>
        )}
        {note && <span className="shrink-0 rounded bg-warn-bg px-1.5 font-sans text-[11.5px] text-warn">{note}</span>}
        <Copy className="ml-auto grid size-6 shrink-0 place-items-center rounded text-faint opacity-0 group-hover:opacity-100 hover:text-text focus-visible:opacity-100" text={() => value} label={`Copy ${name.toLowerCase()}`} icon={undefined} />
      </dd>
    </div>
  );
}

const jsonToken = /("(?:[^"\\]|\\.)*")(\s*:)?|(\btrue\b|\bfalse\b|\bnull\b|-?\d[\d.eE+-]*)/g;
const mostTokens = 3_000;

/** Pretty JSON with coloured keys, strings and literals, as text nodes. */
function Json({ value }: { value: unknown }) {
  const text = visibleKeepingLines(prettyJson(value));
  const parts: ReactNode[] = [];
  let at = 0;
  for (const match of text.matchAll(jsonToken)) {
    if (parts.length > mostTokens) break;
    if (match.index > at) parts.push(text.slice(at, match.index));
    const [whole, string, colon] = match;
    if (string !== undefined && colon !== undefined) parts.push(<span key={match.index} className="text-info">{string}</span>, colon);
    else parts.push(<span key={match.index} className={string === undefined ? 'text-warn' : 'text-ok'}>{whole}</span>);
    at = match.index + whole.length;
  }
  parts.push(text.slice(at));
  return (
    <pre data-testid="panel-metadata" dir="ltr" className="max-h-[45vh] overflow-auto rounded-lg border border-line bg-bg p-3 font-mono text-[12.5px] leading-5 wrap-anywhere whitespace-pre-wrap">
      {parts}
    </pre>
  );
}

function visibleKeepingLines(text: string): string {
  return text.split('\n').map(visible).join('\n');
}
