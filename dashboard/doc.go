// Package dashboard carries the built web app inside the aggregator's binary
// and serves it.
//
// The app itself is the TypeScript beside this file; `npm run build` puts it
// into dist/, which is not committed. A binary that was built without it works
// in every other respect: [Files] reports false, and [Handler] answers with a
// page that says how to build the dashboard.
//
// What Handler promises:
//   - files of /assets/ have their content's hash in their name and are
//     immutable; everything else is asked for again each time (by ETag);
//   - a file that was compressed at build time goes out as it lies, in the best
//     encoding that the client accepts;
//   - any other path answers index.html, so that the app's own URLs can be
//     opened and reloaded, except below /v1/ and /assets/, where a wrong path
//     is 404 and never a page;
//   - every answer carries the content security policy of [Policy], and none
//     can be framed, sniffed, or send a referrer.
package dashboard
