import { expect, test, type Page } from '@playwright/test';
import { emptiestFrame, fromEnd, lastIndex, messages, signIn, Watch } from './support';

const apiKey = 'th_test_mockmockmockmockmockmock';
let watch: Watch;

async function steer(page: Page, what: string, body: unknown = {}): Promise<void> {
  const response = await page.request.post(`/mock/${what}`, { data: body });
  expect(response.ok()).toBe(true);
}

/** Opens a page as a signed-in visitor, without the 401 of a first visit. */
async function open(page: Page, path = '/logs', lines = 2000): Promise<void> {
  await steer(page, 'rate', { perSecond: 0 });
  await steer(page, 'hold', { on: false });
  await steer(page, 'fail', { times: 0 });
  await steer(page, 'reset', { lines });
  await page.goto(`/sign-in?next=${encodeURIComponent(path)}`);
  await signIn(page, apiKey);
}

const live = (page: Page) => expect(page.getByTestId('connection')).toHaveText('Live');

test.beforeEach(({ page, baseURL }) => {
  watch = new Watch(page, new URL(baseURL ?? '').origin);
});
test.afterEach(() => watch.none());

test('follows at 1,000 lines a second, pauses, and goes on', async ({ page }) => {
  await open(page);
  await live(page);
  await steer(page, 'rate', { perSecond: 1000 });
  await expect.poll(() => lastIndex(page)).toBeGreaterThan(2000);
  expect(await emptiestFrame(page, 60)).toBeGreaterThan(0.95);
  await page.keyboard.press('Space');
  await expect(page.getByTestId('connection')).toHaveText('Paused');
  const shown = await messages(page);
  await expect.poll(async () => Number((await page.getByTestId('new-lines').innerText()).replace(/\D/g, ''))).toBeGreaterThan(500);
  expect(shown.length).toBeGreaterThan(10);
  expect(await messages(page)).toEqual(shown);
  await steer(page, 'rate', { perSecond: 0 });
  await page.keyboard.press('G');
  await live(page);
  await expect.poll(() => fromEnd(page)).toBeLessThan(2);
});

test('scrolling up pauses, keeps its place while older and newer lines arrive, and loads to the first line', async ({ page }) => {
  await open(page);
  await live(page);
  const list = page.getByTestId('log-list');
  await list.hover();
  await page.mouse.wheel(0, -3000);
  await expect(page.getByTestId('connection')).toHaveText('Paused');
  await steer(page, 'emit', { entries: Array.from({ length: 40 }, () => ({})) });
  await expect(page.getByTestId('new-lines')).toHaveText(/40 new/);
  await expect(async () => {
    await list.press('Home');
    await expect(page.getByText('The first line of this view')).toBeInViewport({ timeout: 200 });
  }).toPass();
  expect((await messages(page))[0]).toContain('line 0:');
  await expect(page.getByText('48 lines are missing')).toHaveCount(0); // it lies far below
  await page.getByTestId('new-lines').click();
  await live(page);
  await expect.poll(() => fromEnd(page)).toBeLessThan(2);
});

test('asking for the newest line wins over a scroll that is still under way', async ({ page }) => {
  await open(page);
  await live(page);
  const list = page.getByTestId('log-list');
  await list.evaluate(async (element) => {
    const frame = () => new Promise(requestAnimationFrame);
    element.dispatchEvent(new WheelEvent('wheel', { deltaY: -600, bubbles: true }));
    await frame();
    window.dispatchEvent(new KeyboardEvent('keydown', { key: 'G' }));
    await frame();
    element.scrollTop -= 300; // what the wheel began arrives only now
    await frame();
    await frame();
  });
  await live(page);
  await expect.poll(() => fromEnd(page)).toBeLessThan(2);
  // It has settled: the next scroll is a wish of its own, also one without a wheel.
  await expect(async () => {
    await list.evaluate((element) => void (element.scrollTop -= 300));
    await expect(page.getByTestId('connection')).toHaveText('Paused', { timeout: 1000 });
  }).toPass();
});

