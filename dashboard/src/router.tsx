import { createRootRoute, createRoute, createRouter, Link, Outlet, redirect } from '@tanstack/react-router';
import { onUnauthorized } from './api/client';
import { AppShell } from './app/AppShell';
import { SignIn } from './app/SignIn';
import { parseUrlSearch, printUrlSearch, readSearch } from './logs/filters';
import { LogsPage } from './logs/LogsPage';
import { AgentsPage } from './pages/AgentsPage';
import { SessionsPage } from './pages/SessionsPage';

const root = createRootRoute({ component: Outlet, notFoundComponent: NotFound });

const signIn = createRoute({
  getParentRoute: () => root,
  path: '/sign-in',
  component: SignIn,
  validateSearch: (raw: Record<string, unknown>): { next?: string } => (typeof raw.next === 'string' ? { next: raw.next } : {}),
});

const shell = createRoute({ getParentRoute: () => root, id: 'shell', component: AppShell });

const home = createRoute({
  getParentRoute: () => shell,
  path: '/',
  beforeLoad: () => {
    throw redirect({ to: '/logs', replace: true });
  },
});
const logs = createRoute({ getParentRoute: () => shell, path: '/logs', component: LogsPage, validateSearch: readSearch });
const agents = createRoute({
  getParentRoute: () => shell,
  path: '/agents',
  component: AgentsPage,
  validateSearch: (raw: Record<string, unknown>): { sessionId?: string } => (typeof raw.sessionId === 'string' ? { sessionId: raw.sessionId } : {}),
});
const sessions = createRoute({ getParentRoute: () => shell, path: '/sessions', component: SessionsPage });

export const router = createRouter({
  routeTree: root.addChildren([signIn, shell.addChildren([home, logs, agents, sessions])]),
  parseSearch: parseUrlSearch,
  stringifySearch: printUrlSearch,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}

// A session that ended anywhere leads to sign-in and from there back to the same URL.
onUnauthorized(() => {
  const { pathname, href } = router.state.location;
  if (pathname === '/sign-in') return;
  void router.navigate({ to: '/sign-in', search: href === '/' || href === '/logs' ? {} : { next: href }, replace: true });
});

function NotFound() {
  return (
    <div className="grid h-full place-items-center p-4 text-center">
      <div>
        <p className="text-lg font-semibold">There is no such page</p>
        <Link to="/logs" className="btn mt-4">Go to the logs</Link>
      </div>
    </div>
  );
}
