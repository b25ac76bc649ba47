import { RotateCw, TriangleAlert } from 'lucide-react';
import { ApiError } from '../api/client';
import { visible } from '../text/controls';

/** An error as a person needs it: what failed, what to do, what to quote. */
export function Problem({ title, error, retry }: { title: string; error: Error; retry: () => void }) {
  const api = error instanceof ApiError ? error : null;
  return (
    <div role="alert" className="card max-w-md p-6">
      <h2 className="flex items-center gap-2 font-semibold">
        <TriangleAlert size={17} className="text-error" aria-hidden />
        {title}
      </h2>
      <p className="mt-2 text-[13px] wrap-anywhere text-muted">{visible(error.message)}</p>
      {api && api.fields.length > 0 && (
        <ul className="mt-2 list-disc pl-5 text-[13px] text-muted">
          {api.fields.map(({ field, detail }) => (
            <li key={field}>
              <code className="font-mono text-text">{visible(field)}</code> {visible(detail)}
            </li>
          ))}
        </ul>
      )}
      {api?.requestId && <p className="mt-2 font-mono text-[12px] text-faint">request {visible(api.requestId)}</p>}
      <button type="button" className="btn mt-4" onClick={retry}>
        <RotateCw size={14} aria-hidden /> Try again
      </button>
    </div>
  );
}
