import { Link, useSearch } from '@tanstack/react-router';
import { X } from 'lucide-react';
import type { Agent } from '../api/types';
import { ago, localDateTime } from '../logs/time';
import { visible } from '../text/controls';
import { Cell, List, Status } from './List';

export function AgentsPage() {
  const { sessionId } = useSearch({ from: '/shell/agents' });
  return (
    <List<Agent>
      title="Agents" path="/v1/agents" query={sessionId ? { sessionId } : {}}
      head={['Agent', 'Status', 'Last line', 'Session', 'User', 'Provider', 'Sandbox', 'First seen']}
      empty={sessionId ? 'This session has no agents.' : 'No agent has been seen yet. The Logs page says how to start one.'}
      above={
        sessionId && (
          <div className="flex items-center gap-2 border-b border-line bg-surface px-4 py-2 text-[13px]">
            <span className="text-muted">Session</span> <bdi className="truncate font-mono">{visible(sessionId)}</bdi>
            <Link to="/agents" className="btn btn-quiet btn-icon !size-6" aria-label="Show the agents of all sessions"><X size={13} aria-hidden /></Link>
          </div>
        )
      }
      row={(agent, now) => (
        <tr key={agent.id} className="hover:bg-hover">
          <Cell mono><Link to="/logs" search={{ agentId: [agent.id] }} className="text-accent hover:underline">{visible(agent.id)}</Link></Cell>
          <Cell><Status status={agent.status} /></Cell>
          <Cell><span title={agent.lastLogAt && localDateTime(agent.lastLogAt)}>{ago(agent.lastLogAt, now)}</span></Cell>
          <Cell mono>{agent.sessionId ? <Link to="/logs" search={{ sessionId: [agent.sessionId] }} className="hover:underline">{visible(agent.sessionId)}</Link> : '–'}</Cell>
          <Cell mono>{agent.userId ? <bdi>{visible(agent.userId)}</bdi> : '–'}</Cell>
          <Cell>{agent.provider ? visible(agent.provider) : '–'}</Cell>
          <Cell mono>{agent.sandboxId ? visible(agent.sandboxId.slice(0, 12)) : '–'}</Cell>
          <Cell><span className="text-muted">{localDateTime(agent.createdAt)}</span></Cell>
        </tr>
      )}
    />
  );
}
