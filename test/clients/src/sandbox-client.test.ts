import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from './sandbox-client.js';

test('the sandbox client is taken at its word', { timeout: 120_000 }, async () => {
  const sandbox = new Sandbox();
  await sandbox.log('warn', 'from the client', { step: 1, nested: { deep: [true, null] } });
  await sandbox.model('m-1', 1200, 34, { amount: 0.42, currency: 'usd' });
  await sandbox.span('tool.exec').end({ tool: 'search' });
  await sandbox.span('file.read').fail('no such file');
  await sandbox.progress(50, 'half way');
  await sandbox.complete({ answer: 42 }, [{ name: 'report.md', size: 12 }]);
  assert.deepEqual(sandbox.statuses, [202, 202, 202, 202, 202, 202]);
});

test('many calls at once go through one connection pool', { timeout: 120_000 }, async () => {
  const sandbox = new Sandbox();
  await Promise.all(Array.from({ length: 100 }, (_, i) => sandbox.log('info', `line ${i}`)));
  assert.ok(sandbox.statuses.every((status) => status === 202 || status === 429), sandbox.statuses.join(' '));
});
