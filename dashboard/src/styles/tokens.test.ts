import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const css = readFileSync(new URL('./tokens.css', import.meta.url), 'utf8');

function tokensOf(theme: 'dark' | 'light'): Map<string, string> {
  const block = new RegExp(`\\[data-theme='${theme}'\\] \\{([^}]*)\\}`).exec(css)?.[1] ?? '';
  return new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map((match) => [match[1]!, match[2]!]));
}

function luminance(hex: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

const texts = ['text', 'muted', 'faint', 'accent', 'debug', 'info', 'warn', 'error', 'ok', ...Array.from({ length: 16 }, (_, n) => `ansi-${n}`)];
const grounds = ['bg', 'surface', 'raised', 'hover', 'selected', 'warn-bg', 'error-bg'];

describe.each(['dark', 'light'] as const)('%s theme', (theme) => {
  const tokens = tokensOf(theme);
  it.each(texts)('%s is readable everywhere', (text) => {
    for (const ground of grounds) {
      expect(contrast(tokens.get(text)!, tokens.get(ground)!), `${text} on ${ground}`).toBeGreaterThanOrEqual(4.5);
    }
  });
  it('marks and buttons are readable', () => {
    expect(contrast(tokens.get('mark-text')!, tokens.get('mark')!)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(tokens.get('on-accent')!, tokens.get('accent-strong')!)).toBeGreaterThanOrEqual(4.5);
  });
});
