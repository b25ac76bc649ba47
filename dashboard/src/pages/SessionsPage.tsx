import { Link } from '@tanstack/react-router';
import type { Session } from '../api/types';
import { ago, localDateTime } from '../logs/time';
import { visible } from '../text/controls';
import { Cell, List, Status } from './List';

export function SessionsPage() {
  return (
    <List<Session>
      title="Sessions" path="/v1/sessions" head={['Session', 'Status', 'Last line', 'User', 'Agents', 'First seen']}
      empty="No session has been seen yet. The label theazo.session_id on a container makes one."
      row={(session, now) => (
        <tr key={session.id} className="hover:bg-hover">
          <Cell mono><Link to="/logs" search={{ sessionId: [session.id] }} className="text-accent hover:underline">{visible(session.id)}</Link></Cell>
          <Cell><Status status={session.status} /></Cell>
          <Cell><span title={session.lastLogAt && localDateTime(session.lastLogAt)}>{ago(session.lastLogAt, now)}</span></Cell>
          <Cell mono>{session.userId ? <bdi>{visible(session.userId)}</bdi> : '–'}</Cell>
          <Cell><Link to="/agents" search={{ sessionId: session.id }} className="text-muted hover:text-text hover:underline">Show</Link></Cell>
          <Cell><span className="text-muted">{localDateTime(session.createdAt)}</span></Cell>
        </tr>
      )}
    />
  );
}
