import { memo } from 'react';
import { markMatches, parseAnsi } from './ansi';

interface LogTextProps {
  message: string;
  search?: string | undefined;
  /** Show at most this many characters. */
  limit?: number;
  /** Show line breaks as a sign, for a row of one line. */
  oneLine?: boolean;
}

/** A log message as text nodes. The message is hostile: see ansi.ts. */
export const LogText = memo(function LogText({ message, search, limit = Infinity, oneLine = false }: LogTextProps) {
  const cut = message.length > limit;
  const pieces = markMatches(parseAnsi(cut ? message.slice(0, endBefore(message, limit)) : message), search ?? '');
  return (
    <>
      {pieces.map(({ text, className, mark }, index) => {
        const shown = oneLine ? text.replaceAll('\n', ' ⏎ ') : text;
        if (mark) return <mark key={index} className={className}>{shown}</mark>;
        return className ? <span key={index} className={className}>{shown}</span> : shown;
      })}
      {cut && <span className="log-more"> … {(message.length - limit).toLocaleString('en')} more characters</span>}
    </>
  );
});

/** Not between the halves of a surrogate pair. */
function endBefore(message: string, limit: number): number {
  const code = message.charCodeAt(limit - 1);
  return code >= 0xd800 && code <= 0xdbff ? limit - 1 : limit;
}
