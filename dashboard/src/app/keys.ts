import { useEffect, useRef } from 'react';
import { readSetting } from './settings';

/** Single-key shortcuts can be turned off (WCAG 2.1.4); Escape always works. */
export const shortcutsSetting = 'theazo.shortcuts';

export type KeyMap = Readonly<Record<string, (event: KeyboardEvent) => void>>;

/** Handles keys by their `event.key`, except while something is being typed. */
export function useKeys(keys: KeyMap): void {
  const latest = useRef(keys);
  useEffect(() => {
    latest.current = keys;
  });
  useEffect(() => {
    const handle = (event: KeyboardEvent) => {
      const action = latest.current[event.key];
      if (!action || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (event.key !== 'Escape' && (isTyping(event.target) || readSetting(shortcutsSetting) === 'no')) return;
      // Space and Enter press the button or link that has the focus.
      if ((event.key === ' ' || event.key === 'Enter') && isControl(event.target)) return;
      // What Escape closes in the browser's top layer is the browser's own.
      if (event.key !== 'Escape') event.preventDefault();
      action(event);
    };
    window.addEventListener('keydown', handle);
    return () => window.removeEventListener('keydown', handle);
  }, []);
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

function isControl(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest('button, a[href], summary') !== null;
}
