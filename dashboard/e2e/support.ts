import { expect, type ConsoleMessage, type Page } from '@playwright/test';

/** Watches a page for what must never happen: errors, policy violations, requests to elsewhere. */
export class Watch {
  readonly problems: string[] = [];

  constructor(page: Page, origin: string) {
    page.on('console', (message) => this.console(message));
    page.on('pageerror', (error) => this.problems.push(`page error: ${error.message}`));
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol !== 'data:' && url.protocol !== 'blob:' && url.origin !== origin) this.problems.push(`request to ${url.origin}`);
    });
  }

  private console(message: ConsoleMessage): void {
    const text = message.text();
    // The browser itself logs answers of 4xx and 5xx; tests that cause one say so by `expected`.
    if (this.expected.some((pattern) => pattern.test(text))) return;
    if (message.type() === 'error' || /content security policy|trusted ?type/i.test(text)) this.problems.push(`console: ${text}`);
  }

  expected: RegExp[] = [];

  none(): void {
    expect(this.problems).toEqual([]);
  }
}

export async function signIn(page: Page, apiKey: string): Promise<void> {
  await page.getByLabel('API key').fill(apiKey);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/**
 * The messages on screen, top to bottom, as a frame paints them. The rows that
 * the list keeps ready above and below are not on screen.
 */
export async function messages(page: Page): Promise<string[]> {
  return page.getByTestId('log-list').evaluate(async (list) => {
    await new Promise(requestAnimationFrame);
    const box = list.getBoundingClientRect();
    return [...list.querySelectorAll('.log-row')]
      .map((row) => ({ at: row.getBoundingClientRect(), text: row.querySelector('.log-message')?.textContent ?? '' }))
      .filter(({ at }) => at.bottom > box.top && at.top < box.bottom)
      .sort((a, b) => a.at.top - b.at.top)
      .map(({ text }) => text);
  });
}

/** How much of the list rows cover in the emptiest of so many frames, as a part of one. */
export async function emptiestFrame(page: Page, frames: number): Promise<number> {
  return page.getByTestId('log-list').evaluate(async (list, count) => {
    let emptiest = 1;
    for (let frame = 0; frame < count; frame++) {
      await new Promise(requestAnimationFrame);
      const box = list.getBoundingClientRect();
      const covered = [...list.querySelectorAll('.log-row')]
        .map((row) => row.getBoundingClientRect())
        .reduce((sum, row) => sum + Math.max(0, Math.min(row.bottom, box.bottom) - Math.max(row.top, box.top)), 0);
      emptiest = Math.min(emptiest, covered / box.height);
    }
    return emptiest;
  }, frames);
}

/** The largest row index on screen: grows while the view follows new lines. */
export async function lastIndex(page: Page): Promise<number> {
  return page.locator('.log-row').evaluateAll((rows) => Math.max(-1, ...rows.map((row) => Number((row as HTMLElement).dataset.index))));
}

export const fromEnd = (page: Page): Promise<number> =>
  page.getByTestId('log-list').evaluate((list) => list.scrollHeight - list.clientHeight - list.scrollTop);
