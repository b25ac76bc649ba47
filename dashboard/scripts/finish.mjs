// Finishes `npm run build`: writes .br and .gz beside every text file of dist/,
// and holds the JavaScript that the first page loads against its budget.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const budgetKb = 250;
const compressible = new Set(['.html', '.js', '.css', '.svg', '.json']);

const files = readdirSync(dist, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(dist, name)).isFile());
const gzipped = new Map();
for (const name of files) {
  if (!compressible.has(extname(name))) continue;
  const bytes = readFileSync(join(dist, name));
  const gz = gzipSync(bytes, { level: 9 });
  gzipped.set(name, gz.length);
  const br = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
  // Not worth a second file where it saves nothing.
  if (gz.length < bytes.length) writeFileSync(join(dist, `${name}.gz`), gz);
  if (br.length < bytes.length) writeFileSync(join(dist, `${name}.br`), br);
}
// Vite empties dist/; the file that keeps it in the repository comes back.
writeFileSync(join(dist, '.keep'), '');

const page = readFileSync(join(dist, 'index.html'), 'utf8');
const initial = [...page.matchAll(/(?:src|href)="\/([^"]+\.js)"/g)].map((match) => match[1]);
const kb = initial.reduce((sum, name) => sum + (gzipped.get(name) ?? 0), 0) / 1000;
const ok = initial.length > 0 && kb <= budgetKb;
console.log(`FIGURE dashboard_initial_js ${kb.toFixed(1)} kB gz goal <=${budgetKb} ${ok ? 'ok' : 'short'}`);
if (!ok) process.exitCode = 1;
