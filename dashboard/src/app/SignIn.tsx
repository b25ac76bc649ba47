import { useQueryClient } from '@tanstack/react-query';
import { useRouter, useSearch } from '@tanstack/react-router';
import { Eye, EyeOff, KeyRound, LoaderCircle } from 'lucide-react';
import { useState, type FormEvent } from 'react';
import { ApiError, request } from '../api/client';
import { Logo } from './Logo';
import { safeNext } from './next';

/** Signs in with an API key; the server keeps the session in an HttpOnly cookie. */
export function SignIn() {
  const { next } = useSearch({ from: '/sign-in' });
  const router = useRouter();
  const queries = useQueryClient();
  const [apiKey, setApiKey] = useState('');
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState('');

  const signIn = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setProblem('');
    try {
      await request('/v1/auth/sign-in', { method: 'POST', body: { apiKey: apiKey.trim() }, announceUnauthorized: false });
      queries.clear();
      router.history.replace(safeNext(next));
    } catch (cause) {
      setProblem(explain(cause));
      setBusy(false);
    }
  };

  return (
    <main className="grid h-full place-items-center overflow-auto p-4">
      <form onSubmit={(event) => void signIn(event)} className="card w-full max-w-[400px] p-7">
        <div className="mb-6 flex items-center gap-3">
          <Logo size={36} />
          <div>
            <h1 className="text-lg leading-tight font-semibold">Theazo</h1>
            <p className="text-[13px] text-muted">Agent observability</p>
          </div>
        </div>
        {next !== undefined && next !== '/logs' && (
          <p className="mb-4 rounded-lg border border-line bg-surface px-3 py-2 text-[13px] text-muted">Sign in to go on where you were.</p>
        )}
        <label htmlFor="api-key" className="mb-1.5 block text-[13px] font-medium">
          API key
        </label>
        <div className="relative">
          <KeyRound size={15} className="absolute top-1/2 left-3 -translate-y-1/2 text-faint" aria-hidden />
          <input
            id="api-key" name="api-key" className="field !h-10 !px-9 font-mono" type={shown ? 'text' : 'password'} placeholder="th_live_…"
            autoComplete="current-password" autoFocus spellCheck={false} autoCapitalize="off" maxLength={200} required
            value={apiKey} onChange={(event) => setApiKey(event.target.value)}
            aria-invalid={problem !== ''} aria-describedby={problem ? 'sign-in-problem' : 'sign-in-help'}
          />
          <button
            type="button" onClick={() => setShown(!shown)} aria-pressed={shown} aria-label="Show the key"
            className="absolute top-1/2 right-1.5 grid size-7 -translate-y-1/2 place-items-center rounded-md text-muted hover:text-text"
          >
            {shown ? <EyeOff size={15} aria-hidden /> : <Eye size={15} aria-hidden />}
          </button>
        </div>
        {problem && (
          <p id="sign-in-problem" role="alert" className="mt-2 text-[13px] text-error">
            {problem}
          </p>
        )}
        <button type="submit" className="btn btn-primary mt-4 !h-10 w-full" disabled={busy || apiKey.trim() === ''}>
          {busy && <LoaderCircle size={15} className="spin" aria-hidden />}
          Sign in
        </button>
        <p id="sign-in-help" className="mt-5 text-[12.5px] leading-relaxed text-muted">
          No key yet? On the aggregator’s machine, run
          <code className="mt-1.5 block rounded-md border border-line bg-surface px-2.5 py-1.5 font-mono text-[12px] text-text">aggregator key create -org org_… -name dashboard</code>
        </p>
      </form>
    </main>
  );
}

function explain(cause: unknown): string {
  if (!(cause instanceof ApiError)) return String(cause);
  if (cause.status === 401) return 'This key is not valid. It may be mistyped, revoked, or of another aggregator.';
  if (cause.status === 429) return 'Too many attempts. Wait a minute and try again.';
  return cause.message;
}
