const two = (n: number) => String(n).padStart(2, '0');

/** Local time of day; the milliseconds apart, because a narrow row leaves them out. */
export function clock(ms: number): { date: string; time: string; millis: string } {
  const at = new Date(ms);
  const today = new Date();
  const sameDay = at.getDate() === today.getDate() && at.getMonth() === today.getMonth() && at.getFullYear() === today.getFullYear();
  const year = at.getFullYear() === today.getFullYear() ? '' : `${at.getFullYear()}-`;
  return {
    date: sameDay ? '' : `${year}${two(at.getMonth() + 1)}-${two(at.getDate())} `,
    time: `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`,
    millis: `.${String(at.getMilliseconds()).padStart(3, '0')}`,
  };
}

export function localDateTime(timestamp: string): string {
  const at = Date.parse(timestamp);
  if (Number.isNaN(at)) return timestamp;
  return new Date(at).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
}

/** As short as it can be said: the date only where it is not today's. */
export function shortDateTime(timestamp: string): string {
  const at = Date.parse(timestamp);
  if (Number.isNaN(at)) return timestamp;
  const { date, time } = clock(at);
  return date + time;
}

export function ago(timestamp: string | undefined, now: number): string {
  const at = Date.parse(timestamp ?? '');
  if (Number.isNaN(at)) return '–';
  const seconds = Math.round((now - at) / 1000);
  if (seconds < 5) return 'now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** For <input type="datetime-local">, which knows local time only. */
export function toLocalInput(timestamp: string | undefined): string {
  const at = Date.parse(timestamp ?? '');
  if (Number.isNaN(at)) return '';
  const date = new Date(at);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function fromLocalInput(value: string): string | undefined {
  const at = value === '' ? NaN : new Date(value).getTime();
  return Number.isNaN(at) ? undefined : new Date(at).toISOString();
}
