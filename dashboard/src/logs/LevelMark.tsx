import type { Level } from '../api/types';

/** A level by shape, word and colour: never by colour alone. */
const shapes: Readonly<Record<Level, React.ReactNode>> = {
  debug: <circle cx="5" cy="5" r="3" fill="none" stroke="currentColor" strokeWidth="1.6" />,
  info: <circle cx="5" cy="5" r="3.6" fill="currentColor" />,
  warn: <path d="M5 .8 9.6 9.2H.4z" fill="currentColor" />,
  error: <path d="M1.4 1.4l7.2 7.2M8.6 1.4 1.4 8.6" stroke="currentColor" strokeWidth="2.4" strokeLinecap="round" />,
};

export function LevelGlyph({ level }: { level: Level }) {
  return (
    <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true" className="shrink-0">
      {shapes[level]}
    </svg>
  );
}

/** What the server may add one day is shown as info. */
export function knownLevel(level: string): Level {
  return level in shapes ? (level as Level) : 'info';
}
