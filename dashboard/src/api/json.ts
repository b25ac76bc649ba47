/**
 * JSON.parse that keeps integers beyond 2^53 as they were written, because
 * metadata carries other systems' 64-bit ids. Such a number becomes an opaque
 * object that JSON.stringify prints unchanged.
 */
interface RawJson {
  rawJSON?: (text: string) => unknown;
}
type Reviver = (this: unknown, key: string, value: unknown, context?: { source?: string }) => unknown;

const longInteger = /[[:,\s]-?\d{16,}/;
const raw = (JSON as RawJson).rawJSON;

const keepLongIntegers: Reviver = (_key, value, context) => {
  if (typeof value !== 'number' || Number.isSafeInteger(value) || !context?.source || !/^-?\d+$/.test(context.source)) return value;
  return raw ? raw(context.source) : value;
};

export function parseJson<T>(text: string): T {
  if (raw && longInteger.test(text)) {
    return JSON.parse(text, keepLongIntegers as (key: string, value: unknown) => unknown) as T;
  }
  return JSON.parse(text) as T;
}

/** Pretty JSON of anything, also of what is nested too deep to print. */
export function prettyJson(value: unknown): string {
  try {
    return JSON.stringify(value, null, 2) ?? '';
  } catch (cause) {
    return `Cannot be shown: ${cause instanceof Error ? cause.message : String(cause)}`;
  }
}
