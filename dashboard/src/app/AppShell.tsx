import { useQueryClient } from '@tanstack/react-query';
import { Link, Outlet, useRouter } from '@tanstack/react-router';
import { Bot, CircleHelp, Layers, LoaderCircle, LogOut, Monitor, Moon, ScrollText, Sun } from 'lucide-react';
import { useState } from 'react';
import { request } from '../api/client';
import { HelpOverlay } from './HelpOverlay';
import { useKeys } from './keys';
import { Logo } from './Logo';
import { useMe } from './me';
import { Problem } from './Problem';
import { THEMES, useTheme } from './theme';

const pages = [
  { to: '/logs', label: 'Logs', icon: ScrollText },
  { to: '/agents', label: 'Agents', icon: Bot },
  { to: '/sessions', label: 'Sessions', icon: Layers },
] as const;

/** The frame around every page: navigation, whose data this is, theme, help. */
export function AppShell() {
  const me = useMe();
  const [help, setHelp] = useState(false);
  useKeys({ '?': () => setHelp(true) });

  if (me.error) {
    return (
      <div className="grid h-full place-items-center p-4">
        <Problem title="The dashboard cannot start" error={me.error} retry={() => void me.refetch()} />
      </div>
    );
  }
  if (!me.data) {
    return (
      <div className="grid h-full place-items-center text-muted" role="status" aria-label="Loading">
        <LoaderCircle className="spin" aria-hidden />
      </div>
    );
  }
  const test = me.data.environment === 'test';
  return (
    <div className="flex h-full flex-col">
      {test && (
        <div className="shrink-0 bg-warn py-0.5 text-center text-[11.5px] font-semibold tracking-wide text-bg">
          TEST ENVIRONMENT · not billed, no live webhooks
        </div>
      )}
      <div className="flex min-h-0 flex-1 flex-col-reverse md:flex-row">
        <nav aria-label="Pages" className="flex shrink-0 items-center gap-1 border-t border-line bg-surface px-2 py-1 md:w-[68px] md:flex-col md:border-t-0 md:border-r md:px-0 md:py-3">
          <span className="mb-3 hidden md:block">
            <Logo />
          </span>
          {pages.map(({ to, label, icon: Icon }) => (
            <Link
              key={to} to={to}
              className="flex flex-1 flex-col items-center gap-0.5 rounded-lg px-1 py-1.5 text-[11px] font-medium text-muted hover:bg-hover hover:text-text md:w-14 md:flex-none"
              activeProps={{ className: '!text-accent bg-raised', 'aria-current': 'page' }} activeOptions={{ includeSearch: false }}
            >
              <Icon size={18} aria-hidden />
              {label}
            </Link>
          ))}
          <div className="flex items-center gap-1 md:mt-auto md:flex-col">
            <button type="button" className="btn btn-quiet btn-icon" onClick={() => setHelp(true)} aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)">
              <CircleHelp size={17} aria-hidden />
            </button>
            <ThemeButton />
            <SignOut />
          </div>
        </nav>
        <main className="flex min-h-0 min-w-0 flex-1 flex-col">
          <Outlet />
        </main>
      </div>
      {help && <HelpOverlay close={() => setHelp(false)} />}
    </div>
  );
}

function ThemeButton() {
  const [theme, setTheme] = useTheme();
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'system';
  const Icon = { system: Monitor, light: Sun, dark: Moon }[theme];
  return (
    <button type="button" className="btn btn-quiet btn-icon" onClick={() => setTheme(next)} aria-label={`Theme: ${theme}. Change to ${next}`} title={`Theme: ${theme}`}>
      <Icon size={17} aria-hidden />
    </button>
  );
}

function SignOut() {
  const router = useRouter();
  const queries = useQueryClient();
  const leave = async () => {
    await request('/v1/auth/sign-out', { method: 'POST', announceUnauthorized: false }).catch(() => undefined);
    await router.navigate({ to: '/sign-in' });
    queries.clear();
  };
  return (
    <button type="button" className="btn btn-quiet btn-icon" onClick={() => void leave()} aria-label="Sign out" title="Sign out">
      <LogOut size={17} aria-hidden />
    </button>
  );
}
