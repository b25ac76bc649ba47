import { expect, test } from '@playwright/test';
import { lastIndex, signIn, Watch } from './support';

/**
 * The dashboard against a real aggregator, which the caller has started:
 *
 *   THEAZO_URL      its address
 *   THEAZO_API_KEY  a key of the organisation that the agent belongs to
 *   E2E_AGENT_ID    an agent that writes at least one line a second, among them
 *                   lines of level error and info, at least one line every few
 *                   seconds that contains `E2E_MARKUP` (default
 *                   <script>window.pwned=1</script>) and an SGR colour, such as
 *                   "\x1b[31mred\x1b[0m"
 *   E2E_TEXT        a text that only some of its lines contain, default: pwned
 */
const url = process.env.THEAZO_URL ?? '';
const apiKey = process.env.THEAZO_API_KEY ?? '';
const agent = process.env.E2E_AGENT_ID ?? '';
const markup = process.env.E2E_MARKUP ?? '<script>window.pwned=1</script>';
const text = process.env.E2E_TEXT ?? 'pwned';

test.beforeAll(() => {
  for (const [name, value] of Object.entries({ THEAZO_URL: url, THEAZO_API_KEY: apiKey, E2E_AGENT_ID: agent })) {
    if (value === '') throw new Error(`Set ${name}: see the head of logs.spec.ts.`);
  }
});

test('a line of a container is read in the browser', async ({ page, baseURL }) => {
  const watch = new Watch(page, new URL(baseURL ?? '').origin);
  // The first request of a visitor without a session is answered 401, which the browser logs.
  watch.expected = [/status of 401/];

  await test.step('a wrong key is refused, the right one leads back to the same URL', async () => {
    await page.goto(`/logs?agentId=${agent}`);
    await signIn(page, 'th_live_wrong');
    await expect(page.getByRole('alert')).toContainText('not valid');
    await signIn(page, apiKey);
    await expect(page).toHaveURL(`/logs?agentId=${agent}`);
  });

  await test.step('lines are there and new ones keep coming', async () => {
    await expect(page.getByTestId('connection')).toHaveText('Live');
    await expect(page.locator('.log-row').first()).toBeVisible();
    const before = await lastIndex(page);
    await expect.poll(() => lastIndex(page)).toBeGreaterThan(before);
  });

  await test.step('a pause counts what is new, resuming goes on', async () => {
    await page.getByTestId('pause').click();
    await expect(page.getByTestId('connection')).toHaveText('Paused');
    const held = await lastIndex(page);
    await expect(page.getByTestId('new-lines')).toContainText(/\d+ new/);
    expect(await page.locator(`.log-row[data-index="${Math.max(0, held - 13)}"]`).count()).toBe(1);
    await page.getByTestId('new-lines').click();
    await expect(page.getByTestId('connection')).toHaveText('Live');
    await expect.poll(() => lastIndex(page)).toBeGreaterThan(held);
  });

  await test.step('text is filtered by the server and survives a reload in the URL', async () => {
    await page.keyboard.press('/');
    await expect(page.getByTestId('search')).toBeFocused();
    await page.keyboard.type(text);
    await expect(page).toHaveURL(new RegExp(`search=${encodeURIComponent(text)}`));
    await expect(page.locator('.log-row').first()).toBeVisible();
    await page.reload();
    await expect(page.getByTestId('search')).toHaveValue(text);
    await expect(page.locator('.log-row').first()).toBeVisible();
    const shown = await page.locator('.log-row .log-message').allTextContents();
    expect(shown.filter((message) => !message.toLowerCase().includes(text.toLowerCase()))).toEqual([]);
  });

  await test.step('markup and colours are text, in the row and in the panel', async () => {
    const row = page.locator('.log-row', { hasText: markup }).first();
    await expect(row).toBeVisible();
    await page.getByTestId('pause').click();
    await page.locator('.log-row', { hasText: markup }).last().click();
    await expect(page.getByTestId('panel-message')).toContainText(markup);
    await expect(page.getByTestId('panel')).toContainText(agent);
    await expect(page).toHaveURL(/entry=log_/);
    const whole = await page.locator('body').innerText();
    expect(whole).not.toMatch(/\u001b|\[31m|\[0m/);
    expect(await page.evaluate(() => 'pwned' in window)).toBe(false);
    expect(await page.locator('[data-testid=log-list] script, [data-testid=panel] script').count()).toBe(0);
    await page.keyboard.press('Escape');
    await expect(page.getByTestId('panel')).toBeHidden();
  });

  await test.step('a level shows only its lines', async () => {
    await page.getByRole('button', { name: 'Clear the search' }).click();
    await expect(page).not.toHaveURL(/search=/);
    await page.getByTestId('level-error').click();
    await expect(page).toHaveURL(/level=error/);
    await expect(page.locator('.log-row.is-error').first()).toBeVisible();
    await expect(page.locator('.log-row:not(.is-error)')).toHaveCount(0);
  });

  await test.step('the agent and its session are listed', async () => {
    await page.getByRole('link', { name: 'Agents' }).click();
    await expect(page.getByRole('link', { name: agent })).toBeVisible();
    await page.getByRole('link', { name: 'Sessions' }).click();
    await expect(page.getByRole('heading', { name: 'Sessions' })).toBeVisible();
  });

  await test.step('signing out ends the session', async () => {
    await page.getByRole('button', { name: 'Sign out' }).click();
    await expect(page.getByLabel('API key')).toBeVisible();
    await page.goto('/agents');
    await expect(page.getByLabel('API key')).toBeVisible();
  });

  watch.none();
});
