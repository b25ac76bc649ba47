import { defineConfig } from '@playwright/test';

/**
 * Two projects. `real` runs logs.spec.ts against an aggregator that is already
 * running and fed: THEAZO_URL, THEAZO_API_KEY, E2E_AGENT_ID. `mock` runs
 * mock.spec.ts against mock.mjs, which it starts, and needs a built dist/.
 */
// Chosen once, by the first process; workers inherit it. Two runs at once do not meet.
const mockPort = Number((process.env.MOCK_PORT ??= String(20_000 + (process.pid % 12_000))));
const mocked = process.argv.some((argument, index, all) => argument === '--project=mock' || (argument === 'mock' && all[index - 1] === '--project'));

export default defineConfig({
  testDir: '.',
  outputDir: '../test-results',
  // One browser at a time: the tests share one server and its lines.
  workers: 1,
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: [['list']],
  forbidOnly: true,
  use: {
    // A user's browser, not a downloaded one.
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    },
    viewport: { width: 1280, height: 800 },
    permissions: ['clipboard-read', 'clipboard-write'],
    trace: 'off',
  },
  projects: [
    { name: 'real', testMatch: 'logs.spec.ts', use: { baseURL: process.env.THEAZO_URL ?? 'http://127.0.0.1:8080' } },
    { name: 'mock', testMatch: 'mock.spec.ts', use: { baseURL: `http://127.0.0.1:${mockPort}` } },
  ],
  ...(mocked
    ? { webServer: { command: 'node mock.mjs', cwd: import.meta.dirname, url: `http://127.0.0.1:${mockPort}/`, reuseExistingServer: false, env: { MOCK_PORT: String(mockPort), MOCK_RATE: '0' } } }
    : {}),
});
