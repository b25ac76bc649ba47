import { Container, SearchX } from 'lucide-react';
import type { Me } from '../api/types';
import { Copy } from '../app/Copy';
import { useMe } from '../app/me';
import { shellWord } from './copies';

/** What the Logs page shows in place of rows. */

export function LoadingRows() {
  return (
    <div className="min-h-0 flex-1 overflow-hidden px-4 pt-3" role="status" aria-label="Loading the logs">
      {Array.from({ length: 24 }, (_, index) => (
        <div key={index} className="mb-2.5 flex gap-3 opacity-70" aria-hidden="true">
          <span className="pulse h-3.5 w-24 rounded bg-hover" />
          <span className="pulse h-3.5 w-12 rounded bg-hover" />
          <span className="pulse h-3.5 rounded bg-hover" style={{ width: `${24 + ((index * 37) % 45)}%` }} />
        </div>
      ))}
    </div>
  );
}

export function NoMatch({ live, clear }: { live: boolean; clear: () => void }) {
  return (
    <Centre>
      <SearchX size={30} className="mx-auto text-faint" aria-hidden />
      <h2 className="mt-3 font-semibold">No line matches</h2>
      <p className="mt-1 text-[13px] text-muted">
        {live ? 'Lines that match appear here as soon as they arrive.' : 'Nothing in this time range matches the filters.'}
      </p>
      <button type="button" className="btn mt-4" onClick={clear}>Clear all filters</button>
    </Centre>
  );
}

const script = `'n=0; while :; do n=$((n+1)); echo "hello $n"; sleep 1; done'`;

/** A container whose lines come to the organisation and environment of this very page. */
function command(me: Me | undefined): string {
  const labels = [
    ['agent_id', 'agt_hello'],
    ['session_id', 'ses_first'],
    ['user_id', 'user_1'],
    ...(me ? [['org_id', me.organisation.id]] : []),
    ...(me && me.environment !== 'live' ? [['environment', me.environment]] : []),
  ];
  return ['docker run -d --name hello-agent', ...labels.map(([name, value = '']) => `  --label theazo.${name}=${shellWord(value)}`), `  busybox sh -c ${script}`].join(' \\\n');
}

export function FirstRun() {
  const me = useMe().data;
  const text = command(me);
  return (
    <Centre wide>
      <div className="flex items-center gap-3">
        <span className="grid size-10 shrink-0 place-items-center rounded-xl border border-line bg-raised text-accent">
          <Container size={20} aria-hidden />
        </span>
        <div>
          <h2 className="font-semibold">Waiting for the first line</h2>
          <p className="text-[13px] text-muted">This page is live: it fills as soon as an agent writes something.</p>
        </div>
      </div>
      <p className="mt-5 text-[13px] text-muted">
        On a machine where <code className="font-mono text-text">agentd</code> runs, start any container. The labels say whose lines they are; without them a container still gets an agent id of its own.
      </p>
      <div className="relative mt-3">
        <pre className="overflow-x-auto rounded-lg border border-line bg-surface p-4 font-mono text-[12.5px] leading-5">{text}</pre>
        <Copy className="btn absolute top-2 right-2 !h-7 !px-2" text={() => text} label="Copy the command" />
      </div>
      <p className="mt-4 text-[13px] text-muted">
        No node yet? <code className="font-mono text-text">aggregator node token -org {me?.organisation.id ?? 'org_…'}</code> prints a token with which{' '}
        <code className="font-mono text-text">agentd enroll</code> joins one.
      </p>
    </Centre>
  );
}

function Centre({ wide = false, children }: { wide?: boolean; children: React.ReactNode }) {
  return (
    <div className="grid min-h-0 flex-1 place-items-center overflow-auto p-5">
      <div className={wide ? 'w-full max-w-[620px]' : 'max-w-sm text-center'}>{children}</div>
    </div>
  );
}
