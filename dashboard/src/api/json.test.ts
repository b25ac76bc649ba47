import { describe, expect, it } from 'vitest';
import { parseJson, prettyJson } from './json';

describe('JSON', () => {
  it('is plain JSON where numbers are safe', () => {
    expect(parseJson('{"a":[1,2.5,-3,"12345678901234567890"],"b":null}')).toEqual({ a: [1, 2.5, -3, '12345678901234567890'], b: null });
    expect(() => parseJson('{')).toThrow(SyntaxError);
  });

  it('keeps 64-bit ids as they were written, where the engine can', () => {
    const text = '{"id":12345678901234567890,"list":[-9223372036854775808],"safe":1}';
    const engineCan = 'rawJSON' in JSON; // browsers of 2024 and later; not Node 20
    expect(JSON.stringify(parseJson(text))).toBe(engineCan ? text : JSON.stringify(JSON.parse(text)));
  });

  it('says so when a value is nested too deep to print', () => {
    let deep: unknown = 1;
    for (let level = 0; level < 100_000; level++) deep = [deep];
    expect(prettyJson(deep)).toMatch(/^Cannot be shown: /);
    expect(prettyJson({ a: 1 })).toBe('{\n  "a": 1\n}');
    expect(prettyJson(undefined)).toBe('');
  });
});
