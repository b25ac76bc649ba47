import { useState } from 'react';

/** Small choices of this browser. Storage may be forbidden: then they last as long as the page. */
const fallback = new Map<string, string>();

export function readSetting(key: string): string | null {
  try {
    return localStorage.getItem(key) ?? fallback.get(key) ?? null;
  } catch {
    return fallback.get(key) ?? null;
  }
}

export function writeSetting(key: string, value: string): void {
  fallback.set(key, value);
  try {
    localStorage.setItem(key, value);
  } catch {
    // Kept in memory instead.
  }
}

export function useFlag(key: string, initial: boolean): [boolean, (value: boolean) => void] {
  const [value, setValue] = useState(() => {
    const stored = readSetting(key);
    return stored === null ? initial : stored === 'yes';
  });
  return [
    value,
    (next) => {
      writeSetting(key, next ? 'yes' : 'no');
      setValue(next);
    },
  ];
}
