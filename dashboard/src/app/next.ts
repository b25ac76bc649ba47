/** Where to go after sign-in. Only a path of this site: anything else would make sign-in a redirector. */
export function safeNext(next: string | undefined): string {
  const fallback = '/logs';
  // A URL parser drops tabs and newlines, and takes \ for /.
  if (next === undefined || !/^\/(?![/\\])[^\t\n\r]*$/.test(next)) return fallback;
  return next.startsWith('/sign-in') ? fallback : next;
}
