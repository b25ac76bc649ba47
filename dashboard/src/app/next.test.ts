import { describe, expect, it } from 'vitest';
import { safeNext } from './next';

describe('safeNext', () => {
  it.each([
    [undefined, '/logs'], ['', '/logs'], ['/logs?level=error', '/logs?level=error'], ['/agents', '/agents'],
    ['//evil.example', '/logs'], ['/\\evil.example', '/logs'], ['https://evil.example', '/logs'], ['javascript:alert(1)', '/logs'],
    ['/sign-in?next=/sign-in', '/logs'], ['/\t/evil.example', '/logs'],
  ])('%s leads to %s', (next, want) => {
    expect(safeNext(next)).toBe(want);
  });
});