test('every filter is in the URL, chosen by the server, and restored', async ({ page }) => {
  await open(page);
  await page.getByTestId('level-error').click();
  await page.getByTestId('level-warn').click();
  await expect(page).toHaveURL('/logs?level=warn,error');
  await page.getByTestId('search').fill('provider');
  await expect(page).toHaveURL('/logs?level=warn,error&search=provider');
  await expect(page.locator('mark').first()).toHaveText('provider');
  await page.getByRole('button', { name: 'Filter by agent' }).click();
  await page.getByRole('dialog').getByRole('button', { name: /agt_coder/ }).click();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await expect(page).toHaveURL('/logs?level=warn,error&search=provider&agentId=agt_coder');
  await page.getByRole('button', { name: 'Time range' }).click();
  await page.getByRole('button', { name: /Last hour/ }).click();
  await expect(page).toHaveURL(/since=-1h/);
  const total = await page.getByTestId('total').innerText();
  await page.reload();
  await expect(page.getByTestId('total')).toHaveText(total);
  await expect(page.getByTestId('search')).toHaveValue('provider');
  await expect(page.getByTestId('level-warn')).toHaveAttribute('aria-pressed', 'true');
  await expect(page.locator('.log-row').first()).toContainText('provider');
  await steer(page, 'emit', { entries: [{ level: 'warn', agentId: 'agt_coder', message: 'provider says more' }, { level: 'info', agentId: 'agt_coder', message: 'provider of other things' }] });
  await expect(page.getByText('says more')).toBeVisible();
  await expect(page.getByText('of other things')).toHaveCount(0);
  await page.getByRole('button', { name: 'Clear all filters' }).click();
  await expect(page).toHaveURL('/logs');
  await page.goBack();
  await expect(page.getByTestId('search')).toHaveValue('provider');
});

test('a reconnect resumes without a gap or a double', async ({ page }) => {
  watch.expected = [/ERR_|Failed to load resource/];
  await open(page, '/logs?search=resume');
  await expect(page.getByText('No line matches')).toBeVisible();
  await live(page);
  const emit = (from: number, to: number) => steer(page, 'emit', { entries: Array.from({ length: to - from }, (_, n) => ({ message: `resume ${from + n}` })) });
  await emit(0, 5);
  await expect(page.getByText('resume 4', { exact: true })).toBeVisible();
  await steer(page, 'cut');
  await emit(5, 10);
  await expect(page.getByText('resume 9', { exact: true })).toBeVisible();
  // Refused with 500, the browser gives up: the page opens the stream again itself.
  await steer(page, 'hold', { on: true });
  await steer(page, 'cut');
  await expect(page.getByTestId('connection')).toHaveText('Reconnecting');
  await emit(10, 15);
  await steer(page, 'hold', { on: false });
  await expect(page.getByText('resume 14', { exact: true })).toBeVisible();
  await live(page);
  expect(await messages(page)).toEqual(Array.from({ length: 15 }, (_, n) => `resume ${n}`));
});

test('gaps are drawn, and what a slow browser missed can be loaded', async ({ page }) => {
  await open(page);
  await live(page);
  await page.getByTestId('log-list').hover();
  await page.mouse.wheel(0, -400);
  await expect(page.getByText('48 lines are missing: the log file rotated before it was read · agt_coder · nod_7')).toBeInViewport();
  await expect(page.getByTestId('connection')).toHaveText('Paused');
  await page.keyboard.press('G');
  await live(page);
  const since = new Date(Date.now() - 3_600_000 * 24).toISOString();
  const until = new Date(Date.now() - 3_600_000 * 23).toISOString();
  await steer(page, 'emit', { entries: [{ timestamp: new Date(Date.parse(since) + 1000).toISOString(), message: 'was missed' }] });
  await steer(page, 'gap', { gap: { from: '1-1', to: '1-2', count: 1, reason: 'slow_reader', href: `/v1/logs?since=${since}&until=${until}` } });
  await expect(page.getByText('1 line is missing: this browser was too slow')).toBeInViewport();
  await page.getByRole('button', { name: 'Load what was missed' }).click();
  await expect(page.getByText('Lines that this browser missed were loaded')).toBeInViewport();
});

