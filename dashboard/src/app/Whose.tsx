import { visible } from '../text/controls';
import { useMe } from './me';

/** Whose data is on the screen: organisation and environment. */
export function Whose() {
  const { data } = useMe();
  if (!data) return null;
  const test = data.environment === 'test';
  return (
    <span className="ml-auto flex min-w-0 items-center gap-2 text-[13px] text-muted" title={`Key ${visible(data.key.name || data.key.id)}`}>
      <bdi className="truncate">{visible(data.organisation.name || data.organisation.id)}</bdi>
      <span className={`shrink-0 rounded-full border px-2 py-px text-[11px] font-semibold ${test ? 'border-warn bg-warn-bg text-warn' : 'border-line-strong text-ok'}`}>
        {visible(data.environment)}
      </span>
    </span>
  );
}
