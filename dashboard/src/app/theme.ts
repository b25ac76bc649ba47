import { useSyncExternalStore } from 'react';
import { readSetting, writeSetting } from './settings';

/** The theme: the visitor's choice, or the system's. public/theme.js applies it before the first paint. */
export const THEMES = ['system', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

const key = 'theazo.theme';
const listeners = new Set<() => void>();
const systemDark = matchMedia('(prefers-color-scheme: dark)');
systemDark.addEventListener('change', apply);

function current(): Theme {
  const stored = readSetting(key);
  return stored === 'dark' || stored === 'light' ? stored : 'system';
}

function apply(): void {
  const theme = current();
  const dark = theme === 'dark' || (theme === 'system' && systemDark.matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useTheme(): [Theme, (theme: Theme) => void] {
  const theme = useSyncExternalStore(subscribe, current);
  return [
    theme,
    (next) => {
      writeSetting(key, next);
      apply();
    },
  ];
}
