import { Check, Copy as CopyIcon, TriangleAlert } from 'lucide-react';
import { useEffect, useState, type ReactNode } from 'react';
import { copyText } from './copy';

interface CopyProps {
  /** Made at the click: the text may be large. */
  text: () => string;
  label: string;
  children?: ReactNode;
  className?: string;
  icon?: ReactNode;
}

/** A button that copies and says so. */
export function Copy({ text, label, children, className = 'btn', icon }: CopyProps) {
  const [done, setDone] = useState<boolean | null>(null);
  useEffect(() => {
    if (done === null) return;
    const timer = setTimeout(() => setDone(null), 1_600);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = () => void copyText(text()).then(setDone);
  return (
    <button type="button" className={className} onClick={copy} aria-label={children ? undefined : label} title={label}>
      {done === null ? (icon ?? <CopyIcon size={14} aria-hidden />) : done ? <Check size={14} className="text-ok" aria-hidden /> : <TriangleAlert size={14} className="text-error" aria-hidden />}
      {children}
      <span className="sr-only" role="status">
        {done === null ? '' : done ? 'Copied' : 'The browser refused to copy'}
      </span>
    </button>
  );
}