test('late lines stand where their time says and are announced', async ({ page }) => {
  await open(page, '/logs', 60);
  await live(page);
  const neighbour = page.locator('.log-row').nth(-10);
  const time = Date.parse((await neighbour.locator('time').getAttribute('datetime')) ?? '');
  await steer(page, 'emit', { entries: [{ message: 'here and now' }] });
  await steer(page, 'emit', { entries: [{ timestamp: new Date(Date.now() - 3_600_000).toISOString(), message: 'long late' }, { timestamp: new Date(time).toISOString(), message: 'equal time' }] });
  await expect(page.getByTestId('late')).toContainText('arrived late');
  await page.getByTestId('log-list').press('Home');
  await expect(page.getByText('long late')).toBeVisible();
  expect((await messages(page))[0]).toBe('long late');
  await page.getByTestId('late').click();
  await expect(page.getByTestId('late')).toHaveCount(0);
});

test('hostile text stays text', async ({ page }) => {
  await open(page, '/logs?search=hostile');
  await live(page);
  const evil = '<script>window.pwned=1</script><img src=x onerror=window.pwned=1>';
  await steer(page, 'emit', {
    entries: [
      { message: `hostile ${evil} \u001b[31mred\u001b[0m \u001b]0;title\u0007\u202eevil`, userId: `<b>${'\u202e'}user</b>`, metadata: { '<i>key</i>': evil, id: '\u001b[31m', deep: { list: [1, null, true] } } },
      { message: `hostile long ${'x'.repeat(200_000)}` },
    ],
  });
  const row = page.locator('.log-row', { hasText: 'hostile <script>' });
  await expect(row).toContainText(`${evil} red ⟨U+202E⟩evil`);
  await expect(row.locator('.a-f1')).toHaveText('red');
  await expect(page.getByText('more characters')).toBeVisible();
  await row.click();
  await expect(page.getByTestId('panel-message')).toContainText(evil);
  await expect(page.getByTestId('panel-metadata')).toContainText('"<i>key</i>"');
  await expect(page.getByTestId('panel')).toContainText('<b>⟨U+202E⟩user</b>');
  await page.keyboard.press('j');
  await expect(page.getByTestId('panel-message')).toContainText('hostile long');
  expect(await page.evaluate(() => 'pwned' in window)).toBe(false);
});

test('the panel: keys, filters, copies, permalink', async ({ page }) => {
  await open(page);
  await live(page);
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('panel')).toBeVisible();
  // Escape closes what lies on top, one at a time.
  await page.keyboard.press('?');
  await expect(page.getByRole('heading', { name: 'Keyboard shortcuts' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('heading', { name: 'Keyboard shortcuts' })).toBeHidden();
  await expect(page.getByTestId('panel')).toBeVisible();
  const first = await page.locator('.log-row.is-selected').getAttribute('data-key');
  await page.keyboard.press('k');
  await expect(page.locator('.log-row.is-selected')).not.toHaveAttribute('data-key', first ?? '');
  await page.keyboard.press('j');
  await expect(page.locator('.log-row.is-selected')).toHaveAttribute('data-key', first ?? '');

  await page.getByRole('button', { name: 'JSON' }).click();
  expect(JSON.parse(await page.evaluate(() => navigator.clipboard.readText()))).toMatchObject({ id: first, nodeId: 'nod_7' });
  await page.getByRole('button', { name: 'cURL', exact: true }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(/^curl -sS -H "Authorization: Bearer \$THEAZO_API_KEY" '?http/);

  await page.getByRole('button', { name: 'Link', exact: true }).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  await steer(page, 'emit', { entries: Array.from({ length: 1200 }, (_, n) => ({ message: `afterwards ${n}` })) });
  await page.goto(link);
  await expect(page.locator('.log-row.is-selected')).toHaveAttribute('data-key', first ?? '');
  await expect(page.getByTestId('panel')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByTestId('panel')).toBeHidden();

  await page.locator('.log-row').first().click();
  await page.getByTestId('panel').getByTitle('Filter by this node').click();
  await expect(page).toHaveURL(/nodeId=nod_7/);
  await expect(page.getByTestId('active-filters')).toContainText('nod_7');
  await page.getByRole('button', { name: 'Remove the filter Node nod_7' }).click();
  await expect(page).not.toHaveURL(/nodeId/);
});

test('100,000 rows scroll, also wrapped', async ({ page }) => {
  await open(page, '/logs', 50);
  await live(page);
  await steer(page, 'burst', { count: 100_000 });
  await expect(page.getByTestId('total')).toHaveText('100,050 lines', { timeout: 120_000 }); // a busy machine takes them in slowly
  await expect(page.getByText('row 99999', { exact: false })).toBeVisible();
  const list = page.getByTestId('log-list');
  // Steps through the whole list: each must show rows, and only as many as fit.
  const walk = async () => {
    for (const part of [0.9, 0.5, 0.25, 0.01, 0.99]) {
      await list.evaluate((one, to) => one.scrollTo(0, one.scrollHeight * to), part);
      await expect
        .poll(() =>
          page.locator('.log-row').evaluateAll((rows) => {
            const box = document.querySelector('[data-testid=log-list]')!.getBoundingClientRect();
            const seen = rows.map((row) => row.getBoundingClientRect()).filter((row) => row.bottom > box.top && row.top < box.bottom);
            const covered = seen.reduce((sum, row) => sum + Math.min(row.bottom, box.bottom) - Math.max(row.top, box.top), 0);
            return covered > box.height * 0.95 && rows.length < 200;
          }),
        )
        .toBe(true);
    }
  };
  await walk();
  const frames = await list.evaluate(async (one) => {
    one.scrollTo(0, one.scrollHeight / 2);
    let count = 0;
    const start = performance.now();
    while (performance.now() - start < 2000) {
      one.scrollTop += 120;
      await new Promise((resolve) => requestAnimationFrame(resolve));
      count++;
    }
    return count / 2;
  });
  console.log(`FIGURE dashboard_scroll_100k ${frames.toFixed(0)} frames/s`);
  await page.keyboard.press('w');
  await expect(list).toHaveClass(/is-wrapped/);
  await walk();
  await page.keyboard.press('G');
  await expect(page.getByText('row 99999', { exact: false })).toBeVisible();
});

test('first run, no match, failure', async ({ page }) => {
  await open(page, '/logs', 0);
  await expect(page.getByText('Waiting for the first line')).toBeVisible();
  await expect(page.getByText('theazo.agent_id=agt_hello')).toBeVisible();
  await live(page);
  await steer(page, 'emit', { entries: [{ message: 'the very first line' }] });
  await expect(page.getByText('the very first line')).toBeVisible();

  watch.expected = [/status of 500/];
  await steer(page, 'fail', { times: 1 });
  await page.reload();
  await expect(page.getByRole('alert')).toContainText('The database did not answer.');
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page.getByText('the very first line')).toBeVisible();
});

test('a session that ends leads to sign-in and back to the same view', async ({ page }) => {
  watch.expected = [/status of 401/, /ERR_/];
  await open(page, '/logs?level=error&agentId=agt_coder');
  await live(page);
  await steer(page, 'expire');
  await steer(page, 'cut');
  await expect(page.getByLabel('API key')).toBeVisible();
  await signIn(page, apiKey);
  await expect(page).toHaveURL('/logs?level=error&agentId=agt_coder');
  await live(page);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(page.getByLabel('API key')).toBeVisible();
  await page.goto('/sign-in?next=//evil.example/');
  await signIn(page, apiKey);
  await expect(page).toHaveURL('/logs');
});

test('agents, sessions, theme and help', async ({ page }) => {
  await open(page, '/agents');
  await page.getByRole('link', { name: 'agt_coder' }).click();
  await expect(page).toHaveURL('/logs?agentId=agt_coder');
  await page.getByRole('link', { name: 'Sessions' }).click();
  await page.getByRole('row', { name: /ses_d4e5f6/ }).getByRole('link', { name: 'Show' }).click();
  await expect(page.getByRole('row')).toHaveCount(3);

  const html = page.locator('html');
  await page.getByRole('button', { name: /^Theme: system/ }).click();
  await expect(html).toHaveAttribute('data-theme', 'light');
  await page.getByRole('button', { name: /^Theme: light/ }).click();
  await expect(html).toHaveAttribute('data-theme', 'dark');
  await page.reload();
  await expect(html).toHaveAttribute('data-theme', 'dark');

  await page.keyboard.press('?');
  await expect(page.getByRole('heading', { name: 'Keyboard shortcuts' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('heading', { name: 'Keyboard shortcuts' })).toBeHidden();
});
